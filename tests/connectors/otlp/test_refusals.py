"""Whatever a receiver refuses is counted, over both transports, by reason, with the records where they can be known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from connectors.otlp import OtlpReceiver
from connectors.otlp.protocol import Refusal
from connectors.otlp.settings import GrpcServerSettings, HttpServerSettings, OtlpReceiverSettings
from telflow import Signal
from telflow.accounting import Ledger
from telflow.delivery.intake import MemoryIntake
from telflow.errors import DecodeError, DeliveryError
from telflow.telemetry import Refusals
from tests.connectors.otlp.conftest import Running, request_message
from tests.connectors.otlp.senders import GrpcSender, HttpSender, Sender

SENDERS = pytest.mark.parametrize("sender", [GrpcSender(), HttpSender()], ids=lambda sender: sender.name)


@pytest.fixture
def refusals() -> Refusals:
    return Refusals()


@pytest.fixture
def running(refusals: Refusals) -> Iterator[Running]:
    """A receiver with a tenant header and little room for a request."""
    intake, ledger = MemoryIntake(), Ledger()
    settings = OtlpReceiverSettings(
        grpc=GrpcServerSettings(endpoint="127.0.0.1:0"),
        http=HttpServerSettings(endpoint="127.0.0.1:0", max_request_bytes=4096),
        tenant_header="tenant",
    )
    receiver = OtlpReceiver(settings, intake, ledger=ledger, refusals=refusals)
    ports = receiver.start()
    assert ports.grpc is not None
    assert ports.http is not None
    yield Running(ports.grpc, ports.http, intake, ledger, lambda: receiver.stop(0))
    receiver.stop(0)


def counted(refusals: Refusals) -> list[tuple[str, str, str, int, int]]:
    return [(row.transport, row.signal, row.reason, row.requests, row.records) for row in refusals.rows()]


@SENDERS
def test_no_room_counts_the_records_as_often_as_they_are_tried(
    running: Running, refusals: Refusals, sender: Sender
) -> None:
    """A closed intake refuses all; over HTTP before the body was read, so nobody knows how many were in it."""
    running.intake.close()
    for _ in range(2):
        assert not sender.send(running, request_message(Signal.TRACES, 7), Signal.TRACES).ok
    transport = sender.name.partition("/")[0]
    assert counted(refusals) == [(transport, "traces", "overloaded", 2, 14 if transport == "grpc" else 0)]
    assert running.ledger.rows() == ()


@SENDERS
def test_a_tenant_that_cannot_be_one(running: Running, refusals: Refusals, sender: Sender) -> None:
    """The payload was there, so its records are counted; nothing of them is in the ledger."""
    message = request_message(Signal.METRICS, 3).SerializeToString()
    if isinstance(sender, GrpcSender):
        assert not sender.send(running, message, Signal.METRICS, metadata=(("tenant", "x" * 257),)).ok
    else:
        assert running.post(message, Signal.METRICS, headers={"tenant": "x" * 257}).status == 400
    [(transport, signal, reason, requests, records)] = counted(refusals)
    assert (transport, signal, reason, requests) == (sender.name.partition("/")[0], "metrics", "malformed", 1)
    assert records >= 3
    assert running.ledger.rows() == ()


def test_every_way_to_be_refused_over_http(running: Running, refusals: Refusals) -> None:
    """Each with a reason of its own; what was accepted is not among them."""
    running.post(b"\xff")
    running.post(b"", path="/v2/logs")
    running.post(b"", method="PUT")
    running.post(b"", content_type="text/plain")
    running.post(b"x" * 5000)
    assert running.post(request_message(Signal.LOGS).SerializeToString()).status == 200
    assert counted(refusals) == [
        ("http", "", "unknown path", 1, 0),
        ("http", "logs", "malformed", 1, 0),
        ("http", "logs", "too large", 1, 0),
        ("http", "logs", "unknown content", 1, 0),
        ("http", "logs", "wrong method", 1, 0),
    ]


def test_every_refusal_has_a_reason() -> None:
    """None is left to `other`."""
    overloaded = DeliveryError("full", retryable=True)
    for refusal in (
        Refusal.undecodable(DecodeError("it", path="logs")),
        Refusal.overloaded(overloaded),
        Refusal.throttled(overloaded),
        Refusal.unauthenticated("who"),
        Refusal.forbidden("no"),
        Refusal.internal(),
    ):
        assert refusal.reason != "other"
