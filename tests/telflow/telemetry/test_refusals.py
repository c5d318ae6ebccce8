"""Refused requests are counted by who refused them and why, and shown under the Collector's names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from telflow.telemetry import MetricNames, Refusals, refusal_families


def test_counts_of_many_threads_are_exact() -> None:
    """A server's threads all count in one place."""
    refusals = Refusals()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(400):
            pool.submit(refusals.add, "otlp", "grpc", "traces", "overloaded", records=3)
    [row] = refusals.rows()
    assert (row.requests, row.records) == (400, 1200)


def test_records_under_the_collectors_names() -> None:
    """By signal; a request that is for no signal counts as a request only."""
    refusals = Refusals()
    refusals.add("otlp", "grpc", "traces", "overloaded", records=5)
    refusals.add("otlp", "http", "metrics", "too large")
    refusals.add("otlp", "http", "", "unknown path")
    families = refusal_families(MetricNames("otelcol"), refusals.rows())
    found = {
        (sample.name, sample.labels["transport"], sample.labels["reason"]): sample.value
        for family in families
        for sample in family.samples
    }
    assert found["otelcol_receiver_refused_spans_total", "grpc", "overloaded"] == 5
    assert found["otelcol_receiver_refused_metric_points_total", "http", "too large"] == 0
    assert found["otelcol_receiver_refused_requests_total", "http", "unknown path"] == 1
    assert len(found) == 5
