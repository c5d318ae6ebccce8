"""What a destination's answer means for a request; whether to repeat it is decided elsewhere.

`classify_grpc` and `classify_http` hold the OTLP specification's rules about answers ("Failures", "Partial Success").
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError as ProtobufDecodeError
from google.protobuf.message import Message
from google.rpc import status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from connectors.otlp.protocol import retry_after_s
from telflow.codec import Encoding
from telflow.delivery.transport import Answer, Verdict
from telflow.schema import Signal

__all__ = ["classify_grpc", "classify_http", "parse_retry_after"]

_RESPONSES: dict[Signal, tuple[type[Message], str]] = {
    Signal.TRACES: (ExportTraceServiceResponse, "rejected_spans"),
    Signal.METRICS: (ExportMetricsServiceResponse, "rejected_data_points"),
    Signal.LOGS: (ExportLogsServiceResponse, "rejected_log_records"),
}
_RETRYABLE_CODES = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
_RETRYABLE_STATUSES = {429, 502, 503, 504}
_LONGEST_MESSAGE = 500


def classify_grpc(
    signal: Signal, code: grpc.StatusCode, message: str, *, body: bytes = b"", status_details: bytes | None = None
) -> Answer:
    """Judge a gRPC answer.

    Args:
        signal: What was sent.
        code: The call's status.
        message: The status message.
        body: The response message of a call that ended with OK.
        status_details: Value of the trailer ``grpc-status-details-bin``.

    >>> classify_grpc(Signal.LOGS, grpc.StatusCode.UNAVAILABLE, "full").verdict
    <Verdict.RETRYABLE: 'retryable'>
    """
    if code is grpc.StatusCode.OK:
        return _accepted(signal, "OK", body, "protobuf")
    wait_s = None
    if status_details:
        with contextlib.suppress(ProtobufDecodeError):
            wait_s = retry_after_s(status_pb2.Status.FromString(status_details))
    retryable = code in _RETRYABLE_CODES or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and wait_s is not None)
    verdict = Verdict.RETRYABLE if retryable else Verdict.REFUSED
    return Answer(verdict, code.name, message[:_LONGEST_MESSAGE], retry_after_s=wait_s)


def classify_http(
    signal: Signal, http_status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float | None = None
) -> Answer:
    """Judge an HTTP answer.

    Args:
        signal: What was sent.
        http_status: The answer's status.
        headers: Its headers; names in any case if the mapping knows no difference.
        body: Its body.
        now_unix_s: The time now, for a Retry-After that names a date.

    >>> classify_http(Signal.LOGS, 503, {"Retry-After": "3"}, b"").retry_after_s
    3.0
    >>> classify_http(Signal.LOGS, 500, {}, b"").verdict
    <Verdict.REFUSED: 'refused'>
    """
    encoding: Encoding = "json" if headers.get("Content-Type", "").startswith("application/json") else "protobuf"
    status = f"HTTP {http_status}"
    if 200 <= http_status < 300:  # noqa: PLR2004 - the class of success
        return _accepted(signal, status, body, encoding)
    message, wait_s = _read_status(body, encoding)
    header = headers.get("Retry-After")
    if header is not None:
        wait_s = parse_retry_after(header, time.time() if now_unix_s is None else now_unix_s)
    verdict = Verdict.RETRYABLE if http_status in _RETRYABLE_STATUSES else Verdict.REFUSED
    return Answer(verdict, status, message[:_LONGEST_MESSAGE], retry_after_s=wait_s)


def _accepted(signal: Signal, status: str, body: bytes, encoding: Encoding) -> Answer:
    if not body:
        return Answer(Verdict.ACCEPTED, status)
    response_type, rejected = _RESPONSES[signal]
    response = response_type()
    try:
        if encoding == "json":
            json_format.Parse(body, response, ignore_unknown_fields=True)
        else:
            response.ParseFromString(body)
    except (ProtobufDecodeError, json_format.ParseError, UnicodeDecodeError):
        # The status says that the data was taken; an odd body beside it is not a reason to send it twice.
        return Answer(Verdict.ACCEPTED, status, "the answer's body is not OTLP")
    partial = response.partial_success  # type: ignore[attr-defined]
    message = str(partial.error_message)[:_LONGEST_MESSAGE]
    return Answer(Verdict.ACCEPTED, status, message, rejected=max(0, int(getattr(partial, rejected))))


def _read_status(body: bytes, encoding: Encoding) -> tuple[str, float | None]:
    """Message and RetryInfo of a google.rpc.Status, which proxies do not send: then nothing."""
    status = status_pb2.Status()
    try:
        if encoding == "json":
            json_format.Parse(body, status, ignore_unknown_fields=True)
        else:
            status.ParseFromString(body)
    except (ProtobufDecodeError, json_format.ParseError, UnicodeDecodeError):
        return "", None
    return status.message, retry_after_s(status)


def parse_retry_after(value: str, now_unix_s: float) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None for neither."""
    if value.strip().isdecimal():
        return float(value)
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_unix_s)
    return None
