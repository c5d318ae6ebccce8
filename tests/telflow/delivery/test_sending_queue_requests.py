"""A sending queue and its requests: large ones, mixed ones, refused ones, lost ones, those of lives before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger, Outcome
from telflow.codec import decode
from telflow.delivery.dead_letters import DeadLetterReader, DeadLetters
from telflow.delivery.log import Durability, Log
from telflow.delivery.queue_settings import DeliverySettings
from telflow.delivery.queue_store import QueueStore
from telflow.delivery.sending_queue import SendingQueue
from telflow.delivery.transport import Answer
from tests.delivery import ACCEPTED, BUSY, WRONG, Destination, FakeClock, dead, logs, outcomes, queue_to, wait_for


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "queues.db", durability=Durability.OS, min_free_bytes=0) as opened:
        yield opened


def test_large_batches_become_several_requests_of_which_each_is_kept(log: Log) -> None:
    """Some parts refused for good, the rest delivered after a while: each record counted once."""
    answers: dict[bytes, int] = {}

    def moody(_signal: Signal, body: bytes) -> Answer:
        answers[body] = answers.get(body, 0) + 1
        if answers[body] < 3:
            return BUSY
        return WRONG if len(body) % 2 else ACCEPTED

    ledger, destination = Ledger(), Destination(moody)
    queue = queue_to(
        destination,
        log=log,
        ledger=ledger,
        max_request_bytes=999,
        retry_on_failure={"initial_interval": "5ms", "max_interval": "10ms"},
        circuit_breaker={"enabled": False},
    )
    queue.put(logs(300, tenant="a"))
    queue.snapshot()
    wait_for(lambda: not queue.stats().parcels)
    queue.close()
    assert len(answers) > 5
    assert sum(row.count for row in ledger.rows()) == 300
    delivered = sum(row.count for row in ledger.rows() if row.outcome is Outcome.DELIVERED)
    assert delivered == destination.records
    assert log.index("export/0") == []


def test_a_batch_of_several_tenants_is_kept_by_tenant(log: Log) -> None:
    """On disk a request has one owner, so that a restart can count whose it is."""
    mixed = TelemetryBatch.concat([logs(2, tenant="a"), logs(3, tenant="b"), logs(1, tenant=None)])
    queue = queue_to(dead(), log=log, clock=FakeClock())
    queue.put(mixed)
    queue.snapshot()
    queue.close()
    assert sorted((e.tenant or "", e.records) for e in log.index("export/0")) == [("", 1), ("a", 2), ("b", 3)]


def test_another_encoding_after_a_restart(log: Log) -> None:
    """Kept as protobuf, to be sent as JSON now: written anew, the same records."""
    first = queue_to(dead(), log=log, clock=FakeClock())
    first.put(logs(4, tenant="a"))
    first.snapshot()
    first.close()
    destination, ledger = Destination(), Ledger()
    second = SendingQueue(
        destination,
        "json",
        1 << 20,
        DeliverySettings(),
        component="e",
        store=QueueStore(log, "export/0"),
        ledger=ledger,
    )
    wait_for(lambda: bool(destination.accepted))
    second.close()
    ((signal, body),) = destination.accepted
    assert decode(body, signal, "json") == logs(4, tenant=None)
    assert outcomes(ledger)[("delivered", "a", "")] == 4
    assert log.index("export/0") == []


def test_what_is_refused_for_good_is_a_dead_letter(log: Log, tmp_path: Path) -> None:
    """With origin, reason and owner; the ledger says the same. What the log has lost says so, too."""
    ledger = Ledger()
    with DeadLetters(tmp_path / "deadletter.db", min_free_bytes=0) as dead_letters:
        queue = queue_to(Destination(lambda _signal, _body: WRONG), log=log, ledger=ledger, dead_letters=dead_letters)
        queue.put(logs(6, tenant="a"))
        queue.snapshot()
        wait_for(lambda: not queue.stats().parcels)
        queue.close()
    with DeadLetterReader(tmp_path / "deadletter.db") as reader:
        ((letter, entry),) = reader.read(reader.letters())
    assert (letter.origin, letter.reason, letter.tenant, letter.records, letter.arrival_time_unix_nano) == (
        "export",
        "refused (INVALID_ARGUMENT)",
        "a",
        6,
        1_700_000_000_000_000_000,
    )
    assert decode(entry.payload, entry.signal) == logs(6, tenant=None)
    assert outcomes(ledger) == {("dropped", "a", "refused (INVALID_ARGUMENT)"): 6}


def test_a_kept_request_that_is_gone_from_the_log_is_counted(log: Log) -> None:
    """Somebody purged the log under the queue: dropped with a reason, no thread dies."""
    first = queue_to(dead(), log=log, clock=FakeClock())
    first.put(logs(2))
    first.put(logs(3))
    first.snapshot()
    first.close()
    ledger, release = Ledger(), threading.Event()

    def gated(_signal: Signal, _body: bytes) -> Answer:
        release.wait(30)
        return ACCEPTED

    second = queue_to(Destination(gated), log=log, ledger=ledger, sending_queue={"num_consumers": 1})
    wait_for(lambda: second.stats().sending == 1)
    log.remove("export/0", [2])
    release.set()
    wait_for(lambda: not second.stats().parcels)
    second.close()
    assert outcomes(ledger)[("dropped", "", "lost from the queue's log")] == 3


def test_crashes_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    """Six lives with a destination that comes and goes, each resumed from the last committed snapshot: no record lost.

    The source repeats what came after that snapshot, as an ingest log does.
    """
    destination = Destination()
    settings: dict[str, Any] = {
        "retry_on_failure": {"initial_interval": "1ms", "max_interval": "2ms"},
        "circuit_breaker": {"open_duration": "1ms"},
        "sending_queue": {"num_consumers": 3},
    }
    committed: tuple[int, int | None] = (0, None)
    total, sent_from = 60, 0
    for life in range(6):
        destination.answer = (lambda *_: BUSY) if life % 2 == 0 else (lambda *_: ACCEPTED)
        log = Log(tmp_path / "queues.db", durability=Durability.OS, min_free_bytes=0)
        dying = Destination(destination.answer)
        queue = queue_to(dying, log=log, resume=committed[1], **settings)
        sent_from = committed[0]
        for number in range(sent_from, min(sent_from + 15, total)):
            queue.put(logs(10, first=number * 10))
            position = queue.snapshot()
            if number % 5 != 4:
                committed = (number + 1, position)
        destination.accepted += dying.accepted
        # The process ends here: what its threads do afterwards does not count.
        dying.answer = lambda *_: BUSY
        log.close()
        queue._senders._ended = True
    destination.answer = lambda *_: ACCEPTED
    with Log(tmp_path / "queues.db", durability=Durability.OS, min_free_bytes=0) as log:
        queue = queue_to(destination, log=log, resume=committed[1], **settings)
        for number in range(committed[0], total):
            queue.put(logs(10, first=number * 10))
        queue.snapshot()
        wait_for(lambda: not queue.stats().parcels)
        queue.close()
    arrived = [decode(body, signal).column("time_unix_nano") for signal, body in destination.accepted]
    assert set().union(*(column.to_pylist() for column in arrived)) == set(range(1, total * 10 + 1))
