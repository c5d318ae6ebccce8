"""Runs a gateway: opens the receiver, runs the flow, drains on SIGTERM or Ctrl-C, and gives account at the end."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from bytewax.dataflow import Dataflow

from connectors.otlp import BoundPorts, OtlpReceiver
from control.account import account, accounting_table, loss_table, losses, totals
from control.cluster.places import placement_alone, read_places
from control.drain import Drain, close_sources, drain_on_signal, finish_sinks, stop_parts
from control.engine import run_dataflow
from control.epochs import Epochs
from control.exit_codes import LossError, UnavailableError
from control.gateway_telemetry import GatewayTelemetry
from control.screen import ACTIVE, Output, Screen
from control.storage import Storage
from control.target import settings_of
from flows.gateway import FLOW_ID, GatewaySettings, Share, build
from telflow.accounting import LEDGER, Ledger
from telflow.delivery.committed import CommittedStates
from telflow.delivery.committed_here import CommittedHere
from telflow.errors import ConfigError
from telflow.memory import reuse_large_blocks
from telflow.memory_budget import MEMORY
from telflow.placement import ALONE, Placement
from telflow.telemetry import LogFormat, Refusals, set_up_log

__all__ = ["Gateway", "run_gateway"]

_STATUS_EVERY_S = 1.0


class Gateway:
    """A gateway in this process, for the command, the demo and tests."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        ledger: Ledger = LEDGER,
        placement: Placement = ALONE,
        recovery_dir: Path | None = None,
    ) -> None:
        """Describe it; nothing is opened before `start`.

        Args:
            settings: Its settings.
            ledger: Where records are counted.
            placement: Which part of a cluster it is.
            recovery_dir: Where the engine keeps the cluster's state; None: where the settings say.
        """
        self.settings = settings
        self._placement = placement
        self._recovery_dir = recovery_dir
        self._committed = CommittedHere()
        self._left_over: list[Storage] = []
        self.drain = Drain(on_request=self._stop)
        self._ledger = ledger
        self._storage: Storage | None = None
        self._receiver: OtlpReceiver | None = None
        self._flow: Dataflow | None = None
        self._epochs = Epochs()
        self._refusals = Refusals()
        self.telemetry: GatewayTelemetry | None = None

    def start(self) -> BoundPorts:
        """Set up all parts and open the receiver's ports, and the one of `telemetry`.

        Raises:
            ConfigError: A part cannot be set up.
            UnavailableError: A port is taken, or a folder cannot be written.
        """
        reuse_large_blocks()  # before the receiver starts its threads
        settings = self.settings
        storage = self._storage = self._open_storage(self._placement.own)
        undecodable = settings.dead_letters is not None and settings.dead_letters.undecodable
        try:
            with _outside():
                self._flow = build(
                    settings, storage.intake, outgoing=storage.outgoing, ledger=self._ledger, share=self._share()
                )
            self._receiver = OtlpReceiver(
                settings.receivers.otlp,
                storage.intake,
                ledger=self._ledger,
                dead_letters=storage.outgoing.dead_letters if undecodable else None,
                refusals=self._refusals,
            )
            self.telemetry = GatewayTelemetry(
                settings,
                self._flow,
                self.drain,
                ledger=self._ledger,
                epochs=self._epochs,
                intake_bytes=lambda: storage.intake.held_bytes,
                refusals=self._refusals,
                logs=storage.logs,
            )
            MEMORY.apply(settings.memory)
            if settings.telemetry is not None:
                self._ledger.max_tenants = settings.telemetry.max_tenants
            if self.drain.requested:  # before there was anything to stop
                self._stop()
            with _outside(always=True):
                self.telemetry.start()
                return self._receiver.start()
        except BaseException:
            self._close()
            raise

    @property
    def flow(self) -> Dataflow:
        """The dataflow, once it is started."""
        if self._flow is None:
            raise RuntimeError("expected start() before flow")
        return self._flow

    def run(
        self, *, addresses: Sequence[str] | None = None, index: int = 0, backup_interval: timedelta = timedelta()
    ) -> None:
        """Run the flow until `drain` is requested and everything received has left it; then close the ports.

        Args:
            addresses: See `run_dataflow`.
            index: See `run_dataflow`.
            backup_interval: See `run_dataflow`.
        """
        if self._flow is None or self._storage is None or self.telemetry is None:
            raise RuntimeError("expected start() before run()")
        try:
            with self.telemetry.running():
                run_dataflow(
                    self._flow,
                    recovery_dir=self._storage.recovery_dir,
                    epoch=self.settings.epoch_interval,
                    epochs=self._epochs,
                    addresses=addresses,
                    index=index,
                    backup_interval=backup_interval,
                )
            self._learn_last_epoch(self._storage.recovery_dir)
            finish_sinks(self._flow)
        finally:
            self._close()

    def _open_storage(self, place: str) -> Storage:
        settings = self.settings
        return Storage(
            settings.storage,
            FLOW_ID,
            memory_bytes=settings.intake.max_bytes,
            retry_after_s=settings.intake.retry_after.total_seconds(),
            queue_bytes=settings.queue_bytes,
            dead_letters=settings.dead_letters,
            ledger=self._ledger,
            place=place,
            recovery_dir=self._recovery_dir,
            committed=None if self._placement.alone else self._committed,
            left_over=place != self._placement.own,
        )

    def _share(self) -> Share | None:
        """Open what other workers have left to this one."""
        if self._placement.alone or self._storage is None:
            return None
        left_over = {}
        for place in self._placement.here[1:]:
            storage = self._open_storage(place)
            self._left_over.append(storage)
            outgoing = replace(storage.outgoing, dead_letters=self._storage.outgoing.dead_letters)
            left_over[place] = (storage.intake, outgoing)
        return Share(self._placement, self._storage.recovery_dir, self._committed, left_over)

    def _learn_last_epoch(self, recovery_dir: Path | None) -> None:
        """Several hosts have each a part of the state's files, which do not tell; the next start commits the rest."""
        if not self._placement.alone and recovery_dir is not None and len(read_places(recovery_dir)) == 1:
            with CommittedStates(recovery_dir) as files:
                self._committed.commit_last(files)

    def _stop(self) -> None:
        if self._storage is not None:
            self._storage.intake.close()
        if self._flow is not None:
            stop_parts(self._flow)

    def _close(self) -> None:
        if self._storage is not None:
            self._storage.intake.close()
        if self._receiver is not None:
            self._receiver.stop()
        if self._flow is not None:
            close_sources(self._flow)
        if self.telemetry is not None:
            self.telemetry.stop()
        for storage in (*self._left_over, self._storage):
            if storage is not None:
                storage.close()


def run_gateway(target: str | None, screen: Screen, log_format: LogFormat = LogFormat.TEXT) -> None:
    """Run a gateway until it is told to stop.

    Args:
        target: Its settings file; None: telflow.yaml if there is one, else default settings.
        screen: Where to say what happens.
        log_format: How the log is written.

    Raises:
        ConfigurationError: The settings are wrong.
        UnavailableError: A port is taken or a folder not writable.
        LossError: After the drain, records are unaccounted for.
    """
    level = logging.INFO if ACTIVE.debug else logging.WARNING
    set_up_log(log_format, level, sys.stderr)
    settings, source = settings_of(target)
    gateway = Gateway(settings, placement=placement_alone(settings.recovery_dir))
    with drain_on_signal(gateway.drain):
        ports = gateway.start()
        _announce(screen, settings, ports, source, gateway.telemetry.address if gateway.telemetry else None)
        with _status_line(screen, gateway.drain):
            gateway.run()
    _give_account(screen, settings)


def _announce(screen: Screen, settings: GatewaySettings, ports: BoundPorts, source: str, telemetry: str | None) -> None:
    otlp = settings.receivers.otlp
    addresses = {
        name: f"{part.endpoint.rpartition(':')[0]}:{port}"
        for name, part, port in (("grpc", otlp.grpc, ports.grpc), ("http", otlp.http, ports.http))
        if part is not None and port is not None
    }
    destinations = [f"{name} ({e.protocol}, {e.where})" for name, e in settings.exporters.items()]
    destinations += [f"{name} (kafka, {', '.join(e.brokers)})" for name, e in settings.kafka.items()]
    destinations += [f"{name} (prometheus, {e.where})" for name, e in settings.prometheus.items()]
    destinations += [f"archive ({settings.archive.path})"] if settings.archive else []
    destinations += ["console"] if settings.console or not destinations else []
    if settings.receivers.kafka is not None:
        addresses["kafka"] = ",".join(settings.receivers.kafka.brokers)
    if screen.output is Output.JSON:
        own = {} if telemetry is None else {"telemetry": telemetry}
        screen.result({"event": "started", "settings": source, **addresses, **own, "destinations": destinations})
        return
    screen.note(f"telflow gateway, {source}")
    for name, address in addresses.items():
        what = {"grpc": "OTLP/gRPC on", "http": "OTLP/HTTP on", "kafka": "OTLP from Kafka,"}[name]
        screen.note(f"  {what} {address}")
    screen.note(f"  to {', '.join(destinations)}")
    if telemetry is not None:
        screen.note(f"  own metrics and health on {telemetry}")
    screen.note("  Ctrl-C drains and stops")


@contextlib.contextmanager
def _status_line(screen: Screen, drain: Drain) -> Iterator[None]:
    """Keep one line with the current counts and rate on a terminal."""
    if screen.output is Output.JSON or not screen.err.is_terminal:
        yield
        return
    done = threading.Event()
    with screen.err.status("waiting for data", refresh_per_second=4) as status:
        thread = threading.Thread(target=_update, args=(status.update, done, drain), name="telflow-status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _update(show: Callable[[str], Any], done: threading.Event, drain: Drain) -> None:
    before, before_s = 0, time.monotonic()
    while not done.wait(_STATUS_EVERY_S):
        sums = totals(LEDGER)
        now_s = time.monotonic()
        rate = (sums.received - before) / (now_s - before_s)
        before, before_s = sums.received, now_s
        text = f"received {sums.received:,} ({rate:,.0f}/s)  delivered {sums.delivered:,}  in flight {sums.in_flight:,}"
        text += f"  dropped {sums.dropped:,}" if sums.dropped else ""
        text += f"  quarantined {sums.quarantined:,}" if sums.quarantined else ""
        show(f"{'draining  ' if drain.requested else ''}{text}")


def _give_account(screen: Screen, settings: GatewaySettings) -> None:
    rows = account(LEDGER)
    if screen.output is Output.JSON:
        screen.result({"event": "stopped", "accounting": rows, "counts": list(LEDGER.rows())})
    else:
        for part in (accounting_table(rows), loss_table(losses(LEDGER))):
            if part is not None:
                screen.err.print(part)
    in_flight = totals(LEDGER).in_flight
    if in_flight and settings.recovery_dir is None:
        raise LossError(
            f"drained, but {in_flight:,} records are unaccounted for; please report it with the table above"
        )
    if in_flight:
        folder = settings.storage.folder(FLOW_ID)
        screen.note(f"{in_flight:,} records are not delivered yet; the next run delivers them, they are in {folder}")


@contextlib.contextmanager
def _outside(*, always: bool = False) -> Iterator[None]:
    """Tell a setting that is wrong from a port or folder that cannot be used, which has an exit code of its own."""
    try:
        yield
    except ConfigError as error:
        if always or isinstance(error.__cause__, OSError):
            raise UnavailableError(str(error)) from error
        raise
