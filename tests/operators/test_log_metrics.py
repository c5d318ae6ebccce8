"""log_metrics: gauges, sums and histograms out of attributes and bodies, as a reference reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import ValidationError

from operators.log_metrics import LogMetricsSettings, log_metrics
from telflow.accounting import Ledger
from telflow.schema import MetricType, Signal
from tests.batches import key_value
from tests.countable import NOW, countable_requests, countables, metrics_from, told
from tests.spans import EPOCH, SECOND
from tests.strategies import thorough

_PLAIN = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def _run(requests: Sequence[tuple[Signal, Message]], **options: Any) -> list[dict[str, Any]]:
    settings = LogMetricsSettings.model_validate({"emit_on_eof": True, "idle_timeout": None, **options})
    return metrics_from(requests, lambda name, up: log_metrics(name, up, settings, lambda: NOW, Ledger()))


def _logs(*bodies: Any) -> list[tuple[Signal, ExportLogsServiceRequest]]:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for number, body in enumerate(bodies):
        record = scope.log_records.add(time_unix_nano=EPOCH + number * SECOND)
        record.body.CopyFrom(key_value("", body).value)
    return [(Signal.LOGS, request)]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not _PLAIN.fullmatch(str(value)):
        return None
    return float(value)


@thorough(20)
@given(requests=countable_requests())
def test_equal_to_reading_one_by_one(requests: Sequence[tuple[Signal, Message]]) -> None:
    """The latest, the sum and the distribution of numbers in attributes and bodies, by resource and environment."""
    size, body = {"name": "size", "parse": True}, {"name": "body", "parse": True}
    by = [{"key": "env", "optional": True}]
    made = _run(
        requests,
        metrics={
            "latest": {"measure": {"kind": "last", "of": body}, "attributes": by},
            "total": {"measure": {"kind": "sum", "of": size}, "attributes": by},
            "sizes": {"measure": {"kind": "histogram", "of": body, "bounds": [0, 7]}, "attributes": by},
        },
    )
    numbers: dict[Any, list[tuple[int, float]]] = {}
    totals: dict[Any, float] = {}
    for item in countables(requests, "logs"):
        env = item.value("env")
        place = told(item.resource), told({} if env is None else {"env": env})
        if (value := _number(item.body)) is not None:
            numbers.setdefault(place, []).append((item.time, value))
        totals[place] = totals.get(place, 0) + (_number(item.value("size")) or 0)
    found: dict[str, dict[Any, dict[str, Any]]] = {"latest": {}, "total": {}, "sizes": {}}
    for point in made:
        found[point["name"]][told(point["resource"]), told(point["attributes"])] = point
    assert {place: p["value_double"] for place, p in found["total"].items()} == totals
    assert {place: p["value_double"] for place, p in found["latest"].items()} == {
        place: max(values)[1] for place, values in numbers.items()
    }
    assert {p["type"] for p in found["latest"].values()} <= {MetricType.GAUGE}
    for place, values in numbers.items():
        point = found["sizes"][place]
        only = [value for _, value in values]
        counts = [sum(v <= 0 for v in only), sum(0 < v <= 7 for v in only), sum(v > 7 for v in only)]
        assert (point["bucket_counts"], point["count"], point["sum"]) == (counts, len(only), sum(only))
    assert found["sizes"].keys() == numbers.keys()


def test_a_number_in_the_middle_of_a_text() -> None:
    """By a regular expression; also as an attribute. What does not match is no value."""
    logs = _logs("GET /cart took 12.5 ms", "POST /cart took 7 ms", "GET /cart took 3 ms", "ready", 5, None)
    measure = {"kind": "sum", "of": {"name": "body", "pattern": r"took (?P<value>[0-9.]+) ms"}, "unit": "ms"}
    (point,) = _run(logs, metrics={"took": {"measure": measure}})
    assert (point["value_double"], point["unit"]) == (22.5, "ms")


def test_points_by_a_field_of_the_record() -> None:
    """Severity, for example, which is no attribute."""
    ((_, request),) = logs = _logs("a", "b", "c")
    for record, severity in zip(request.resource_logs[0].scope_logs[0].log_records, "IIW", strict=True):
        record.severity_text = severity
    made = _run(
        logs,
        metrics={"n": {"measure": {"kind": "count"}, "attributes": [{"key": "severity_text", "source": "column"}]}},
    )
    assert {p["attributes"]["severity_text"]: p["value_int"] for p in made} == {"I": 2, "W": 1}


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"name": "body", "pattern": "("}, "pattern: expected a regular expression"),
        ({"name": "body", "pattern": "[0-9]+"}, "pattern: expected a group"),
    ],
)
def test_a_pattern_without_a_value_is_refused(of: dict[str, Any], message: str) -> None:
    """When the settings are read, not when the first record comes."""
    with pytest.raises(ValidationError, match=message):
        _run([], metrics={"n": {"measure": {"kind": "sum", "of": of}}})
