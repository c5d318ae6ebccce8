"""A gateway between two Kafka topics: governed on the way, counted, its offsets committed when it has stopped."""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from control.gateway_run import Gateway
from flows.gateway import GatewaySettings
from telflow.accounting import Ledger, Outcome
from telflow.codec import decode, encode
from telflow.schema import Signal
from tests.connectors.otlp.conftest import request_message
from tests.kafka_broker import Broker
from tests.oracle import batch_from_message

_NUMBERS = itertools.count()


def gateway(broker: Broker, folder: Path, reads: str, writes: str, ledger: Ledger) -> Gateway:
    settings: dict[str, Any] = {
        "receivers": {
            "otlp": {"grpc": False, "http": {"endpoint": "127.0.0.1:0"}},
            "kafka": {
                "brokers": [broker.address],
                "group_id": reads,
                "initial_offset": "earliest",
                "traces": False,
                "metrics": False,
                "logs": {"topics": [reads]},
                "tenant_header": "tenant",
            },
        },
        "kafka": {"bus": {"brokers": [broker.address], "logs": {"topic": writes}, "tenant_header": "tenant"}},
        "quarantine": {"path": str(folder / "quarantine")},
        "storage": {"dir": str(folder / "storage")},
        "coalesce": False,
    }
    return Gateway(GatewaySettings.model_validate_json(json.dumps(settings)), ledger=ledger)


def stop_when_written(broker: Broker, topic: str, wanted: int, running: Gateway) -> None:
    deadline = time.monotonic() + 60
    while sum(broker.end(topic)) < wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    running.drain.request()


def test_kafka_to_kafka(broker: Broker, tmp_path: Path) -> None:
    """What comes in under a tenant goes out redacted under it; a stop commits its offsets, a second run reads on."""
    reads = broker.create(f"in-{next(_NUMBERS)}")
    writes = broker.create(f"out-{next(_NUMBERS)}")
    ledger = Ledger()
    for run in range(2):
        text = f"write to ada{run}@example.com "
        value = encode(batch_from_message(request_message(Signal.LOGS, 3, text), Signal.LOGS, None))
        broker.send(reads, value, headers=[("tenant", b"acme")])
        running = gateway(broker, tmp_path, reads, writes, ledger)
        running.start()
        stopper = threading.Thread(target=stop_when_written, args=(broker, writes, run + 1, running))
        stopper.start()
        running.run()
        stopper.join()
        assert broker.lag(reads, reads) == 0
    messages = broker.messages(writes)
    assert [message.headers() for message in messages] == [[("tenant", b"acme")]] * 2
    bodies = [decode(message.value() or b"", Signal.LOGS).records["body"].to_pylist() for message in messages]
    assert "write to" in str(bodies)
    assert "example.com" not in str(bodies)
    counts = {(row.outcome, row.tenant): row.count for row in ledger.rows()}
    assert counts == {(Outcome.RECEIVED, "acme"): 6, (Outcome.DELIVERED, "acme"): 6}


def test_kafka_switched_off_and_on_again(broker: Broker, tmp_path: Path) -> None:
    """A run without the receiver starts in the same folder, keeps its place in the topic, and the next one reads on."""
    reads, writes = broker.create(f"in-{next(_NUMBERS)}"), broker.create(f"out-{next(_NUMBERS)}")
    value = encode(batch_from_message(request_message(Signal.LOGS, 3), Signal.LOGS, None))
    for written, on in ((1, True), (1, False), (2, True)):
        ledger = Ledger()
        running = gateway(broker, tmp_path, reads, writes, ledger)
        if not on:
            receivers = running.settings.receivers.model_copy(update={"kafka": None})
            running = Gateway(running.settings.model_copy(update={"receivers": receivers}), ledger=ledger)
        if written == 1:
            broker.send(reads, value)
        running.start()
        stopper = threading.Thread(target=stop_when_written, args=(broker, writes, written, running))
        stopper.start()
        running.run()
        stopper.join()
        assert sum(broker.end(writes)) == written
        received = sum(row.count for row in ledger.rows() if row.outcome is Outcome.RECEIVED)
        assert received == (3 if on else 0)


def test_reading_from_kafka_needs_a_place_for_offsets() -> None:
    """Without saved state the brokers could never be told what has left the flow."""
    with pytest.raises(ValidationError, match=r"expected storage\.dir too"):
        GatewaySettings.model_validate({"receivers": {"kafka": {}}, "storage": {"durability": "memory"}})
