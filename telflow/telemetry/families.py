"""telflow's own metrics as Prometheus families, under names a Collector's dashboard knows.

The Collector says `otelcol_receiver_accepted_spans_total`; telflow says the same with a prefix of its own, which can be
set to `otelcol` for dashboards that exist. Each record count has, besides the Collector's labels, the tenant and the
reason. `records_total` is the ledger as it is, every outcome included.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from telflow.accounting import LedgerRow, Outcome
from telflow.schema import Signal
from telflow.telemetry.accounts import AccountState
from telflow.telemetry.refusals import RefusalRow

__all__ = ["MetricNames", "account_families", "process_families", "record_families", "refusal_families"]

_ITEMS = {Signal.TRACES: "spans", Signal.METRICS: "metric_points", Signal.LOGS: "log_records"}
_STARTED_S = time.time()


class MetricNames:
    """Makes families whose names begin with one prefix.

    >>> MetricNames("telflow").gauge("queue_size", "Batches.", ("exporter",)).name
    'telflow_queue_size'
    """

    def __init__(self, prefix: str = "telflow") -> None:
        """Choose the prefix, for example `telflow` or `otelcol`."""
        self._prefix = prefix

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> CounterMetricFamily:
        """Return an empty counter; `_total` is added to its name."""
        return CounterMetricFamily(f"{self._prefix}_{name}", text, labels=labels)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
        """Return an empty gauge."""
        return GaugeMetricFamily(f"{self._prefix}_{name}", text, labels=labels)

    def value(self, name: str, text: str, value: float) -> Metric:
        """Return a gauge of one value."""
        family = self.gauge(name, text)
        family.add_metric((), value)
        return family


def record_families(names: MetricNames, rows: Iterable[LedgerRow], exporters: Mapping[str, str]) -> Iterator[Metric]:
    """Yield the ledger's counts: all of them as `records_total`, and those that a Collector has under its names.

    Args:
        names: The prefix.
        rows: The ledger's counts.
        exporters: Short names of components that are destinations, by their name in the ledger.
    """
    labels = ("outcome", "signal", "tenant", "component", "reason")
    everything = names.counter("records", "Records by what became of them.", labels)
    known: dict[str, CounterMetricFamily] = {}
    for item in _ITEMS.values():
        for kind, text, more in (
            ("receiver_accepted", "taken over", ("receiver",)),
            ("exporter_sent", "that a destination has", ("exporter",)),
            ("exporter_send_failed", "that a destination will not have", ("exporter", "reason")),
            ("processor_dropped", "dropped on the way, as they should be", ("processor", "reason")),
            ("processor_refused", "put aside or throttled on the way", ("processor", "reason")),
        ):
            name = f"{kind}_{item}"
            words = item.replace("_", " ")
            known[name] = names.counter(name, f"{words.capitalize()} {text}.", (*more, "tenant"))
    for row in rows:
        labelled = (row.outcome, row.signal, row.tenant, row.component, row.reason)
        everything.add_metric(labelled, row.count)
        item = _ITEMS[row.signal]
        exporter = exporters.get(row.component)
        match row.outcome:
            case Outcome.RECEIVED:
                known[f"receiver_accepted_{item}"].add_metric((row.component, row.tenant), row.count)
            case Outcome.DELIVERED:
                known[f"exporter_sent_{item}"].add_metric((exporter or row.component, row.tenant), row.count)
            case Outcome.DROPPED if exporter is not None:
                known[f"exporter_send_failed_{item}"].add_metric((exporter, row.reason, row.tenant), row.count)
            case Outcome.DROPPED:
                known[f"processor_dropped_{item}"].add_metric((row.component, row.reason, row.tenant), row.count)
            case Outcome.QUARANTINED | Outcome.THROTTLED:
                known[f"processor_refused_{item}"].add_metric((row.component, row.reason, row.tenant), row.count)
    yield everything
    yield from known.values()


def refusal_families(names: MetricNames, rows: Iterable[RefusalRow]) -> Iterator[Metric]:
    """Yield what receivers refused: requests, and the records in those whose payload was there to be counted."""
    labels = ("receiver", "transport", "reason")
    requests = names.counter(
        "receiver_refused_requests", "Requests refused.", ("receiver", "transport", "signal", "reason")
    )
    items = {
        signal: names.counter(
            f"receiver_refused_{item}", f"{item.replace('_', ' ').capitalize()} in refused requests.", labels
        )
        for signal, item in _ITEMS.items()
    }
    for row in rows:
        requests.add_metric((row.receiver, row.transport, row.signal, row.reason), row.requests)
        if row.signal:
            items[Signal(row.signal)].add_metric((row.receiver, row.transport, row.reason), row.records)
    yield requests
    yield from items.values()


def account_families(names: MetricNames, state: AccountState) -> Iterator[Metric]:
    """Yield what is in flight, and the alarm: `account_balanced` is 0 when the counts contradict one another."""
    in_flight = names.gauge("records_in_flight", "Records received and not yet at their end.", ("signal", "tenant"))
    overdrawn = names.gauge(
        "account_overdrawn_records", "Records counted out more often than in.", ("signal", "tenant")
    )
    for (tenant, signal), balance in sorted(state.balances.items()):
        in_flight.add_metric((signal, tenant), balance.in_flight)
        overdrawn.add_metric((signal, tenant), max(0, -balance.in_flight))
    yield in_flight
    yield overdrawn
    yield names.value("account_unexplained_records", "Records in flight that nothing holds.", state.unexplained)
    yield names.value("account_balanced", "1: the counts agree; 0: they do not.", float(state.balanced))


def process_families(names: MetricNames, proc: Path = Path("/proc/self")) -> Iterator[Metric]:
    """Yield what the process uses; where the system has no `/proc`, CPU time and uptime only.

    Args:
        names: The prefix.
        proc: The process's folder.
    """
    times = os.times()
    cpu = names.counter("process_cpu_seconds", "CPU time, user and system.")
    cpu.add_metric((), times.user + times.system)
    yield cpu
    uptime = names.counter("process_uptime_seconds", "Time since the start.")
    uptime.add_metric((), time.time() - _STARTED_S)
    yield uptime
    try:
        resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files = sum(1 for _ in (proc / "fd").iterdir())
        threads = sum(1 for _ in (proc / "task").iterdir())
    except OSError:
        return
    yield names.value("process_memory_rss_bytes", "Resident memory.", resident)
    yield names.value("process_open_files", "Open file descriptors.", files)
    yield names.value("process_threads", "Threads.", threads)
