"""OTLP/HTTP over real sockets: every status and body the specification names (numbers: OTLP conformance points)."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from google.protobuf import json_format
from google.rpc import error_details_pb2

from telflow import Signal
from telflow.accounting import LedgerRow, Outcome
from telflow.delivery.intake import MemoryIntake, RequestMeta
from tests.connectors.otlp.conftest import JSON, MIB, PROTOBUF, Running, Start, request_message
from tests.oracle import batch_from_message

CANARY = "canary@example.com"


def _raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", _raw_deflate),
        ("zstd", zstandard.compress),
    ],
)
@pytest.mark.parametrize("signal", list(Signal))
def test_01_every_compression_of_every_signal_arrives(
    running: Running, signal: Signal, encoding: str, compressed: object
) -> None:
    """(1, 2, 6) The three paths take uncompressed, gzip, deflate and zstd bodies and lose nothing."""
    message = request_message(signal)
    assert callable(compressed)
    answer = running.post(compressed(message.SerializeToString()), signal, headers={"Content-Encoding": encoding})
    assert (answer.status, answer.body) == (200, b"")
    (batch,) = running.taken()
    assert batch.records.equals(batch_from_message(message, signal).records)


@pytest.mark.parametrize("body_bytes", [2048, 100 * MIB])
def test_03_a_large_body_is_refused_before_it_is_read(start: Start, body_bytes: int) -> None:
    """(3) Over the limit by its Content-Length: 413, the Status says the limit, and the server goes on."""
    running = start(http={"max_request_bytes": 1024})
    answer = running.post(bytes(body_bytes))
    assert answer.status == 413
    assert "1024 bytes" in answer.rpc_status().message
    assert running.post(b"").status == 200


def test_03_a_large_body_of_unknown_length_is_refused(start: Start) -> None:
    """(3) The limit holds for a chunked body, which announces no length."""
    running = start(http={"max_request_bytes": 1024})

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(100)

    assert running.post(chunks()).status == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_03_a_bomb_is_refused_without_being_unpacked(running: Running, encoding: str) -> None:
    """(3) A small body that would become 40 MiB: 413, and hardly more than the limit was ever unpacked."""
    bomb = {"gzip": _gzip_bomb, "deflate": _zlib_bomb, "zstd": _zstd_bomb}[encoding](40)
    assert len(bomb) < MIB
    answer = running.post(bomb, headers={"Content-Encoding": encoding})
    assert answer.status == 413
    assert answer.rpc_status().code == 8


def _gzip_bomb(mebibytes: int) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6) as stream:
        for _ in range(mebibytes):
            stream.write(bytes(MIB))
    return out.getvalue()


def _zlib_bomb(mebibytes: int) -> bytes:
    stream = zlib.compressobj()
    return b"".join(stream.compress(bytes(MIB)) for _ in range(mebibytes)) + stream.flush()


def _zstd_bomb(mebibytes: int) -> bytes:
    stream = zstandard.ZstdCompressor().compressobj()  # does not announce the size
    return b"".join(stream.compress(bytes(MIB)) for _ in range(mebibytes)) + stream.flush()


@pytest.mark.parametrize("signal", list(Signal))
def test_04_json_is_served_on_the_same_port(running: Running, signal: Signal) -> None:
    """(4, 11) JSON in, the answer's Content-Type is JSON; the batch equals that of the protobuf request."""
    message = request_message(signal)
    document = json_format.MessageToDict(message, use_integers_for_enums=True)
    for spans in document.get("resourceSpans", []):
        for span in spans["scopeSpans"][0]["spans"]:
            span["traceId"], span["spanId"] = (b"t" * 16).hex(), int(span["name"][1:]).to_bytes(8, "big").hex()
    answer = running.post(json.dumps(document).encode(), signal, f"{JSON}; charset=utf-8")
    assert (answer.status, answer.content_type, answer.body) == (200, JSON, b"{}")
    (batch,) = running.taken()
    assert batch.records.equals(batch_from_message(message, signal).records)


@pytest.mark.parametrize("content_type", ["text/plain", "application/grpc", "application/x-protobuf-nonsense", ""])
def test_04_other_content_types_get_415(running: Running, content_type: str) -> None:
    """(4, 8) The Status names both that are served."""
    answer = running.post(b"", content_type=content_type)
    assert answer.status == 415
    assert PROTOBUF in answer.rpc_status().message


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_04_other_methods_get_405(running: Running, method: str) -> None:
    """(4) Only POST; the answer says so."""
    answer = running.post(b"", method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/", "/v1/spans", "/v1/traces/", "/v1/traces/../logs", "/v1/" + "x" * 4000])
def test_02_unknown_paths_get_404(running: Running, path: str) -> None:
    """(2, 8) The Status lists the paths there are."""
    answer = running.post(b"", path=path)
    assert answer.status == 404
    assert "/v1/traces, /v1/metrics, /v1/logs" in answer.rpc_status().message


@pytest.mark.parametrize(("content_type", "body", "reply"), [(PROTOBUF, b"", b""), (JSON, b"{}", b"{}")])
def test_05_an_empty_request_succeeds(running: Running, content_type: str, body: bytes, reply: bytes) -> None:
    """(5, 6) Success, no partial success, and nothing enters the flow."""
    answer = running.post(body, content_type=content_type)
    assert (answer.status, answer.content_type, answer.body) == (200, content_type, reply)
    assert running.taken() == []


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
def test_08_a_refusal_is_a_status_in_the_encoding_of_the_request(running: Running, content_type: str) -> None:
    """(8, 9) Garbage: 400 with a google.rpc.Status whose BadRequest says where and what."""
    answer = running.post(b"\xff\xfe garbage", content_type=content_type)
    assert (answer.status, answer.content_type) == (400, content_type)
    status = answer.rpc_status()
    assert status.code == 3
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert "byte" in bad.field_violations[0].description


def test_09_the_bad_request_names_the_field(running: Running) -> None:
    """(9) Invalid UTF-8 in the second record: its path stands in the field violation."""
    body = request_message(Signal.LOGS, text="QQQQ").SerializeToString().replace(b"QQQQ1", b"\xff\xff\xff\xff1")
    answer = running.post(body)
    bad = error_details_pb2.BadRequest()
    assert answer.rpc_status().details[0].Unpack(bad)
    assert bad.field_violations[0].field.startswith("resource_logs[0].scope_logs[0].log_records[1].body")


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
def test_09_deep_nesting_is_refused(running: Running, content_type: str) -> None:
    """(9) An attribute nested deeper than the official library reads is a 400, not a crash."""
    if content_type == JSON:
        value = '{"arrayValue":{"values":[' * 5000 + '{"intValue":"1"}' + "]}}" * 5000
        body = f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{value}}}]}}]}}]}}'.encode()
    else:
        body = b""
        for _ in range(5000):
            inner = b"\x0a" + _varint(len(body)) + body
            body = b"\x2a" + _varint(len(inner)) + inner
        for tag in (b"\x2a", b"\x12", b"\x12", b"\x0a"):
            body = tag + _varint(len(body)) + body
    answer = running.post(body, content_type=content_type)
    assert answer.status == 400
    assert running.post(b"").status == 200


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(bytes(10_000), mtime=0)[:-9]),
        ("gzip", b"not gzip at all"),
        ("gzip", b""),
        ("deflate", zlib.compress(b"x" * 100)[:-2]),
        ("zstd", zstandard.compress(b"x" * 100)[:-1]),
        ("zstd", b"nonsense"),
    ],
)
def test_09_damaged_compression_gets_400(running: Running, encoding: str, body: bytes) -> None:
    """(9) Truncated or wrong compressed data is the sender's mistake, named by its encoding."""
    answer = running.post(body, headers={"Content-Encoding": encoding})
    assert answer.status == 400
    assert f"Content-Encoding {encoding}" in answer.rpc_status().message


def test_01_unknown_content_encodings_get_415(running: Running) -> None:
    """(1) The answer lists what is understood, also in Accept-Encoding (RFC 9110, 15.5.16)."""
    answer = running.post(b"", headers={"Content-Encoding": "br"})
    assert (answer.status, answer.headers["Accept-Encoding"]) == (415, "gzip, deflate, zstd")


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
def test_10_a_full_intake_means_503_with_retry_after(start: Start, content_type: str) -> None:
    """(10) Overload: 503, Retry-After in whole seconds, RetryInfo exactly; nothing is counted as received."""
    running = start(intake=MemoryIntake(1, retry_after_s=2.5))
    body = request_message(Signal.LOGS).SerializeToString() if content_type == PROTOBUF else b'{"resourceLogs": []}'
    answer = running.post(body, content_type=content_type)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
    retry = error_details_pb2.RetryInfo()
    assert answer.rpc_status().details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500
    assert running.ledger.rows() == ()


def test_10_an_intake_that_fills_while_decoding_refuses_too(start: Start) -> None:
    """(10) Admitted by its payload, refused by its decoded size: 503, not a loss."""
    body = request_message(Signal.LOGS).SerializeToString()
    running = start(intake=MemoryIntake(len(body) + 1))
    assert running.post(body).status == 503
    assert running.taken() == []


def test_a_body_that_does_not_come_gets_408(start: Start) -> None:
    """A sender that stalls in the middle of its body is told so and does not hold the connection for ever."""
    running = start(http={"read_timeout": "50ms"})
    with socket.create_connection(("127.0.0.1", running.http_port), timeout=30) as connection:
        head = f"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 10\r\n\r\n"
        connection.sendall(head.encode() + b"123")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01 this is not HTTP\r\n\r\n",
        b"POST /v1/logs HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n",
    ],
)
def test_malformed_http_is_a_400_and_the_server_goes_on(running: Running, request_bytes: bytes) -> None:
    """Bytes that are not HTTP get 400 and harm no other sender."""
    with socket.create_connection(("127.0.0.1", running.http_port), timeout=30) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(100).split()[1] == b"400"
    assert running.post(b"").status == 200


def test_a_sender_that_hangs_up_harms_nobody(running: Running) -> None:
    """A connection closed in the middle of a body leaves nothing behind."""
    with socket.create_connection(("127.0.0.1", running.http_port), timeout=30) as connection:
        head = f"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode() + b"123")
    assert running.post(request_message(Signal.LOGS).SerializeToString()).status == 200
    assert len(running.taken()) == 1


def test_tenants_come_from_the_header_or_the_setting(start: Start) -> None:
    """The header names the tenant; without it the setting does; both reach the resources and the ledger."""
    running = start(tenant="house", tenant_header="X-Scope-OrgID")
    body = request_message(Signal.LOGS).SerializeToString()
    assert running.post(body, headers={"x-scope-orgid": "acme"}).status == 200
    assert running.post(body).status == 200
    assert [batch.resources["tenant"].to_pylist() for batch in running.taken()] == [["acme", "house"]]
    assert running.ledger.rows() == (
        LedgerRow(Outcome.RECEIVED, Signal.LOGS, "acme", "otlp", "", 3),
        LedgerRow(Outcome.RECEIVED, Signal.LOGS, "house", "otlp", "", 3),
    )


@pytest.mark.parametrize("name", ["", "x" * 257, "a\tb"])
def test_an_impossible_tenant_name_is_refused(start: Start, name: str) -> None:
    """A header that cannot be a name is a 400, never the default tenant."""
    running = start(tenant="house", tenant_header="x-scope-orgid")
    body = request_message(Signal.LOGS).SerializeToString()
    assert running.post(body, headers={"x-scope-orgid": name}).status == 400
    assert running.taken() == []


def test_many_senders_at_once_lose_nothing(running: Running) -> None:
    """Eight senders with ten requests of three spans each: all are there."""
    body = request_message(Signal.TRACES).SerializeToString()
    statuses: list[int] = []

    def send() -> None:
        statuses.extend(running.post(body, Signal.TRACES).status for _ in range(10))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 80
    assert sum(batch.num_rows for batch in running.taken()) == 80 * 3


def test_a_fault_of_ours_is_a_500_and_the_log_quotes_no_payload(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception becomes a Status and a log line without data; the next request is served."""

    class Broken(MemoryIntake):
        def accept(self, request: RequestMeta) -> int:
            if super().accept(request):
                raise RuntimeError(CANARY)
            return 0

    running = start(intake=Broken())
    with caplog.at_level(logging.DEBUG):
        answer = running.post(request_message(Signal.LOGS, text=CANARY).SerializeToString())
        refused = running.post(request_message(Signal.LOGS, text=CANARY).SerializeToString()[:-1])
    assert (answer.status, answer.rpc_status().code) == (500, 13)
    assert refused.status == 400
    assert "RuntimeError" in caplog.text
    assert CANARY not in caplog.text
    assert CANARY not in answer.rpc_status().message
    assert running.post(b"").status == 200


def test_a_stopping_receiver_lets_requests_under_way_finish(start: Start) -> None:
    """Stopped in the middle of handling a request, the server still answers it with success."""
    entered = threading.Event()

    class Slow(MemoryIntake):
        def accept(self, request: RequestMeta) -> int:
            entered.set()
            time.sleep(0.1)
            return super().accept(request)

    running = start(intake=Slow())
    statuses: list[int] = []
    body = request_message(Signal.LOGS).SerializeToString()
    thread = threading.Thread(target=lambda: statuses.append(running.post(body).status))
    thread.start()
    assert entered.wait(30)
    running.stop()
    thread.join()
    assert statuses == [200]
    assert len(running.taken()) == 1


def test_the_bombs_are_bombs() -> None:
    """The tests above mean what they say: a bomb is a valid body of 3 MiB."""
    assert gzip.decompress(_gzip_bomb(3)) == zlib.decompress(_zlib_bomb(3)) == bytes(3 * MIB)
    assert re.fullmatch(rb"\0*", zstandard.ZstdDecompressor().decompressobj().decompress(_zstd_bomb(3)))
