"""The receiver against OTLP's points 1 to 12, each test named by its point (docs/reference/conformance.md).

Senders are the official gRPC stubs and Python's own HTTP client, never ours.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import zstandard
from google.rpc import error_details_pb2

from connectors.otlp.grpc_server import GrpcServer
from connectors.otlp.http_server import HttpServer
from connectors.otlp.protocol import ExportRequest, Refusal
from connectors.otlp.record_limit import partial_success
from connectors.otlp.settings import GrpcServerSettings, HttpServerSettings, OtlpReceiverSettings
from telflow import Signal, TelemetryBatch
from telflow.accounting import Outcome
from telflow.delivery.intake import MemoryIntake
from telflow.errors import DeliveryError
from tests.connectors.otlp.conftest import MIB, Running, Start, request_message
from tests.connectors.otlp.senders import REJECTED, SENDERS, GrpcSender, HttpSender, Sender
from tests.oracle import REQUESTS, batch_from_message

every_sender = pytest.mark.parametrize("sender", SENDERS, ids=lambda s: s.name)
every_signal = pytest.mark.parametrize("signal", list(Signal))
both_encodings = pytest.mark.parametrize("encoding", ["protobuf", "json"])


def received(running: Running) -> list[Any]:
    """The record batches of everything taken, in order of arrival."""
    return [batch.records for batch in running.taken()]


@every_signal
@every_sender
def test_01_no_compression_and_gzip(running: Running, sender: Sender, signal: Signal) -> None:
    """(1) Uncompressed and gzip, over both transports, both encodings, all signals."""
    message = request_message(signal, 50)
    assert sender.send(running, message, signal).ok
    if isinstance(sender, GrpcSender):
        assert sender.send(running, message, signal, compression=grpc.Compression.Gzip).ok
    else:
        packed = gzip.compress(sender.body(message))
        assert sender.send(running, packed, signal, headers={"Content-Encoding": "gzip"}).ok
    whole = batch_from_message(message, signal).records
    assert sum(records.num_rows for records in received(running)) == 2 * whole.num_rows


@both_encodings
@pytest.mark.parametrize(("name", "pack"), [("zstd", zstandard.compress), ("deflate", zlib.compress)])
def test_01_http_zstd_and_deflate(running: Running, encoding: str, name: str, pack: Any) -> None:
    """(1) Beyond what is required: zstd and deflate over HTTP."""
    sender = HttpSender(encoding)
    message = request_message(Signal.LOGS, 50)
    assert sender.send(running, pack(sender.body(message)), Signal.LOGS, headers={"Content-Encoding": name}).ok
    assert received(running)[0].equals(batch_from_message(message, Signal.LOGS).records)


def test_01_grpc_deflate(running: Running) -> None:
    """(1) gRPC: what its library allows, which is deflate besides gzip."""
    answer = GrpcSender().send(running, request_message(Signal.LOGS), Signal.LOGS, compression=grpc.Compression.Deflate)
    assert answer.ok


def test_02_ports_and_paths(running: Running) -> None:
    """(2) 4317 and 4318 by default; the three services and paths; profiles are not served yet, and said so."""
    settings = OtlpReceiverSettings()
    assert settings.grpc is not None
    assert settings.http is not None
    assert (settings.grpc.endpoint, settings.http.endpoint) == ("127.0.0.1:4317", "127.0.0.1:4318")
    for signal in Signal:
        assert GrpcSender().send(running, request_message(signal), signal).ok
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            assert HttpSender().send(running, b"", signal, method=method).code == 405
    profiles = HttpSender().send(running, b"", Signal.LOGS, path="/v1development/profiles")
    assert (profiles.code, profiles.status.code) == (404, 12)


def test_03_default_limits() -> None:
    """(3) 20 MiB over HTTP as recommended; gRPC at least 4 MiB."""
    assert HttpServerSettings().max_request_bytes == 20 * MIB
    assert GrpcServerSettings().max_request_bytes >= 4 * MIB


@every_sender
def test_03_a_large_request_is_refused_for_good(start: Start, sender: Sender) -> None:
    """(3) Over the limit: 413, or RESOURCE_EXHAUSTED without RetryInfo; just within it: accepted."""
    running = start(grpc={"max_request_bytes": 4 * MIB}, http={"max_request_bytes": 4 * MIB}, max_record_bytes=None)
    answer = sender.send(running, request_message(Signal.LOGS, 1, "x" * (4 * MIB)), Signal.LOGS)
    assert (answer.code, answer.retry_after_s) == (sender.codes["large"], None)
    assert sender.send(running, request_message(Signal.LOGS, 1, "x" * (4 * MIB - 400)), Signal.LOGS).ok


@pytest.mark.parametrize("name", ["none", "gzip", "zstd", "deflate"])
@both_encodings
def test_03_the_limit_holds_after_decompression(start: Start, name: str, encoding: str) -> None:
    """(3) HTTP: what is larger than the limit once unpacked is 413, however small it came."""
    running = start(http={"max_request_bytes": MIB})
    pack: Any = {"none": bytes, "gzip": gzip.compress, "zstd": zstandard.compress, "deflate": zlib.compress}[name]
    headers = {} if name == "none" else {"Content-Encoding": name}
    answer = HttpSender(encoding).send(running, pack(b" " * (MIB + 1)), Signal.LOGS, headers=headers)
    assert (answer.code, answer.status.code) == (413, 8)
    assert "1048576 bytes" in answer.status.message


def test_03_a_grpc_bomb(start: Start) -> None:
    """(3) gRPC: 64 MiB in a message of 64 KiB is refused before it is unpacked further than the limit."""
    running = start(grpc={"max_request_bytes": 4 * MIB})
    answer = GrpcSender().send(running, bytes(64 * MIB), Signal.LOGS, compression=grpc.Compression.Gzip)
    assert (answer.code, answer.retry_after_s) == ("RESOURCE_EXHAUSTED", None)


@every_signal
def test_04_both_encodings_on_one_port(running: Running, signal: Signal) -> None:
    """(4) Protobuf and JSON are the same data, and each is answered in its own Content-Type."""
    message = request_message(signal)
    for encoding in ("protobuf", "json"):
        answer = HttpSender(encoding).send(running, message, signal)
        expected = "application/json" if encoding == "json" else "application/x-protobuf"
        assert answer.headers["content-type"].split(";")[0] == expected
    batch = TelemetryBatch.concat(running.taken())
    rows = batch_from_message(message, signal).records.num_rows
    columns = [name for name in batch.records.schema.names if name not in {"resource", "scope"}]
    halves = batch.records.slice(0, rows).select(columns), batch.records.slice(rows).select(columns)
    assert halves[0].equals(halves[1])


@pytest.mark.parametrize("content_type", ["text/plain", "application/grpc+proto", "application/x-protobuf2", "*/*"])
def test_04_other_content_types(running: Running, content_type: str) -> None:
    """(4) Any other Content-Type is 415."""
    assert HttpSender("json").send(running, b"{}", Signal.LOGS, headers={"Content-Type": content_type}).code == 415


@every_signal
@every_sender
def test_05_an_empty_request_succeeds(running: Running, sender: Sender, signal: Signal) -> None:
    """(5) No records, no envelopes: success."""
    answer = sender.send(running, REQUESTS[signal](), signal)
    assert answer.ok
    assert not answer.response.HasField("partial_success")
    assert running.taken() == []


@every_signal
@every_sender
def test_06_full_success(running: Running, sender: Sender, signal: Signal) -> None:
    """(6) An Export*ServiceResponse whose partial_success is unset."""
    answer = sender.send(running, request_message(signal), signal)
    assert answer.ok
    assert not answer.response.HasField("partial_success")


@every_signal
@every_sender
def test_07_partial_success_with_exact_counts(start: Start, sender: Sender, signal: Signal) -> None:
    """(7) Records over the size are counted exactly and left out; all others are taken; the ledger knows both."""
    running = start(max_record_bytes=2048, tenant="acme")
    message = request_message(signal, 20)
    large = request_message(signal, 7, "y" * 3000)
    if signal is Signal.METRICS:  # the metric's name is large there: here the points shall be
        large = request_message(signal, 7)
        for point in large.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points:
            point.attributes.add(key="k").value.string_value = "y" * 3000
    expected = batch_from_message(message, signal, "acme").records
    message.MergeFrom(large)
    answer = sender.send(running, message, signal)
    assert answer.ok
    assert getattr(answer.response.partial_success, REJECTED[signal]) == 7
    assert answer.response.partial_success.error_message == "records larger than 2048 bytes are not accepted"
    (records,) = received(running)
    assert records.equals(expected)
    counts = {(row.outcome, row.tenant, row.reason): row.count for row in running.ledger.rows()}
    assert counts[Outcome.DROPPED, "acme", "record too large"] == 7
    assert sum(count for (outcome, _, _), count in counts.items() if outcome is Outcome.RECEIVED) == 27


@every_signal
@every_sender
def test_07_a_metric_that_is_large_by_itself_is_left_out_whole(start: Start, sender: Sender, signal: Signal) -> None:
    """(7) What all records of a request share is no record; what all points of a metric share belongs to each."""
    running = start(max_record_bytes=2048)
    message = request_message(signal, 5, "n" * 3000 if signal is Signal.METRICS else "x")
    envelope = getattr(message, f"resource_{'spans' if signal is Signal.TRACES else signal.value}")[0]
    envelope.resource.attributes.add(key="k").value.string_value = "y" * 3000
    answer = sender.send(running, message, signal)
    rejected = 5 if signal is Signal.METRICS else 0
    assert getattr(answer.response.partial_success, REJECTED[signal]) == rejected
    assert sum(records.num_rows for records in received(running)) == 5 - rejected


@every_sender
def test_07_a_malformed_request_is_refused_whole(start: Start, sender: Sender) -> None:
    """(7, 9) A request with a large record and a malformed one is INVALID_ARGUMENT, 400: nothing is taken."""
    running = start(max_record_bytes=2048)
    body = (
        sender.body(request_message(Signal.LOGS, 2, "QQQ" + "y" * 3000))
        if isinstance(sender, HttpSender)
        else (request_message(Signal.LOGS, 2, "QQQ" + "y" * 3000).SerializeToString())
    )
    answer = sender.send(running, body.replace(b"QQQ", b"\xff\xff\xff"), Signal.LOGS)
    assert answer.code == sender.codes["undecodable"]
    assert answer.detail(error_details_pb2.BadRequest).field_violations
    assert running.taken() == []


@every_signal
@both_encodings
def test_07_a_warning_rejects_none(signal: Signal, encoding: Any) -> None:
    """(7) The form of a warning: rejected 0 and a message, over both transports."""
    answers: list[Any] = []
    with serving(lambda request: partial_success(request.signal, 0, "mind the gap", request.encoding)) as ports:
        answers.append(HttpSender(encoding).send(ports, REQUESTS[signal](), signal))
        answers.append(GrpcSender().send(ports, REQUESTS[signal](), signal))
    for answer in answers:
        assert answer.ok
        part = answer.response.partial_success
        assert (getattr(part, REJECTED[signal]), part.error_message) == (0, "mind the gap")


@both_encodings
def test_08_every_refusal_is_a_status_in_the_encoding_of_the_request(start: Start, encoding: str) -> None:
    """(8) 400, 404, 405, 408, 413 and 415: a google.rpc.Status with code and message, Content-Type as the request's."""
    running = start(http={"max_request_bytes": 2048})
    sender = HttpSender(encoding)
    refused = {
        400: sender.send(running, b"\xff\xfe", Signal.LOGS),
        404: sender.send(running, b"", Signal.LOGS, path="/v1/spans"),
        405: sender.send(running, b"", Signal.LOGS, method="PUT"),
        413: sender.send(running, bytes(4096), Signal.LOGS),
        415: sender.send(running, b"", Signal.LOGS, headers={"Content-Encoding": "br"}),
    }
    for code, answer in refused.items():
        assert answer.code == code
        assert answer.status.code != 0
        assert answer.status.message
        expected = "application/json" if encoding == "json" else "application/x-protobuf"
        assert answer.headers["content-type"].split(";")[0] == expected


@every_signal
@every_sender
def test_09_undecodable(running: Running, sender: Sender, signal: Signal) -> None:
    """(9) 400, INVALID_ARGUMENT, with a BadRequest that names field and byte; never to be repeated."""
    message = request_message(signal, 2, "QQQQ")
    body = sender.body(message) if isinstance(sender, HttpSender) else message.SerializeToString()
    body = body.replace(b"QQQQ", b"\xff\xff\xff\xff")
    answer = sender.send(running, body, signal)
    assert (answer.code, answer.status.code) == (sender.codes["undecodable"], 3)
    (violation,) = answer.detail(error_details_pb2.BadRequest).field_violations
    assert violation.field.lower().startswith("resource")
    assert f"byte {body.index(0xFF)}" in violation.description
    assert "retry-after" not in answer.headers
    assert running.taken() == []


@every_signal
@every_sender
def test_10_overload(start: Start, sender: Sender, signal: Signal) -> None:
    """(10) UNAVAILABLE, 503, with RetryInfo and, over HTTP, Retry-After in whole seconds, rounded up."""
    running = start(intake=MemoryIntake(1, retry_after_s=2.5))
    answer = sender.send(running, request_message(signal), signal)
    assert (answer.code, answer.status.code) == (sender.codes["overloaded"], 14)
    assert answer.retry_after_s == 2.5
    assert answer.headers.get("retry-after") == (None if isinstance(sender, GrpcSender) else "3")
    assert running.ledger.rows() == ()


@every_sender
def test_10_over_quota(sender: Sender) -> None:
    """(10) A quota that raises this refusal: RESOURCE_EXHAUSTED with RetryInfo, 429 with Retry-After."""

    def quota(_: ExportRequest) -> bytes:
        raise Refusal.throttled(DeliveryError("tenant acme is over 1000 records a second", retry_after_s=7.0))

    with serving(quota) as ports:
        answer = sender.send(ports, request_message(Signal.LOGS), Signal.LOGS)
    assert (answer.code, answer.status.code) == (sender.codes["throttled"], 8)
    assert answer.retry_after_s == 7.0
    assert answer.headers.get("retry-after") == (None if isinstance(sender, GrpcSender) else "7")


SPAN_JSON = {
    "traceId": "0AF7651916CD43DD8448EB211C80319C",
    "spanId": "b7Ad6b7169203331",
    "parentSpanId": "",
    "name": "checkout",
    "kind": 2,
    "startTimeUnixNano": "1700000000000000001",
    "endTimeUnixNano": 1700000000000000002,
    "status": {"code": 2, "nobodyKnowsThis": [1, {"deep": None}]},
    "trace_state": "ignored=1",
    "attributes": [
        {"key": "bytes", "value": {"bytesValue": base64.b64encode(b"\x00\xffdata").decode()}},
        {"key": "int", "value": {"intValue": "-9223372036854775808"}},
        {"key": "number", "value": {"intValue": 42}},
    ],
}


def span_request(**changes: Any) -> bytes:
    span = {**SPAN_JSON, **changes}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}], "unknownField": {"x": 1}}).encode()


def test_11_the_json_mapping(running: Running) -> None:
    """(11) Hex in any case, enums as integers, 64-bit numbers either way, base64, unknown fields skipped."""
    assert HttpSender("json").send(running, span_request(), Signal.TRACES).ok
    (batch,) = running.taken()
    (row,) = batch.records.to_pylist()
    assert row["trace_id"].hex() == "0af7651916cd43dd8448eb211c80319c"
    assert row["span_id"].hex() == "b7ad6b7169203331"
    assert (row["kind"], row["status_code"], row["trace_state"]) == (2, 2, "")
    assert (row["start_time_unix_nano"], row["end_time_unix_nano"]) == (1700000000000000001, 1700000000000000002)
    values = {item["key"]: item["bytes"] if item["bytes"] is not None else item["int"] for item in row["attributes"]}
    assert values == {"bytes": b"\x00\xffdata", "int": -(2**63), "number": 42}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "SPAN_KIND_SERVER"},
        {"traceId": "not hex at all"},
        {"startTimeUnixNano": "later"},
        {"startTimeUnixNano": "-1"},
        {"endTimeUnixNano": 18446744073709551616},
        {"name": 7},
        {"attributes": {"key": "not a list"}},
        {"attributes": [{"key": "b", "value": {"bytesValue": "!"}}]},
    ],
)
def test_11_what_the_json_mapping_does_not_allow(running: Running, changes: dict[str, Any]) -> None:
    """(11, 9) Enum names and values of the wrong kind are 400 with the field's place."""
    answer = HttpSender("json").send(running, span_request(**changes), Signal.TRACES)
    assert answer.code == 400
    (violation,) = answer.detail(error_details_pb2.BadRequest).field_violations
    assert violation.field.startswith("resourceSpans[0].scopeSpans[0].spans[0]")


@every_sender
def test_12_unauthenticated_and_forbidden(sender: Sender) -> None:
    """(12) UNAUTHENTICATED, 401 with a challenge; PERMISSION_DENIED, 403. For whom: test_conformance_connections."""
    refusals = {"nobody": Refusal.unauthenticated("who are you?"), "forbidden": Refusal.forbidden("not you")}
    for kind, refusal in refusals.items():

        def refuse(_: ExportRequest, refusal: Refusal = refusal) -> bytes:
            raise refusal

        with serving(refuse) as ports:
            answer = sender.send(ports, request_message(Signal.LOGS), Signal.LOGS)
        assert (answer.code, answer.status.message) == (sender.codes[kind], refusal.message)
        challenged = kind == "nobody" and isinstance(sender, HttpSender)
        assert answer.headers.get("www-authenticate") == ("Bearer" if challenged else None)


@dataclass
class Ports:
    """Both servers around a handler of the test's."""

    grpc_port: int
    http_port: int


@contextmanager
def serving(handle: Any) -> Iterator[Ports]:
    """Both servers, as the receiver has them, with another handler behind."""

    class Handler:
        def admit(self, payload_bytes: int) -> None: ...

        def handle(self, request: ExportRequest) -> bytes:
            return bytes(handle(request))

    rpc = GrpcServer(GrpcServerSettings(endpoint="127.0.0.1:0"), Handler())
    web = HttpServer(HttpServerSettings(endpoint="127.0.0.1:0"), Handler())
    try:
        yield Ports(rpc.start(), web.start())
    finally:
        rpc.stop(1)
        web.stop(1)
