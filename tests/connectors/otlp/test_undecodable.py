"""Requests that cannot be decoded are dead letters where that is wanted; senders are told the same either way."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from connectors.otlp import OtlpReceiver, OtlpReceiverSettings
from telflow.accounting import Ledger
from telflow.delivery.dead_letters import DeadLetterReader, DeadLetters
from telflow.delivery.intake import MemoryIntake


@pytest.mark.parametrize("limit", [None, 1024])
def test_what_cannot_be_decoded_is_kept_with_its_owner(tmp_path: Path, limit: int | None) -> None:
    """Protobuf and JSON; a request that is fine, and one that is refused for another reason, are not kept."""
    settings = OtlpReceiverSettings.model_validate(
        {
            "grpc": False,
            "http": {"endpoint": "127.0.0.1:0"},
            "tenant": "acme",
            "tenant_header": "x-tenant",
            "max_record_bytes": limit,
        }
    )
    path = tmp_path / "deadletter.db"
    with DeadLetters(path, min_free_bytes=0) as dead_letters:
        receiver = OtlpReceiver(
            settings, MemoryIntake(), ledger=Ledger(), dead_letters=dead_letters, now_unix_nano=lambda: 7
        )
        port = receiver.start().http
        answers = [
            post(port, b"\xff\xff"),
            post(port, b"{nonsense", "application/json", "globex"),
            post(port, b""),
            post(port, b"", tenant="x" * 300),
        ]
        receiver.stop(0)
    assert answers == [400, 400, 200, 400]
    with DeadLetterReader(path) as reader:
        found = [(letter, entry.payload) for letter, entry in reader.read(reader.letters())]
    assert [(letter.origin, letter.reason, letter.tenant, letter.encoding, payload) for letter, payload in found] == [
        ("otlp", "undecodable", "acme", "protobuf", b"\xff\xff"),
        ("otlp", "undecodable", "globex", "json", b"{nonsense"),
    ]
    assert {letter.arrival_time_unix_nano for letter, _ in found} == {7}


def post(port: int | None, body: bytes, kind: str = "application/x-protobuf", tenant: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/v1/logs", body, {"Content-Type": kind, **({"X-Tenant": tenant} if tenant else {})})
    status = connection.getresponse().status
    connection.close()
    return status
