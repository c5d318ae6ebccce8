"""What a gateway says about itself: its counts, its queues, its process, and whether its accounts agree."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bytewax.dataflow import Dataflow
from prometheus_client.core import Metric

from connectors.kafka import KafkaSinkStats, KafkaSourceStats
from connectors.otlp import OtlpClient
from connectors.placed_sink import PlacedSink
from connectors.prometheus import ExpositionSink
from control.epochs import Epochs
from control.flow_steps import steps_of
from flows.telemetry_settings import MetricsExportSettings, TelemetrySettings
from telflow.accounting import Ledger
from telflow.delivery.circuit_breaker import CircuitState
from telflow.delivery.log import Log
from telflow.delivery.sending_queue import QueueStats
from telflow.errors import DeliveryError, describe_fault
from telflow.telemetry import (
    AccountCheck,
    MetricNames,
    Refusals,
    account_families,
    log_families,
    process_families,
    record_families,
    refusal_families,
    to_batch,
)

__all__ = ["SelfTelemetry", "exporters_of", "expositions_of"]

_LOG = logging.getLogger(__name__)
_STALLED_EPOCHS = 5


def exporters_of(flow: Dataflow) -> dict[str, str]:
    """Return the destinations of a flow: by the full id of the step that writes, the name of the part around it.

    What the ledger calls `gateway.export_backend.write` is `export_backend`.
    """
    sinks = [step.step_id for step in steps_of(flow) if getattr(step, "sink", None) is not None and not step.substeps]
    return {step_id: step_id.removeprefix(f"{flow.flow_id}.").split(".")[0] for step_id in sinks}


class SelfTelemetry:
    """Collects a gateway's own metrics, checks its accounts now and then, and sends the metrics if asked to."""

    def __init__(
        self,
        settings: TelemetrySettings,
        flow: Dataflow,
        *,
        ledger: Ledger,
        epochs: Epochs,
        epoch_s: float,
        intake_bytes: Callable[[], int],
        intake_capacity_bytes: int,
        quiet_s: float,
        refusals: Refusals | None = None,
        logs: Mapping[str, Log] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up; nothing runs before `start`.

        Args:
            settings: The options.
            flow: The dataflow; its sources and sinks are asked for their `stats()`.
            ledger: The record counts.
            epochs: When its sinks were flushed.
            epoch_s: How often they should be.
            intake_bytes: What waits between the receivers and the flow.
            intake_capacity_bytes: What may.
            quiet_s: How long nothing may have moved before records in flight must be explained.
            refusals: What its receivers refused.
            logs: Its logs on disk, by name.
            now_s: A monotonic clock.
        """
        self._refusals = refusals or Refusals()
        self._logs = logs or {}
        self._settings = settings
        self._names = MetricNames(settings.prefix)
        self._ledger = ledger
        self._epochs = epochs
        self._epoch_s = epoch_s
        self._intake_bytes = intake_bytes
        self._intake_capacity_bytes = intake_capacity_bytes
        self._exporters = exporters_of(flow)
        self._parts = dict(_parts_with_stats(flow, self._exporters))
        self.check = AccountCheck(ledger, is_holding=self.is_holding, quiet_s=quiet_s, now_s=now_s)
        self._start_time_unix_nano = time.time_ns()
        self._instance = f"{socket.gethostname()}:{os.getpid()}"
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to check, and to send."""
        self._run("telflow-accounts", self._check_now_and_then)
        if self._settings.export is not None:
            export = self._settings.export
            self._run("telflow-own-metrics", lambda: self._send_now_and_then(export))

    def _run(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """End both."""
        self._done.set()
        for thread in self._threads:
            thread.join(5)

    def is_holding(self) -> bool:
        """Return whether records wait in the intake or in a queue, or whether the flow itself is held up."""
        if self._intake_bytes() > 0 or any(_holds(stats) for _, _, stats in self._stats()):
            return True
        age_s = self._epochs.age_s()
        return age_s is not None and age_s > _STALLED_EPOCHS * self._epoch_s

    def intake_full(self) -> bool:
        """Return whether the receivers refuse data for want of room."""
        return self._intake_bytes() >= self._intake_capacity_bytes

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now; this makes the object a collector of `prometheus_client`."""
        names = self._names
        yield from record_families(names, self._ledger.rows(), self._exporters)
        yield from refusal_families(names, self._refusals.rows())
        yield from account_families(names, self.check.look())
        yield names.value("intake_held_bytes", "Bytes received that wait for the flow.", self._intake_bytes())
        yield names.value("intake_capacity_bytes", "Bytes that may.", self._intake_capacity_bytes)
        yield from log_families(names, self._logs, time.time_ns())
        yield from self._queue_families()
        yield from self._kafka_families()
        yield from self._epoch_families()
        yield from process_families(names)

    def _stats(self) -> Iterator[tuple[str, str, Any]]:
        """Yield (part of the flow, its partition or nothing, what it says of itself)."""
        for name, ask in self._parts.items():
            said = ask()
            if isinstance(said, Mapping):
                for partition, stats in said.items():
                    yield name, partition, stats
            else:
                yield name, "", said

    def _queue_families(self) -> Iterator[Metric]:
        labels = ("exporter", "partition")
        families = {
            "parcels": self._names.gauge("exporter_queue_size", "Batches not delivered yet.", labels),
            "held_bytes": self._names.gauge("exporter_queue_held_bytes", "Memory they take.", labels),
            "stored_bytes": self._names.gauge("exporter_queue_stored_bytes", "Disk they take.", labels),
            "aside": self._names.gauge(
                "exporter_queue_retrying", "Batches that failed and are to be repeated.", labels
            ),
            "sending": self._names.gauge("exporter_in_flight_requests", "Batches being sent.", labels),
        }
        circuit = self._names.gauge("exporter_circuit_closed", "1: the destination is asked; 0: not now.", labels)
        for name, partition, stats in self._stats():
            if isinstance(stats, QueueStats):
                for attribute, family in families.items():
                    family.add_metric((name, partition), getattr(stats, attribute))
                circuit.add_metric((name, partition), float(stats.circuit is not CircuitState.OPEN))
        yield from families.values()
        yield circuit

    def _kafka_families(self) -> Iterator[Metric]:
        lag = self._names.gauge(
            "kafka_receiver_offset_lag", "Messages that were not read yet.", ("receiver", "topic", "partition")
        )
        lost = self._names.counter(
            "kafka_receiver_lost_messages", "Messages deleted before they were read.", ("receiver",)
        )
        bad = self._names.counter("kafka_receiver_unmarshal_failed", "Messages that are no OTLP.", ("receiver",))
        waiting = self._names.gauge("kafka_exporter_unacknowledged", "Messages without an answer.", ("exporter",))
        for step, part, stats in self._stats():
            name = part or step
            if isinstance(stats, KafkaSourceStats):
                for place, behind in sorted(stats.lag.items()):
                    topic, _, number = place.rpartition("/")
                    lag.add_metric((name, topic, number), behind)
                lost.add_metric((name,), stats.lost)
                bad.add_metric((name,), stats.undecodable)
            elif isinstance(stats, KafkaSinkStats):
                waiting.add_metric((name,), stats.unacknowledged)
        yield from (lag, lost, bad, waiting)

    def _epoch_families(self) -> Iterator[Metric]:
        flushes = self._names.counter("exporter_flushes", "Flushes at the ends of epochs.", ("exporter",))
        seconds = self._names.counter("exporter_flush_seconds", "Time they took.", ("exporter",))
        for step_id, done in sorted(self._epochs.flushes().items()):
            name = (self._exporters.get(step_id, step_id),)
            flushes.add_metric(name, done.count)
            seconds.add_metric(name, done.seconds)
        yield flushes
        yield seconds
        age = self._names.gauge("epoch_age_seconds", "Time since the last epoch ended.")
        if (age_s := self._epochs.age_s()) is not None:
            age.add_metric((), age_s)
        yield age

    def _check_now_and_then(self) -> None:
        while not self._done.wait(self._settings.check_interval.total_seconds()):
            try:
                self.check.look()
            except Exception as error:  # noqa: BLE001 - what watches must not end
                _LOG.error("the accounts cannot be checked: %s", describe_fault(error))

    def _send_now_and_then(self, settings: MetricsExportSettings) -> None:
        """Send the metrics as they are; a fixed number of points an interval, whatever else the gateway does.

        So a gateway that sends to itself has that much more to do and no more: it gets its metrics as data, and counts
        them, which changes the next ones' values and not their number.
        """
        with OtlpClient(settings.without_retry()) as client:
            while not self._done.wait(settings.interval.total_seconds()):
                try:
                    client.send(
                        to_batch(
                            self.collect(),
                            instance=self._instance,
                            start_time_unix_nano=self._start_time_unix_nano,
                            time_unix_nano=time.time_ns(),
                        )
                    )
                except DeliveryError as error:
                    _LOG.warning("own metrics could not be sent to %s: %s", settings.endpoint, error)
                except Exception as error:  # noqa: BLE001 - what watches must not end
                    _LOG.error("own metrics could not be sent: %s", describe_fault(error))


def expositions_of(flow: Dataflow) -> Iterator[Callable[[], bytes]]:
    """Yield what renders the metrics that a flow shows at `/metrics`."""
    for step in steps_of(flow):
        sink = getattr(step, "sink", None)
        if sink is None or step.substeps:
            continue
        sink = getattr(sink, "inner", sink)
        for one in sink.sinks.values() if isinstance(sink, PlacedSink) else (sink,):
            if isinstance(one, ExpositionSink):
                yield one.render


def _parts_with_stats(flow: Dataflow, exporters: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    for step in steps_of(flow):
        if step.substeps:
            continue
        part = getattr(step, "source", None) or getattr(step, "sink", None)
        stats = getattr(getattr(part, "inner", part), "stats", None)
        if callable(stats):
            name = exporters.get(step.step_id) or step.step_id.removeprefix(f"{flow.flow_id}.").split(".")[0]
            yield name, stats


def _holds(stats: Any) -> bool:
    match stats:
        case QueueStats():
            return stats.parcels > 0
        case KafkaSinkStats():
            return stats.unacknowledged > 0
        case _:
            return False
