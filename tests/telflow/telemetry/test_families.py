"""Own metrics under the names that a Collector's dashboards ask for."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.core import Metric

from telflow.accounting import Ledger, Outcome
from telflow.schema import Signal
from telflow.telemetry import AccountCheck, MetricNames, account_families, process_families, record_families


def samples(families: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def test_counts_stand_under_the_collectors_names() -> None:
    """Accepted, sent, failed by exporter, dropped by processor; with the Collector's prefix if asked for."""
    ledger = Ledger()
    for outcome, component, reason, count in (
        (Outcome.RECEIVED, "otlp", "", 10),
        (Outcome.DELIVERED, "gateway.export_a.write", "", 6),
        (Outcome.DROPPED, "gateway.export_a.write", "refused (400)", 1),
        (Outcome.DROPPED, "gateway.drop_0", "health check", 2),
        (Outcome.QUARANTINED, "gateway.redact", "failed", 1),
    ):
        ledger.add(outcome, Signal.TRACES, "acme", count, component=component, reason=reason)
    got = samples(list(record_families(MetricNames("otelcol"), ledger.rows(), {"gateway.export_a.write": "export_a"})))
    acme = ("tenant", "acme")
    assert got["otelcol_receiver_accepted_spans_total", (("receiver", "otlp"), acme)] == 10
    assert got["otelcol_exporter_sent_spans_total", (("exporter", "export_a"), acme)] == 6
    failed = (("exporter", "export_a"), ("reason", "refused (400)"), acme)
    assert got["otelcol_exporter_send_failed_spans_total", failed] == 1
    dropped = (("processor", "gateway.drop_0"), ("reason", "health check"), acme)
    assert got["otelcol_processor_dropped_spans_total", dropped] == 2
    refused = (("processor", "gateway.redact"), ("reason", "failed"), acme)
    assert got["otelcol_processor_refused_spans_total", refused] == 1
    assert sum(value for (name, _), value in got.items() if name == "otelcol_records_total") == 20


def test_every_signal_has_its_items() -> None:
    """Spans, metric points and log records, as the Collector counts them."""
    ledger = Ledger()
    for signal in Signal:
        ledger.add(Outcome.RECEIVED, signal, None, 1, component="otlp")
    names = {s.name for f in record_families(MetricNames(), ledger.rows(), {}) for s in f.samples}
    assert {f"telflow_receiver_accepted_{i}_total" for i in ("spans", "metric_points", "log_records")} <= names


def test_the_alarm_is_a_metric() -> None:
    """`account_balanced` falls to 0, and by how much stands beside it."""
    ledger = Ledger()
    check = AccountCheck(ledger, is_holding=lambda: False)
    ledger.add(Outcome.DELIVERED, Signal.LOGS, "acme", 3, component="x")
    got = samples(list(account_families(MetricNames(), check.look())))
    acme = (("signal", "logs"), ("tenant", "acme"))
    assert got["telflow_account_balanced", ()] == 0
    assert got["telflow_account_overdrawn_records", acme] == 3
    assert got["telflow_records_in_flight", acme] == -3


def test_the_process_is_measured(tmp_path: Path) -> None:
    """Memory, CPU, files and threads on Linux; where there is no /proc, what there is."""
    got = samples(list(process_families(MetricNames())))
    assert got["telflow_process_memory_rss_bytes", ()] > 10 << 20
    assert got["telflow_process_cpu_seconds_total", ()] > 0
    assert got["telflow_process_threads", ()] >= 1
    assert got["telflow_process_open_files", ()] >= 3
    elsewhere = {name for name, _ in samples(list(process_families(MetricNames(), tmp_path)))}
    assert elsewhere == {"telflow_process_cpu_seconds_total", "telflow_process_uptime_seconds_total"}
