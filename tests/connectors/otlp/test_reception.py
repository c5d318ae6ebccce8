"""What a receiver does with a request besides decoding it: the tenant, the account, the words of a refusal."""

from __future__ import annotations

import grpc
import pytest

from connectors.otlp.protocol import ExportRequest, Refusal
from connectors.otlp.reception import Reception
from telflow import Signal
from telflow.accounting import Ledger
from telflow.codec import Encoding
from telflow.delivery.intake import MemoryIntake, RequestMeta
from tests.connectors.otlp.conftest import request_message


class Listening(MemoryIntake):
    """An intake that remembers what it was told of requests."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        super().__init__(max_bytes)
        self.heard: list[RequestMeta] = []

    def accept(self, request: RequestMeta) -> int:
        self.heard.append(request)
        return super().accept(request)


def request(
    text: str = "", tenant: str | None = None, encoding: Encoding = "protobuf", body: bytes | None = None
) -> ExportRequest:
    payload = request_message(Signal.LOGS, 2, text).SerializeToString() if body is None else body
    return ExportRequest(Signal.LOGS, encoding, payload, tenant, "peer")


def test_an_accepted_request_is_handed_over_and_counted_under_its_tenant() -> None:
    """What the request says of its tenant goes before the receiver's default; all that is known of it is passed on."""
    intake, ledger = Listening(), Ledger()
    reception = Reception(intake, tenant="acme", ledger=ledger, now_unix_nano=lambda: 42)
    assert reception.handle(request("a")) == b""
    assert reception.handle(request("b", "beta")) == b""
    assert [(r.tenant, r.arrival_time_unix_nano, r.peer, r.encoding) for r in intake.heard] == [
        ("acme", 42, "peer", "protobuf"),
        ("beta", 42, "peer", "protobuf"),
    ]
    assert {row.tenant: row.count for row in ledger.rows()} == {"acme": 2, "beta": 2}
    (batch,) = intake.take(timeout_s=0, max_bytes=1 << 30)
    assert batch.tenants().to_pylist() == ["acme", "acme", "beta", "beta"]


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_a_bad_payload_is_refused_for_good_and_not_counted(encoding: Encoding) -> None:
    """It says where the payload is wrong; repeating it would be of no use."""
    intake, ledger = Listening(), Ledger()
    with pytest.raises(Refusal) as refused:
        Reception(intake, ledger=ledger).handle(request(encoding=encoding, body=b"\xff"))
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "byte 0" in refused.value.message
    assert ledger.rows() == ()


def test_without_room_a_request_is_to_come_again() -> None:
    """Nothing is acknowledged or counted that was not taken."""
    ledger = Ledger()
    with pytest.raises(Refusal) as refused:
        Reception(Listening(max_bytes=10), ledger=ledger).handle(request("a"))
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    assert ledger.rows() == ()


def test_requests_without_records_are_acknowledged() -> None:
    """An empty request is a success and nothing more."""
    intake, ledger = Listening(), Ledger()
    assert Reception(intake, ledger=ledger).handle(request(body=b"")) == b""
    assert intake.take(timeout_s=0, max_bytes=1) == []
    assert ledger.rows() == ()
