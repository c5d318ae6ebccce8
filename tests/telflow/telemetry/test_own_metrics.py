"""Own metrics as OTLP data: what Prometheus reads, in the same numbers."""

from __future__ import annotations

from telflow.accounting import Ledger, Outcome
from telflow.schema import Signal
from telflow.telemetry import MetricNames, record_families, to_batch


def test_counters_become_cumulative_sums_and_gauges_gauges() -> None:
    """With names, labels, values and both times; families without values are left out."""
    ledger = Ledger()
    ledger.add(Outcome.RECEIVED, Signal.LOGS, "acme", 5, component="otlp")
    names = MetricNames()
    families = [*record_families(names, ledger.rows(), {}), names.value("held_bytes", "Bytes.", 7.0)]
    batch = to_batch(families, instance="here:1", start_time_unix_nano=10, time_unix_nano=20)
    rows = {row["name"]: row for row in batch.records.to_pylist()}
    assert set(rows) == {"telflow_records", "telflow_receiver_accepted_log_records", "telflow_held_bytes"}
    accepted = rows["telflow_receiver_accepted_log_records"]
    assert accepted["time_unix_nano"] == 20
    assert accepted["start_time_unix_nano"] == 10
    assert {a["key"]: a["str"] for a in accepted["attributes"]} == {"receiver": "otlp", "tenant": "acme"}
    assert batch.attribute("service.name", level="resource").to_pylist() == ["telflow"] * 3
    assert batch.column("name", level="scope").to_pylist() == ["telflow.self"] * 3
