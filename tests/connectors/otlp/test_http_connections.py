"""Connections that cost a receiver more than they bring, over raw sockets: slow, silent, or too many."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest

from connectors.otlp import OtlpReceiver
from connectors.otlp.http_connections import most_connections
from connectors.otlp.settings import HttpServerSettings, OtlpReceiverSettings
from telflow.accounting import Ledger
from telflow.delivery.intake import MemoryIntake
from telflow.telemetry import Refusals

_REQUEST = b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
_SHORT = timedelta(milliseconds=300)


@contextmanager
def receiving(**http: object) -> Iterator[tuple[int, Refusals]]:
    """A receiver over HTTP; its port and what it refuses."""
    refusals = Refusals()
    settings = OtlpReceiverSettings(
        grpc=None, http=HttpServerSettings.model_validate({"endpoint": "127.0.0.1:0"} | http)
    )
    receiver = OtlpReceiver(settings, MemoryIntake(), ledger=Ledger(), refusals=refusals)
    port = receiver.start().http
    assert port is not None
    try:
        yield port, refusals
    finally:
        receiver.stop(0)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    said = b""
    try:
        while part := connection.recv(4096):
            said += part
    except ConnectionResetError:
        pass
    return said


def asked(connection: socket.socket) -> bytes:
    """The status line of an answer to a request."""
    connection.sendall(_REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = connection.recv(4096)
        assert part, "closed without an answer"
        answer += part
    return answer.partition(b"\r\n")[0]


def test_a_connection_that_says_nothing_is_closed() -> None:
    """It gets 408 when its time is over, and the refusal is counted."""
    with receiving(read_header_timeout=_SHORT) as (port, refusals), closing(connect(port)) as silent:
        said = until_closed(silent)
        assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"no complete request headers within 0.3 s" in said
        assert [(row.reason, row.signal, row.requests) for row in refusals.rows()] == [("too slow", "", 1)]


def test_headers_that_trickle_do_not_gain_time() -> None:
    """Slowloris: a byte now and then keeps nothing open; others are served all the while."""
    with receiving(read_header_timeout=_SHORT) as (port, _), closing(connect(port)) as slow:
        began_s = time.monotonic()
        slow.settimeout(0.02)
        said = b""
        for at in range(len(_REQUEST) - 1):
            try:
                slow.sendall(_REQUEST[at : at + 1])
                part = slow.recv(4096)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            said += part
            if not part:
                break
        else:
            pytest.fail(f"not closed within {time.monotonic() - began_s:.1f} s")
        assert said.startswith(b"HTTP/1.1 408")
        with closing(connect(port)) as other:
            assert asked(other) == b"HTTP/1.1 200 OK"


def test_a_connection_that_has_asked_once_may_rest() -> None:
    """The limit is for the first request's headers; after that `idle_timeout` holds, for half a request too."""
    limits = {"read_header_timeout": _SHORT, "idle_timeout": timedelta(seconds=2)}
    with receiving(**limits) as (port, refusals), closing(connect(port)) as connection:
        assert asked(connection) == b"HTTP/1.1 200 OK"
        time.sleep(0.6)  # twice the limit
        assert asked(connection) == b"HTTP/1.1 200 OK"
        connection.sendall(_REQUEST[:20])
        assert until_closed(connection) == b""
        assert refusals.rows() == ()


def test_a_body_that_trickles_is_refused() -> None:
    """`read_timeout` is for the whole body, however often something comes."""
    head = _REQUEST.replace(b"Length: 0", b"Length: 1000")
    with receiving(read_timeout=_SHORT) as (port, refusals), closing(connect(port)) as slow:
        slow.sendall(head)
        slow.settimeout(0.02)
        said = b""
        for _ in range(1000):
            try:
                slow.sendall(b"x")
                said = slow.recv(4096)
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            break
        assert said.startswith(b"HTTP/1.1 408")
        assert [(row.reason, row.signal) for row in refusals.rows()] == [("too slow", "logs")]


def test_more_connections_than_allowed_are_told_to_come_back() -> None:
    """Those that are open are served on; when one goes, the next one is let in."""
    with receiving(max_connections=2) as (port, refusals):
        with closing(connect(port)) as first:
            assert asked(first) == b"HTTP/1.1 200 OK"
            with closing(connect(port)) as second:
                assert asked(second) == b"HTTP/1.1 200 OK"
                for _ in range(3):
                    with closing(connect(port)) as third:
                        said = until_closed(third)
                        assert said.startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
                assert asked(first) == b"HTTP/1.1 200 OK"
            deadline_s = time.monotonic() + 60
            while True:  # until the server has noticed that the second is gone
                with closing(connect(port)) as third:
                    third.sendall(_REQUEST)
                    if third.recv(12) == b"HTTP/1.1 200":
                        break
                assert time.monotonic() < deadline_s
        reasons = {row.reason: row.requests for row in refusals.rows()}
        assert reasons["overloaded"] >= 3


def test_by_default_as_many_as_there_are_files_for() -> None:
    """A part of them is left for everything else; without a limit of files there is hardly one."""
    assert most_connections(None, files=1024) == 768
    assert most_connections(None, files=1) == 1
    assert most_connections(7, files=1024) == 7
    assert most_connections(None, files=-1) > 100_000
    assert most_connections(None) > 0
