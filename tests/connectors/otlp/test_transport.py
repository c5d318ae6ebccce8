"""Transports that were closed: what is sent through them then has no answer, and nothing raises."""

from __future__ import annotations

import asyncio

import pytest

from connectors.otlp.settings import OtlpConnectionSettings
from connectors.otlp.transport import connect, connect_async
from telflow import Signal
from telflow.delivery.transport import Answer, Verdict


def settings(protocol: str) -> OtlpConnectionSettings:
    return OtlpConnectionSettings.model_validate({"endpoint": "http://127.0.0.1:1", "protocol": protocol})


def check(answer: Answer) -> None:
    assert (answer.verdict, answer.status) == (Verdict.RETRYABLE, "no answer")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_closed_transport_has_no_answer(protocol: str) -> None:
    """A request that comes too late may be sent again, elsewhere or after a restart."""
    transport = connect(settings(protocol))
    transport.close()
    check(transport.send(Signal.LOGS, b""))


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_closed_asynchronous_transport_has_no_answer(protocol: str) -> None:
    """The same on an event loop."""

    async def late() -> Answer:
        transport = connect_async(settings(protocol))
        await transport.close()
        return await transport.send(Signal.LOGS, b"")

    check(asyncio.run(late()))
