"""The sending queue: nothing waits that need not, nothing is lost, everything is counted once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger
from telflow.codec import decode
from telflow.delivery.circuit_breaker import CircuitState
from telflow.delivery.log import Durability, Log, LogError, LogFull
from telflow.delivery.queue_settings import DeliverySettings
from telflow.delivery.queue_store import QueueStore
from telflow.delivery.sending_queue import SendingQueue
from telflow.delivery.transport import Answer, Verdict
from tests.delivery import (
    ACCEPTED,
    BUSY,
    Destination,
    FakeClock,
    dead,
    in_background,
    logs,
    memory_at,
    outcomes,
    queue_to,
    wait_for,
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "queues.db", durability=Durability.OS, min_free_bytes=0) as opened:
        yield opened


# Without a disk


def test_what_is_put_in_is_delivered_when_the_snapshot_returns() -> None:
    """In memory: all records are at the destination, counted by tenant, and there is no state to resume with."""
    destination, ledger = Destination(), Ledger()
    queue = queue_to(destination, ledger=ledger)
    for n in range(20):
        queue.put(logs(10, tenant="a" if n % 2 else "b"))
    queue.put(TelemetryBatch.empty(Signal.LOGS))
    assert queue.snapshot() is None
    assert destination.records == 200
    assert outcomes(ledger) == {("delivered", "a", ""): 100, ("delivered", "b", ""): 100}
    stats = queue.stats()
    assert (stats.parcels, stats.held_bytes, stats.stored_bytes, stats.sending) == (0, 0, 0, 0)
    queue.close()
    assert destination.closed


def test_in_memory_retries_end_after_five_minutes() -> None:
    """The Collector's default where data lives in memory; the reason names the last answer."""
    clock, ledger = FakeClock(), Ledger()
    queue = queue_to(dead(), ledger=ledger, clock=clock)
    queue.put(logs(3, tenant="a"))
    queue.snapshot()
    queue.close()
    assert outcomes(ledger) == {("dropped", "a", "retries exhausted (UNAVAILABLE)"): 3}
    assert 340 < clock.now <= 401


def test_in_memory_the_flow_waits_when_the_memory_is_full() -> None:
    """Backpressure: `put` returns when there is room again, and nothing is lost."""
    release, destination = threading.Event(), Destination()

    def slow(signal: Signal, body: bytes) -> Answer:
        del signal, body
        release.wait(30)
        return ACCEPTED

    destination.answer = slow
    queue = queue_to(destination, sending_queue={"memory_size": 1 << 20, "num_consumers": 2})
    batch = logs(5000)
    done = threading.Event()

    def put() -> None:
        for _ in range(10):
            queue.put(batch)
        done.set()

    threading.Thread(target=put, daemon=True).start()
    wait_for(lambda: destination.tries == 2)
    assert not done.wait(0.3)
    assert queue.stats().held_bytes < (1 << 20) + 2 * batch.num_bytes
    release.set()
    assert done.wait(30)
    queue.close()
    assert destination.records == 50_000


def test_a_stop_without_a_disk_drops_what_was_never_tried() -> None:
    """The time to stop is up at once: no try, a reason of its own, and the sum is right."""
    release, ledger = threading.Event(), Ledger()

    def hang(signal: Signal, body: bytes) -> Answer:
        del signal, body
        release.wait(30)
        return BUSY

    queue = queue_to(Destination(hang), ledger=ledger, shutdown_timeout="0s", sending_queue={"num_consumers": 1})
    queue.put(logs(2, tenant="a"))
    wait_for(lambda: queue.stats().sending == 1)
    queue.put(logs(5, tenant="a"))
    queue.stop()
    threading.Timer(0.1, release.set).start()
    queue.close()
    assert outcomes(ledger) == {
        ("dropped", "a", "not sent before the stop"): 5,
        ("dropped", "a", "retries exhausted (UNAVAILABLE)"): 2,
    }


# With a disk


def test_delivered_before_the_snapshot_means_no_disk(log: Log) -> None:
    """The happy path writes nothing: no entry, no commit."""
    destination = Destination()
    queue = queue_to(destination, log=log)
    for _ in range(10):
        queue.put(logs(100))
        assert queue.snapshot() == 0
    queue.close()
    assert destination.records == 1000
    assert log.counters.commits == 0


def test_a_dead_destination_does_not_hold_the_flow_up(log: Log) -> None:
    """Undelivered at the snapshot: in the log, at or below the position it returns; every record once."""
    clock, ledger = FakeClock(), Ledger()
    queue = queue_to(dead(), log=log, ledger=ledger, clock=clock)
    positions = []
    for n in range(5):
        queue.put(logs(10, tenant="a", first=n * 10))
        positions.append(queue.snapshot())
    assert positions == [1, 2, 3, 4, 5]
    assert [e.records for e in log.index("export/0")] == [10] * 5
    queue.close()
    assert outcomes(ledger) == {}
    kept = [decode(e.payload, e.signal) for e in log.read("export/0", after=0)]
    assert TelemetryBatch.concat(kept) == logs(50, tenant=None)


def test_the_next_run_delivers_what_was_left(log: Log) -> None:
    """Restored records count as derived, so that the sums agree; afterwards the log is empty."""
    first = queue_to(dead(), log=log, clock=FakeClock())
    first.put(logs(7, tenant="a"))
    first.put(logs(4, tenant=None))
    position = first.snapshot()
    first.close()
    destination, ledger = Destination(), Ledger()
    second = queue_to(destination, log=log, ledger=ledger, resume=position)
    wait_for(lambda: destination.records == 11)
    second.close()
    assert outcomes(ledger) == {
        ("derived", "a", "restored"): 7,
        ("derived", "", "restored"): 4,
        ("delivered", "a", ""): 7,
        ("delivered", "", ""): 4,
    }
    assert log.index("export/0") == []


def test_what_lies_beyond_the_resumed_snapshot_is_forgotten(log: Log) -> None:
    """The source brings it again; without a snapshot everything is kept, since it may not."""
    queue = queue_to(dead(), log=log, clock=FakeClock())
    queue.put(logs(1))
    position = queue.snapshot()
    queue.put(logs(2))
    queue.snapshot()  # of an epoch that was never committed
    queue.close()
    unknown = queue_to(dead(), log=log, clock=FakeClock())
    assert unknown.stats().parcels == 2
    unknown.close()
    resumed = queue_to(dead(), log=log, resume=position, clock=FakeClock())
    assert resumed.stats().parcels == 1
    assert [e.records for e in log.index("export/0")] == [1]
    resumed.close()


def test_with_a_disk_trying_never_ends_unless_asked_to(log: Log) -> None:
    """An hour of refusals: still kept. With `max_elapsed_time` it ends, in the ledger and in the dead letters."""
    clock = FakeClock()
    queue = queue_to(dead(), log=log, clock=clock)
    queue.put(logs(3))
    queue.snapshot()
    wait_for(lambda: clock.now > 3600)
    assert queue.stats().parcels == 1
    queue.close()
    ledger = Ledger()
    limited = queue_to(dead(), log=log, ledger=ledger, clock=FakeClock(), retry_on_failure={"max_elapsed_time": "1m"})
    wait_for(lambda: not limited.stats().parcels)
    limited.close()
    assert outcomes(ledger) == {
        ("derived", "", "restored"): 3,
        ("dropped", "", "retries exhausted (UNAVAILABLE)"): 3,
    }
    assert log.index("export/0") == []


def test_one_tenant_that_is_refused_holds_no_other_up(log: Log) -> None:
    """A thousand requests of a tenant over its quota stand aside; those of another go through at once."""
    big, small = logs(3, tenant="big"), logs(1, tenant="small")

    def quota(_signal: Signal, body: bytes) -> Answer:
        over = decode(body, Signal.LOGS).num_rows == 3
        return Answer(Verdict.RETRYABLE, "RESOURCE_EXHAUSTED", retry_after_s=60) if over else ACCEPTED

    destination = Destination(quota)
    queue = queue_to(destination, log=log, sending_queue={"num_consumers": 2})
    for _ in range(200):
        queue.put(big)
    for _ in range(20):
        queue.put(small)
    wait_for(lambda: destination.records == 20)
    stats = queue.stats()
    assert stats.circuit is CircuitState.CLOSED
    assert stats.parcels == 200
    queue.close()
    assert len(log.index("export/0")) == 200


def test_a_destination_that_fails_is_left_alone_and_asked_again(log: Log) -> None:
    """The circuit opens after ten failures; while it is open nobody asks; one probe that succeeds brings all back."""
    clock, destination = FakeClock(), dead()
    queue = queue_to(destination, log=log, clock=clock, retry_on_failure={"initial_interval": "1s", "jitter": 0})
    for _ in range(50):
        queue.put(logs(1))
    wait_for(lambda: clock.now > 130)
    tries = destination.tries
    probes = (clock.now - 100) / 5  # time goes on meanwhile
    assert tries < 10 + 10 + probes + 1  # ten and those on their way, then a probe every five seconds
    destination.answer = lambda _signal, _body: ACCEPTED
    wait_for(lambda: destination.records == 50)
    assert queue.stats().circuit is CircuitState.CLOSED
    queue.close()


def test_beyond_its_memory_the_queue_goes_to_the_disk(log: Log) -> None:
    """Memory stays within its limit however much is put in, and everything arrives once the destination is back."""
    clock, destination, ledger = FakeClock(), dead(), Ledger()
    queue = queue_to(destination, log=log, clock=clock, ledger=ledger, sending_queue={"memory_size": 1 << 20})
    batch = logs(2000, tenant="a")
    for _ in range(30):
        queue.put(batch)
        assert queue.stats().held_bytes < (1 << 20) + 2 * batch.num_bytes + 4 * (1 << 20)
    assert queue.stats().stored_bytes > 0
    wait_for(lambda: queue.stats().held_bytes <= 1 << 20)
    destination.answer = lambda _signal, _body: ACCEPTED
    wait_for(lambda: destination.records == 60_000)
    queue.snapshot()
    queue.close()
    assert outcomes(ledger) == {("delivered", "a", ""): 60_000}
    assert (log.index("export/0"), queue.stats().held_bytes) == ([], 0)


def test_near_the_memory_of_the_process_the_queue_goes_to_the_disk_and_sends_less_at_a_time(log: Log) -> None:
    """The soft limit: an eighth of `memory_size`, a fourth of `num_consumers`; everything arrives."""
    release, together, most = threading.Event(), [0], [0]
    lock = threading.Lock()

    def slow(signal: Signal, body: bytes) -> Answer:
        del signal, body
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        release.wait(30)
        with lock:
            together[0] -= 1
        return ACCEPTED

    destination, limits = Destination(slow), {"memory_size": 8 << 20, "num_consumers": 8}
    queue = queue_to(destination, log=log, memory=memory_at(0.9), sending_queue=limits)
    batch = logs(2000, tenant="a")
    for _ in range(30):
        queue.put(batch)
    assert queue.stats().stored_bytes > 0
    wait_for(lambda: queue.stats().held_bytes <= (1 << 20) + 3 * batch.num_bytes)
    assert most[0] == 2
    release.set()
    wait_for(lambda: destination.records == 60_000)
    queue.snapshot()
    queue.close()
    assert most[0] == 2


def test_beyond_its_disk_the_flow_waits(log: Log) -> None:
    """`queue_size` reached: `snapshot` waits until the destination takes something; nothing is lost."""
    destination = dead()
    queue = queue_to(
        destination,
        log=log,
        sending_queue={"queue_size": 1 << 20},
        retry_on_failure={"initial_interval": "10ms", "max_interval": "20ms"},
        circuit_breaker={"open_duration": "20ms"},
    )
    rows = 40_000
    total = 0
    while queue.stats().stored_bytes < 1 << 20:
        queue.put(logs(rows, first=total))
        queue.snapshot()
        total += rows
    queue.put(logs(rows, first=total))
    done = threading.Event()
    in_background(queue.snapshot, done)
    assert not done.wait(0.3)
    destination.answer = lambda _signal, _body: ACCEPTED
    assert done.wait(30)
    wait_for(lambda: destination.records == total + rows)
    queue.close()


def test_beyond_its_disk_data_is_dropped_where_the_owner_wants_that(log: Log) -> None:
    """`block_on_overflow: false`: what has no room is counted, the flow goes on, what is kept stays."""
    ledger = Ledger()
    queue = queue_to(
        dead(),
        log=log,
        ledger=ledger,
        clock=FakeClock(),
        sending_queue={"queue_size": 1 << 20, "block_on_overflow": False},
    )
    total = 0
    while not outcomes(ledger):
        queue.put(logs(40_000, tenant="a", first=total))
        queue.snapshot()
        total += 40_000
    queue.close()
    (dropped,) = outcomes(ledger).values()
    assert set(outcomes(ledger)) == {("dropped", "a", "queue full")}
    assert sum(e.records for e in log.index("export/0")) + dropped == total


class BrokenStore(QueueStore):
    """A store whose disk fails as it is told."""

    error: Exception | None = None

    def append(self, requests: Any) -> range:
        if self.error is not None:
            raise self.error
        return super().append(requests)


@pytest.mark.parametrize("error", [LogFull("the disk under the log is full"), LogError("read-only")])
def test_a_disk_that_cannot_be_written_makes_the_flow_wait(
    log: Log, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once; delivery goes on from memory meanwhile, and the snapshot returns when all is safe again."""
    destination, store = dead(), BrokenStore(log, "export/0")
    store.error = error
    settings = DeliverySettings.model_validate(
        {
            "retry_on_failure": {"initial_interval": "10ms", "max_interval": "20ms"},
            "circuit_breaker": {"enabled": False},
        }
    )
    queue = SendingQueue(destination, "protobuf", 4 << 20, settings, component="export", store=store, ledger=Ledger())
    queue.put(logs(5))
    done = threading.Event()
    with caplog.at_level(logging.ERROR):
        in_background(queue.snapshot, done)
        assert not done.wait(0.5)
        destination.answer = lambda _signal, _body: ACCEPTED
        assert done.wait(30)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "undelivered data cannot be kept, the flow waits" in caplog.text
    assert destination.records == 5
    queue.close()


def test_a_stop_while_nothing_can_be_kept_says_so_and_commits_nothing(log: Log) -> None:
    """The epoch must not be committed: `snapshot` raises, and the source still has the data."""
    store = BrokenStore(log, "export/0")
    store.error = LogError("read-only")
    settings = DeliverySettings.model_validate({"shutdown_timeout": "0s"})
    queue = SendingQueue(dead(), "protobuf", 4 << 20, settings, component="export", store=store, ledger=Ledger())
    queue.put(logs(5))
    queue.stop()
    with pytest.raises(LogError, match="read-only"):
        queue.snapshot()
    with pytest.raises(LogError, match="read-only"):
        queue.close()


def test_switched_off_the_queue_keeps_nothing_on_disk(log: Log) -> None:
    """`enabled: false`: as without a log."""
    destination = Destination()
    queue = queue_to(destination, log=log, sending_queue={"enabled": False})
    queue.put(logs(5))
    assert queue.snapshot() is None
    queue.close()
    assert (destination.records, log.counters.commits) == (5, 0)
