"""count_records: as counting the official library's messages one by one, with the Collector's names and options."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from pydantic import ValidationError

from operators.count import CountSettings, count_records
from telflow.accounting import Ledger, Outcome
from telflow.codec import encode
from telflow.schema import MetricType, Signal
from tests.countable import NOW, Attributes, Countable, countable_requests, countables, metrics_from, told
from tests.spans import EPOCH, SECOND, Span, spans_batch
from tests.strategies import thorough

DEFAULTS = {
    "spans": "trace.span.count",
    "span_events": "trace.span.event.count",
    "metrics": "metric.count",
    "data_points": "metric.datapoint.count",
    "logs": "log.record.count",
}
_attribute = st.fixed_dictionaries(
    {"key": st.sampled_from(["env", "code", "host"])},
    optional={"default_value": st.sampled_from(["none", 0, 1.5, False]), "optional": st.booleans()},
)
_conditions = st.lists(
    st.sampled_from(
        [{"attributes": {"env": ["dev", "7"]}}, {"names": ["GET *", "load event"]}, {"severity_at_least": 5}]
    ),
    max_size=2,
)
_metric = st.fixed_dictionaries(
    {"conditions": _conditions, "attributes": st.lists(_attribute, max_size=2, unique_by=lambda a: a["key"])}
)


def _fits(item: Countable, condition: dict[str, Any], section: str) -> bool:
    match condition:
        case {"attributes": {"env": texts}}:
            # Metrics and their points are one record here: the first point's attributes.
            return str(item.own.get("env")) in texts
        case {"names": _}:
            return item.name.startswith("GET ") or item.name == "load event"
        case _:
            return section == "logs" and item.severity >= 5


def _expected(requests: Sequence[tuple[Signal, Message]], section: str, metric: dict[str, Any]) -> dict[Any, int]:
    found: collections.Counter[tuple[Attributes, Attributes]] = collections.Counter()
    for item in countables(requests, section):
        if metric["conditions"] and not any(_fits(item, c, section) for c in metric["conditions"]):
            continue
        own: dict[str, Any] = {}
        for attribute in metric["attributes"]:
            value = item.value(attribute["key"])
            own[attribute["key"]] = attribute.get("default_value") if value is None else value
            if own[attribute["key"]] is None:
                del own[attribute["key"]]
                if not attribute.get("optional"):
                    break
        else:
            found[told(item.resource), told(own)] += 1
    return dict(found)


def _run(requests: Sequence[tuple[Signal, Message]], options: dict[str, Any], ledger: Ledger) -> list[dict[str, Any]]:
    settings = CountSettings.model_validate({"emit_on_eof": True, "idle_timeout": None, "max_series": 1000, **options})
    return metrics_from(requests, lambda name, up: count_records(name, up, settings, clock=lambda: NOW, ledger=ledger))


@thorough(25)
@given(requests=countable_requests(), sections=st.dictionaries(st.sampled_from(list(DEFAULTS)), _metric, min_size=1))
def test_equal_to_counting_one_by_one(
    requests: list[tuple[Signal, Message]], sections: dict[str, dict[str, Any]]
) -> None:
    """Every section, condition, attribute, default and resource; other sections keep their default metrics."""
    for name, metric in sections.items():
        if name == "metrics":
            metric["attributes"] = []
            metric["conditions"] = [c for c in metric["conditions"] if "names" in c]
    found: dict[str, dict[Any, int]] = {}
    for point in _run(requests, {name: {f"own.{name}": metric} for name, metric in sections.items()}, Ledger()):
        assert (point["type"], point["is_monotonic"], point["aggregation_temporality"]) == (MetricType.SUM, True, 1)
        place = (told(point["resource"]), told(point["attributes"]))
        assert place not in found.setdefault(point["name"], {})
        found[point["name"]][place] = point["value_int"]
    for section, default in DEFAULTS.items():
        metric = sections.get(section, {"conditions": [], "attributes": []})
        name = f"own.{section}" if section in sections else default
        assert found.get(name, {}) == _expected(requests, section, metric)


def test_the_default_metrics_are_valid_otlp() -> None:
    """With the Collector's descriptions; counted as derived."""
    ledger = Ledger()
    out: list[Any] = []
    spans = spans_batch([Span(EPOCH + n * SECOND, attributes={"n": n}) for n in range(3)])
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource([spans]))
    settings = CountSettings(emit_on_eof=True, namespace="edge", resource_attributes=("service.*",))
    op.output("out", count_records("count", up, settings, lambda: NOW, ledger), TestingSink(out))
    run_main(flow)
    ((key, batch),) = out
    assert key == "acme"
    (of_resource,) = ExportMetricsServiceRequest.FromString(encode(batch)).resource_metrics
    assert [a.value.string_value for a in of_resource.resource.attributes] == ["shop"]
    (metric,) = of_resource.scope_metrics[0].metrics
    assert (metric.name, metric.description) == ("edge.trace.span.count", "The number of spans observed.")
    assert metric.sum.data_points[0].as_int == 3
    assert [(r.component, r.count) for r in ledger.rows() if r.outcome is Outcome.DERIVED] == [("test.count", 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": {"n": {"attributes": [{"key": "a"}]}}}, "metrics: expected none with attributes"),
        ({name: {} for name in DEFAULTS}, "expected at least one metric"),
        ({"lateness": -1}, "lateness: expected at least 0"),
        (
            {"logs": {"n": {"attributes": [{"key": "a"}, {"key": "a"}]}}},
            "expected keys and measures of different names",
        ),
        ({"logs": {"": {}}}, "at least 1 character"),
        ({"spanevents": {}}, "Extra inputs"),
        ({"logs": {"n": {"conditions": [{}]}}}, "fits every record"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    """Each says what it expected."""
    with pytest.raises(ValidationError, match=message):
        CountSettings.model_validate(options)
