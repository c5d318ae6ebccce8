"""aggregate, the step of a dataflow: on one worker or a cluster, killed and rescaled: as a reference has it."""

from __future__ import annotations

import collections
import json
import time
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from pydantic import ValidationError

from operators.aggregate import aggregate, to_metrics
from telflow.accounting import Ledger, Outcome
from telflow.aggregation import AggregateSettings, Count, Distinct, Quantiles
from telflow.batch import TelemetryBatch
from telflow.codec import encode
from telflow.fields import FieldRef
from tests import aggregate_flow
from tests.aggregation_reference import Place, Reference, assert_same, read
from tests.cluster import Cluster
from tests.numbered_source import SOURCES
from tests.spans import EPOCH, SECOND, Span, points, spans_batch

NOW = aggregate_flow.NOW
COUNT = 40
MEASURES: dict[str, Any] = {
    "spans": {"kind": "count"},
    "total": {"kind": "sum", "of": "size"},
    "most": {"kind": "max", "of": "size"},
    "latest": {"kind": "last", "of": "size"},
    "took": {"kind": "histogram", "of": "duration_s", "bounds": [0.5, 2]},
    "sizes": {"kind": "exponential_histogram", "of": "size", "max_size": 16},
    "quantiles": {"kind": "quantiles", "of": "size"},
    "users": {"kind": "distinct", "of": "user"},
}
WINDOWS = {
    "tumbling": {"kind": "tumbling", "length": "10s"},
    "sliding": {"kind": "sliding", "length": "4s", "slide": "2s"},
    "session": {"kind": "session", "gap": "1s"},
}


def _options(window: str, late: str = "drop") -> dict[str, Any]:
    return {
        "by": ["name", "region"],
        "measures": MEASURES,
        "window": WINDOWS[window],
        "lateness": "3s",
        "late": late,
        "max_series": 4,
        "emit_on_eof": True,
        "idle_timeout": None,
    }


def _expected(settings: AggregateSettings) -> dict[Place, dict[str, Any]]:
    reference = Reference(settings, NOW)
    for source in SOURCES:
        for number in range(COUNT):
            reference.add(aggregate_flow.spans_of(source, number))
    reference.finish()
    assert reference.late > 10
    return reference.results(reference.final)


def test_killed_and_rescaled_the_results_are_exact(tmp_path: Path) -> None:
    """Three processes, killed at once, go on as two: each window of each kind and tenant as the reference has it."""
    options = {name: _options(name, "side_output" if name == "sliding" else "drop") for name in WINDOWS}
    (tmp_path / "options.json").write_text(json.dumps(options))
    recovery = tmp_path / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 2)
    flow = Path(aggregate_flow.__file__)
    arguments = ["-r", str(recovery), "-s", "1", "-b", "0"]
    environment = {"FOLDER": str(tmp_path), "COUNT": str(COUNT), "HOLD": "1"}
    with Cluster(flow, 3, environment, arguments) as cluster:
        cluster.wait_until(lambda: sum(path.stat().st_size for path in tmp_path.glob("tumbling-?")) > 0)
        time.sleep(0.3)  # anywhere in the middle
        cluster.kill()
    with Cluster(flow, 2, environment | {"HOLD": "0"}, arguments) as cluster:
        cluster.wait()
    for name, chosen in options.items():
        settings = AggregateSettings.model_validate(chosen)
        rows = [pa.RecordBatch.from_pylist(aggregate_flow.results(tmp_path, name))]
        assert_same(read(rows, settings), _expected(settings))


def _run(items: list[TelemetryBatch], ledger: Ledger, **options: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Rows, metrics and late records of a flow of one worker."""
    rows: list[Any] = []
    metrics: list[Any] = []
    late: list[Any] = []
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource(items))
    base = {"emit_on_eof": True, "idle_timeout": None}
    out = aggregate("measured", up, clock=lambda: NOW, ledger=ledger, **{**base, **options})
    settings = AggregateSettings.model_validate({**base, **options})
    op.output("rows", out.rows, TestingSink(rows))
    op.output("metrics", to_metrics("otlp", out.rows, settings, ledger), TestingSink(metrics))
    op.output("late", out.late, TestingSink(late))
    run_main(flow)
    return [row for _, table in rows for row in table.to_pylist()], [b for _, b in metrics], [b for _, b in late]


def test_measures_by_service_and_route() -> None:
    """The example of the documentation: names of attributes are enough, wherever they are."""
    spans = [Span(EPOCH + n, duration=SECOND, attributes={"http.route": "/cart", "user": n}) for n in range(4)]
    rows, metrics, _ = _run(
        [spans_batch(spans)],
        ledger := Ledger(),
        by=["service.name", "http.route"],
        window="1m",
        measures={
            "requests": Count(),
            "latency": Quantiles(of=FieldRef(name="duration_s")),
            "users": Distinct(of=FieldRef(name="user")),
        },
    )
    (row,) = rows
    assert (row["tenant"], row["service.name"], row["http.route"], row["requests"]) == ("acme", "shop", "/cart", 4)
    assert row["users"] == 4
    assert row["latency"]["quantile_values"][0]["value"] == 1.0
    names = [p["name"] for p in points(metrics)]
    assert names == ["requests", "latency", "users"]
    made = [r.count for r in ledger.rows() if r.outcome is Outcome.DERIVED]
    assert made == [3]


def test_the_metrics_are_valid_otlp() -> None:
    """The official library reads every kind of point, with its key as attribute and the resource's on the resource."""
    spans = [Span(EPOCH + n, duration=n * SECOND, attributes={"size": n, "user": n}) for n in range(5)]
    rest: dict[str, Any] = {"mean": {"kind": "mean", "of": "size"}, "rate": {"kind": "rate"}}
    by = [FieldRef(name="service.name", level="resource"), "name", "missing"]
    options = {"by": by, "window": "10s", "measures": MEASURES | rest, "namespace": "test", "temporality": "cumulative"}
    _, metrics, _ = _run([spans_batch(spans)], Ledger(), **options)
    (batch,) = metrics
    request = ExportMetricsServiceRequest.FromString(encode(batch))
    (of_resource,) = request.resource_metrics
    assert [a.key for a in of_resource.resource.attributes] == ["service.name"]
    found = {metric.name: metric for metric in of_resource.scope_metrics[0].metrics}
    kinds = {name.removeprefix("test."): metric.WhichOneof("data") for name, metric in found.items()}
    assert kinds == {
        "spans": "sum",
        "total": "sum",
        "most": "gauge",
        "latest": "gauge",
        "took": "histogram",
        "sizes": "exponential_histogram",
        "quantiles": "summary",
        "users": "gauge",
        "mean": "gauge",
        "rate": "gauge",
    }
    (point,) = found["test.sizes"].exponential_histogram.data_points
    assert (point.count, point.zero_count, point.min, point.max, point.sum) == (5, 1, 0, 4, 10)
    assert sum(point.positive.bucket_counts) == 4
    assert found["test.sizes"].exponential_histogram.aggregation_temporality == 2
    (number,) = found["test.spans"].sum.data_points
    assert (number.as_int, [a.key for a in number.attributes]) == (5, ["name"])


def test_late_records_leave_whole_and_are_counted() -> None:
    """By the side output, and in the ledger as dropped in either way."""
    items = [spans_batch([Span(EPOCH + 60 * SECOND)]), spans_batch([Span(EPOCH), Span(EPOCH + 61 * SECOND)])]
    for late, whole in (("side_output", 1), ("drop", 0)):
        ledger = Ledger()
        _, _, found = _run(items, ledger, measures={"n": Count()}, window="10s", late=late)
        assert sum(batch.num_rows for batch in found) == whole
        dropped = [(r.reason, r.tenant, r.count) for r in ledger.rows() if r.outcome is Outcome.DROPPED]
        assert dropped == [("late", "acme", 1)]


def test_the_series_of_a_large_tenant_are_spread_over_shards() -> None:
    """Each series is counted in one shard; the sum over all is exact."""
    spans = [Span(EPOCH + n, name=f"n{n % 50}", tenant="acme" if n % 3 else None) for n in range(500)]
    options = {"by": ["name", "service.name"], "measures": {"n": Count()}, "window": "10s", "shards": 4}
    rows, _, _ = _run([spans_batch(spans)], Ledger(), **options)
    counted = collections.Counter((s.tenant, s.name) for s in spans)
    assert {(row["tenant"], row["name"]): row["n"] for row in rows} == counted
    assert len(rows) == len(counted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "0s"}, "window: expected at least 1ms"),
        ({"window": {"kind": "sliding", "length": "10s", "slide": "3s"}}, "slide that divides"),
        ({"window": {"kind": "session", "gap": "3s"}, "late": "correct"}, "late: expected drop or side_output"),
        ({"window": {"kind": "session", "gap": "3s"}, "temporality": "cumulative"}, "temporality: expected delta"),
        ({"early": "1s", "temporality": "cumulative"}, "temporality: expected delta"),
        ({"early": "0s"}, "early: expected at least 1ms"),
        ({"lateness": "0s", "idle_timeout": -1}, "idle_timeout: expected at least 0"),
        ({"series_expiry": "1s"}, "series_expiry: expected at least one window"),
        ({"shards": 4, "max_series": 3}, "shards: expected at most max_series"),
        ({"by": ["n"]}, "n: expected keys and measures of different names"),
        ({"by": ["tenant"]}, "the tenant is always a key"),
        ({"measures": {}}, "at least 1 item"),
        ({"measures": {"h": {"kind": "histogram", "of": "x", "bounds": [2, 1]}}}, "expected ascending finite bounds"),
        ({"measures": {"q": {"kind": "quantiles", "of": "x", "quantiles": []}}}, "expected ascending quantiles"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    """Each says what it expected."""
    with pytest.raises(ValidationError, match=message):
        AggregateSettings.model_validate({"measures": {"n": {"kind": "count"}}, "window": "10s", **options})


def test_distinct_counts_are_within_their_bound() -> None:
    """20000 different values, told apart by a sketch of 4096 registers: within three standard errors."""
    spans = [Span(EPOCH + n, attributes={"user": f"u{n}"}) for n in range(20_000)]
    rows, _, _ = _run(
        [spans_batch(spans)], Ledger(), measures={"users": Distinct(of=FieldRef(name="user"))}, window="10s"
    )
    assert abs(rows[0]["users"] / 20_000 - 1) < 3 * 0.0163
