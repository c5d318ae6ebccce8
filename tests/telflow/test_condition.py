"""Conditions on records: what fits, columnar and for every kind of value."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2
from pydantic import ValidationError

from telflow import codec
from telflow.batch import TelemetryBatch
from telflow.condition import Condition, Criteria
from telflow.schema import Signal
from tests.batches import any_value, key_value


def spans() -> TelemetryBatch:
    request = ExportTraceServiceRequest()
    for service, names in (("shop", ["GET /health", "GET /cart"]), ("bank", ["GET /health", "charge"])):
        resource = request.resource_spans.add()
        resource.resource.attributes.append(key_value("service.name", service))
        scope = resource.scope_spans.add()
        for number, name in enumerate(names):
            span = scope.spans.add(name=name)
            span.attributes.append(key_value("http.status", 200 + number))
    return codec.decode(request.SerializeToString(), Signal.TRACES)


def logs() -> TelemetryBatch:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for severity in (0, 5, 9, 17):
        records.add(severity_number=severity, event_name=f"event.{severity}")
    return codec.decode(request.SerializeToString(), Signal.LOGS)


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ({"names": ["GET /health"]}, [True, False, True, False]),
        ({"names": ["GET *", "charge"]}, [True, True, True, True]),
        ({"names": ["GET"]}, [False, False, False, False]),
        ({"attributes": {"http.status": ["200"]}}, [True, False, True, False]),
        ({"attributes": {"http.status": ["20?"]}, "names": ["GET *"]}, [True, True, True, False]),
        ({"attributes": {"service.name": ["bank"]}, "level": "resource"}, [False, False, True, True]),
        ({"attributes": {"absent": ["*"]}}, [False, False, False, False]),
        ({"names": ["*"], "signals": ["logs"]}, [False, False, False, False]),
    ],
)
def test_a_span_fits_when_all_that_is_stated_is_true(condition: dict[str, Any], fits: list[bool]) -> None:
    """Names, attribute values as text, and whose attributes."""
    built = Condition.model_validate(condition)
    assert built.fits(spans()).to_pylist() == fits
    assert built.others(spans()).to_pylist() == [not fit for fit in fits]


def test_log_records_are_told_by_severity_and_event_name() -> None:
    """One without a severity is not below any."""
    condition = Condition(signals=frozenset({Signal.LOGS}), severity_below=9)
    assert condition.fits(logs()).to_pylist() == [False, True, False, False]
    assert Condition(names=("event.1*",)).fits(logs()).to_pylist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("criteria", "fits"),
    [
        ({"severity_at_least": 9}, [False, False, True, True]),
        ({"severity_at_least": 5, "severity_below": 17}, [False, True, True, False]),
        ({"bodies": ["took *"]}, [True, False, False, False]),
        ({"bodies": ["7", "true"]}, [False, True, True, False]),
        ({"status": ["ok"]}, [False, False, False, False]),
    ],
)
def test_criteria_of_logs(criteria: dict[str, Any], fits: list[bool]) -> None:
    """Severity, and bodies as text whatever they are; records of other signals have neither."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for body, severity in (("took 3 ms", 0), (7, 5), (True, 9), (None, 17)):
        record = records.add(severity_number=severity)
        if body is not None:
            record.body.CopyFrom(any_value(body))
    batch = codec.decode(request.SerializeToString(), Signal.LOGS)
    assert Criteria.model_validate(criteria).fits(batch).to_pylist() == fits
    if "status" not in criteria:
        assert Criteria.model_validate(criteria).fits(spans()).to_pylist() == [False] * 4


def test_spans_are_told_by_their_status() -> None:
    """One without a status is unset."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for code in (None, 0, 1, 2):
        span = scope.spans.add()
        if code is not None:
            span.status.code = trace_pb2.Status.StatusCode.ValueType(code)
    batch = codec.decode(request.SerializeToString(), Signal.TRACES)
    assert Criteria(status=("unset",)).fits(batch).to_pylist() == [True, True, False, False]
    assert Criteria(status=("error", "ok")).fits(batch).to_pylist() == [False, False, True, True]


@pytest.mark.parametrize(
    "condition", [{}, {"signals": ["traces"]}, {"severity_below": 9}, {"names": ["a"], "signals": []}]
)
def test_a_condition_that_would_fit_everything_or_nothing_is_refused(condition: dict[str, Any]) -> None:
    """A typing error must not drop all data."""
    with pytest.raises(ValidationError):
        Condition.model_validate(condition)
