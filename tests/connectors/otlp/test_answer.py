"""What an answer means: the OTLP specification's tables of failures (numbers: OTLP conformance points)."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import json_format
from multidict import CIMultiDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from connectors.otlp.answer import classify_grpc, classify_http
from connectors.otlp.protocol import Refusal, status_bytes
from telflow import Signal
from telflow.delivery.transport import Answer, Verdict

THROTTLED = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "slow down", retry_after_s=1.5).status()
RETRYABLE_CODES = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_13_grpc_codes(code: grpc.StatusCode) -> None:
    """(13) Exactly six codes are retried without a hint."""
    answer = classify_grpc(Signal.LOGS, code, "why")
    assert answer.verdict is (Verdict.RETRYABLE if code.name in RETRYABLE_CODES else Verdict.REFUSED)
    assert (answer.status, answer.message) == (code.name, "why")


def test_13_resource_exhausted_is_retried_only_with_retry_info() -> None:
    """(13, 16) The hint turns it into a throttle, and says how long."""
    code, details = grpc.StatusCode.RESOURCE_EXHAUSTED, THROTTLED.SerializeToString()
    with_hint = classify_grpc(Signal.LOGS, code, "", status_details=details)
    assert (with_hint.verdict, with_hint.retry_after_s) == (Verdict.RETRYABLE, 1.5)
    assert classify_grpc(Signal.LOGS, code, "", status_details=b"\xff garbage").verdict is Verdict.REFUSED


def test_14_http_statuses() -> None:
    """(14, 15) Exactly 429, 502, 503 and 504 are retried; redirects are not followed."""
    verdicts = {status: classify_http(Signal.LOGS, status, {}, b"").verdict for status in range(300, 600)}
    assert {status for status, verdict in verdicts.items() if verdict is Verdict.RETRYABLE} == {429, 502, 503, 504}
    assert Verdict.ACCEPTED not in verdicts.values()


@pytest.mark.parametrize(
    ("headers", "body", "wait_s"),
    [
        ({"retry-after": "7"}, b"", 7.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, b"", 90.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, b"", 0.0),
        ({"Retry-After": "soon"}, b"", None),
        ({"Content-Type": "application/x-protobuf"}, THROTTLED.SerializeToString(), 1.5),
        ({"Content-Type": "application/json"}, status_bytes(THROTTLED, "json"), 1.5),
        ({"Content-Type": "text/html"}, b"<html>bad gateway</html>", None),
        ({"Content-Type": "application/json"}, b"\xff{", None),
    ],
)
def test_16_the_wait_a_destination_asks_for(headers: dict[str, str], body: bytes, wait_s: float | None) -> None:
    """(16) Retry-After as seconds or date, else RetryInfo in the Status; a proxy's page is no reason to stumble."""
    answer = classify_http(Signal.LOGS, 503, CIMultiDict(headers), body, now_unix_s=10.0)
    assert (answer.verdict, answer.retry_after_s) == (Verdict.RETRYABLE, wait_s)


def test_the_message_of_a_refusal_is_kept_but_not_at_any_length() -> None:
    """What the destination says is there for the operator, cut to 500 characters."""
    status = Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, "x" * 9999).status()
    answer = classify_http(Signal.LOGS, 400, {}, status_bytes(status, "protobuf"))
    assert answer.message == "x" * 500


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize(
    ("signal", "response", "field"),
    [
        (Signal.TRACES, ExportTraceServiceResponse, "rejected_spans"),
        (Signal.METRICS, ExportMetricsServiceResponse, "rejected_data_points"),
        (Signal.LOGS, ExportLogsServiceResponse, "rejected_log_records"),
    ],
)
def test_07_partial_success(signal: Signal, response: type, field: str, encoding: str) -> None:
    """(7, 15) The rejected records and the message of each signal; a warning rejects none."""
    message = response()
    message.partial_success.error_message = "mind the gap"
    for rejected in (0, 4, -1):
        setattr(message.partial_success, field, rejected)
        if encoding == "json":
            body, headers = json_format.MessageToJson(message).encode(), {"Content-Type": "application/json"}
        else:
            body, headers = message.SerializeToString(), {}
        answer = classify_http(signal, 200, headers, body)
        assert answer == Answer(Verdict.ACCEPTED, "HTTP 200", "mind the gap", max(0, rejected))


@pytest.mark.parametrize("body", [b"", b"\xff\xff nonsense"])
def test_06_success_is_success_whatever_the_body(body: bytes) -> None:
    """(6) Data that was taken is not sent twice because of an odd body."""
    assert classify_grpc(Signal.LOGS, grpc.StatusCode.OK, "", body=body).verdict is Verdict.ACCEPTED
    assert classify_http(Signal.LOGS, 202, {}, body).verdict is Verdict.ACCEPTED
    assert classify_http(Signal.LOGS, 200, {"Content-Type": "application/json"}, body).verdict is Verdict.ACCEPTED
