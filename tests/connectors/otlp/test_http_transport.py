"""The HTTP transport at servers that behave badly; what it does with good ones is in test_exporter.py."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from connectors.otlp.http_transport import HttpTransport
from connectors.otlp.settings import OtlpExporterSettings
from telflow import Signal
from telflow.delivery.transport import Verdict

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def raw_server(*answers: bytes) -> Iterator[tuple[HttpTransport, list[bytes]]]:
    """A server that reads a request on each connection, answers with these bytes and hangs up."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(30)
                    received.append(_read_request(connection))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}/otlp"
        client = HttpTransport(OtlpExporterSettings(endpoint=endpoint, protocol="http/protobuf"))
        try:
            yield client, received
        finally:
            client.close()
            thread.join(30)


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(4096)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(4096)
    return head + b"\r\n\r\n" + body


def test_a_request_is_what_the_specification_asks_for() -> None:
    """POST to the signal's path under the endpoint's own, protobuf content type, the body as it is."""
    with raw_server(OK) as (client, received):
        assert client.send(Signal.TRACES, b"payload").verdict is Verdict.ACCEPTED
    head, _, body = received[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /otlp/v1/traces HTTP/1.1\r\n")
    assert b"\r\ncontent-type: application/x-protobuf\r\n" in head.lower() + b"\r\n"
    assert body == b"payload"


def test_16_a_connection_that_ends_without_an_answer_is_to_be_repeated() -> None:
    """(16) Nobody knows whether the request was taken."""
    with raw_server(b"") as (client, _):
        answer = client.send(Signal.LOGS, b"x")
    assert (answer.verdict, answer.status) == (Verdict.RETRYABLE, "no answer")


def test_16_an_answer_that_is_not_http_is_none() -> None:
    """(16) Garbage counts as no answer."""
    with raw_server(b"\x00\x01 garbage\r\n\r\n") as (client, _):
        assert client.send(Signal.LOGS, b"x").verdict is Verdict.RETRYABLE


def test_redirects_are_not_followed() -> None:
    """Data goes where it was told to go, nowhere else."""
    with raw_server(b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n") as (client, got):
        answer = client.send(Signal.LOGS, b"x")
    assert (answer.verdict, answer.status) == (Verdict.REFUSED, "HTTP 307")
    assert len(got) == 1


def test_an_answer_without_end_is_cut_off() -> None:
    """A body of 3 MiB is not an OTLP answer: it is not read to its end, and the status counts."""
    endless = b"HTTP/1.1 400 x\r\nContent-Length: 3145728\r\n\r\n" + bytes(3 << 20)
    with raw_server(endless) as (client, _):
        answer = client.send(Signal.LOGS, b"x")
    assert (answer.verdict, answer.status) == (Verdict.REFUSED, "HTTP 400")
