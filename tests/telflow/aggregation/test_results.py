"""Results of aggregations as rows and as metrics: nothing is lost between the two, and OTLP holds it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from telflow.aggregation import AggregateSettings, Aggregation, metrics_of
from telflow.codec import encode
from tests.spans import EPOCH, SECOND, Span, points, spans_batch

NOW = EPOCH + 3600 * SECOND


def _settings(**options: Any) -> AggregateSettings:
    return AggregateSettings.model_validate(
        {"measures": {"n": {"kind": "count"}}, "window": "10s", "idle_timeout": None, **options}
    )


def _rows(settings: AggregateSettings, spans: list[Span]) -> list[pa.RecordBatch]:
    kernel = Aggregation(settings)
    update = kernel.add(spans_batch(spans), NOW)
    return [*update.rows, *kernel.flush().rows]


def test_keys_of_resources_go_to_the_resource_and_others_to_the_point() -> None:
    """Where they came from; typed ones as what they are."""
    by = [
        {"name": "service.name", "level": "resource"},
        {"name": "code", "type": "any"},
        {"name": "zone", "level": "resource", "type": "any"},
        "kind",
    ]
    spans = [Span(EPOCH, attributes={"code": code}, resource_attributes={"zone": 7}) for code in (1, "1", 2.5)]
    settings = _settings(by=by)
    (table,) = _rows(settings, spans)
    found = points([metrics_of(table, settings)])
    assert [p["attributes"] for p in found] == [
        {"code": 1, "kind": 2},
        {"code": "1", "kind": 2},
        {"code": 2.5, "kind": 2},
    ]
    assert [p["resource"] for p in found] == [{"service.name": "shop", "zone": 7}] * 3
    assert metrics_of(table, settings).resources.num_rows == 1


def test_keys_may_have_the_names_of_other_columns() -> None:
    """A span has a kind, and anything may have an attribute `tenant`: in the rows they stand behind `by_`."""
    settings = _settings(by=["kind", {"name": "tenant", "source": "attribute"}])
    (table,) = _rows(settings, [Span(EPOCH, attributes={"tenant": "mine"})])
    assert {name: table[name][0].as_py() for name in ("tenant", "by_tenant", "kind", "by_kind")} == {
        "tenant": "acme",
        "by_tenant": "mine",
        "kind": "final",
        "by_kind": 2,
    }
    (point,) = points([metrics_of(table, settings)])
    assert (point["tenant"], point["attributes"]) == ("acme", {"kind": 2, "tenant": "mine"})


def test_whole_resources_stay_and_tell_series_apart() -> None:
    """In the rows as attributes, in the metrics as resources; all keys are of the points then."""
    hosts = [{"host": "a"}, {"host": "b"}, {"host": "a"}]
    settings = _settings(by=[{"name": "service.name", "level": "resource"}], resource_attributes=["host"])
    (table,) = _rows(settings, [Span(EPOCH, resource_attributes=host) for host in hosts])
    assert [len(row) for row in table["resource_attributes"].to_pylist()] == [1, 1]
    found = points([metrics_of(table, settings)])
    assert [(p["resource"], p["attributes"], p["value_int"]) for p in found] == [
        ({"host": "a"}, {"service.name": "shop"}, 2),
        ({"host": "b"}, {"service.name": "shop"}, 1),
    ]


def test_overflow_is_marked_and_totals_stay() -> None:
    """One series per tenant for what found no place, without any key."""
    settings = _settings(by=["name"], max_series=2, resource_attributes=["*"])
    (table,) = _rows(settings, [Span(EPOCH, name=f"s{n}") for n in range(10)])
    assert table["overflow"].to_pylist() == [False, False, True]
    over = points([metrics_of(table, settings)])[-1]
    assert (over["attributes"], over["resource"], over["value_int"]) == ({"otel.metric.overflow": True}, {}, 8)


def test_only_final_results_with_a_value_become_points() -> None:
    """Early ones are replaced later, and a gauge without a value says nothing."""
    measures = {
        "n": {"kind": "count"},
        "size": {"kind": "max", "of": "size"},
        "sizes": {"kind": "quantiles", "of": "size"},
    }
    settings = _settings(measures=measures, early="1s", namespace="test")
    tables = _rows(settings, [Span(EPOCH + 5 * SECOND)])
    assert [table["kind"].to_pylist() for table in tables] == [["early"], ["final"]]
    assert [metrics_of(table, settings).num_rows for table in tables] == [0, 1]
    assert points([metrics_of(tables[1], settings)])[0]["name"] == "test.n"


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_the_official_library_reads_it(temporality: str) -> None:
    """Temporality where the kind has one, start and end of the window."""
    measures = {
        "n": {"kind": "count", "unit": "{span}", "description": "Spans"},
        "top": {"kind": "max", "of": "duration_s"},
    }
    settings = _settings(measures=measures, temporality=temporality)
    (table,) = _rows(settings, [Span(EPOCH)])
    (of_resource,) = ExportMetricsServiceRequest.FromString(encode(metrics_of(table, settings))).resource_metrics
    count, top = of_resource.scope_metrics[0].metrics
    assert (count.unit, count.description, count.sum.is_monotonic) == ("{span}", "Spans", True)
    assert count.sum.aggregation_temporality == {"delta": 1, "cumulative": 2}[temporality]
    (point,) = count.sum.data_points
    assert (point.start_time_unix_nano, point.time_unix_nano) == (EPOCH, EPOCH + 10 * SECOND)
    assert top.gauge.data_points[0].as_double == 1.0
