"""The durable intake: every accepted request is taken once, from memory or from the log, also after a restart."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger
from telflow.codec import decode
from telflow.delivery import log_intake
from telflow.delivery.intake import Overloaded, RequestMeta
from telflow.delivery.log import Durability, Log, LogFull
from telflow.delivery.log_intake import LogIntake, ResumableIntake
from telflow.errors import DecodeError
from tests.delivery import memory_at
from tests.oracle import REQUESTS
from tests.strategies import thorough


def request(*numbers: int, signal: Signal = Signal.LOGS, tenant: str = "acme", size: int = 0) -> RequestMeta:
    """A request whose records are told apart by a number."""
    message: Any = REQUESTS[signal]()
    if signal is Signal.LOGS:
        records = message.resource_logs.add().scope_logs.add().log_records
        for number in numbers:
            records.add(flags=number).body.string_value = f"{number}{'x' * size}"
    else:
        spans = message.resource_spans.add().scope_spans.add().spans
        for number in numbers:
            spans.add(flags=number, trace_id=bytes(16), span_id=bytes(8), name="n")
    return RequestMeta(tenant, signal, "protobuf", 0, payload=message.SerializeToString())


def numbers(batches: list[TelemetryBatch], signal: Signal = Signal.LOGS) -> list[int]:
    return [n for batch in batches if batch.signal is signal for n in batch.records["flags"].to_pylist()]


def take_all(intake: LogIntake) -> list[TelemetryBatch]:
    found: list[TelemetryBatch] = []
    for _ in range(1000):
        batches = intake.take(timeout_s=0, max_bytes=1 << 20)
        if not batches and not intake.behind:
            return found
        found += batches
    raise AssertionError("no end")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ingest.db"


def opened(path: Path, **options: Any) -> Log:
    return Log(path, durability=Durability.OS, min_free_bytes=0, **options)


def resumed(log: Log, position: int | None = None, **options: Any) -> LogIntake:
    intake = LogIntake(log, **options)
    intake.resume(position)
    return intake


def test_hands_over_in_memory_what_the_log_holds(path: Path) -> None:
    """An accepted request is in the log with what is known of it, and is taken as it would be decoded."""
    with opened(path) as log:
        intake = resumed(log)
        assert isinstance(intake, ResumableIntake)
        first = RequestMeta("acme", Signal.LOGS, "protobuf", 77, payload=request(1, 2).payload)
        assert intake.accept(first) == 2
        assert intake.accept(request(3, signal=Signal.TRACES)) == 1
        (entry, _) = log.read("intake", after=0)
        assert (entry.payload, entry.records, entry.tenant) == (first.payload, 2, "acme")
        assert (entry.signal, entry.encoding, entry.arrival_time_unix_nano) == (Signal.LOGS, "protobuf", 77)
        logs, spans = intake.take(timeout_s=0, max_bytes=1 << 20)
        assert logs.records.equals(decode(first.payload, Signal.LOGS, tenant="acme").records)
        assert numbers([spans], Signal.TRACES) == [3]
        assert intake.position == 2
        assert intake.held_bytes == 0


def test_a_bad_payload_is_refused_alone(path: Path) -> None:
    """Requests that are decoded together do not suffer for one that is none; nothing of that is kept."""
    with opened(path) as log, ThreadPoolExecutor(8) as pool:
        intake = resumed(log)
        bad = RequestMeta("acme", Signal.LOGS, "protobuf", 0, payload=b"\x0a\xff")

        def accept(n: int) -> int:
            return intake.accept(bad if n % 5 == 0 else request(n))

        futures = [pool.submit(accept, n) for n in range(50)]
        for n, future in enumerate(futures):
            if n % 5 == 0:
                with pytest.raises(DecodeError):
                    future.result()
            else:
                assert future.result() == 1
        assert sorted(numbers(take_all(intake))) == [n for n in range(50) if n % 5]
        assert intake.position == log.last_position("intake") == 40


def test_a_request_without_records_is_accepted_and_not_kept(path: Path) -> None:
    """Empty requests and empty envelopes are no mistake and leave nothing behind."""
    with opened(path) as log:
        intake = resumed(log)
        assert intake.accept(RequestMeta("acme", Signal.LOGS, "protobuf", 0)) == 0
        assert intake.accept(request()) == 0
        assert take_all(intake) == []
        assert log.last_position("intake") == 0


def test_what_was_not_committed_comes_again_after_a_restart(path: Path) -> None:
    """Taken but not committed, and accepted but not taken: both come again, in order; what was committed does not."""
    ledger = Ledger()
    with opened(path) as log:
        intake = resumed(log)
        for n in range(3):
            intake.accept(request(n))
        take_all(intake)
        intake.commit(intake.position)
        for n in range(3, 6):
            intake.accept(request(n))
        take_all(intake)
        for n in range(6, 9):
            intake.accept(request(n))
    with opened(path) as log:
        intake = resumed(log, 3, ledger=ledger)
        intake.accept(request(9))
        assert numbers(take_all(intake)) == [3, 4, 5, 6, 7, 8, 9]
        assert intake.position == 10
    assert [(r.outcome, r.reason, r.count) for r in ledger.rows()] == [("derived", "resumed", 6)]


def test_reads_back_from_the_log_what_memory_has_no_room_for(path: Path) -> None:
    """With the memory budget spent requests are accepted all the same; the source reads them back."""
    with opened(path) as log:
        intake = resumed(log, max_bytes=200_000)
        largest = 0
        for n in range(200):
            assert intake.accept(request(n, size=5000)) == 1
            largest = max(largest, intake.held_bytes)
        assert intake.behind
        assert largest < 320_000
        assert numbers(take_all(intake)) == list(range(200))
        assert intake.position == 200
        intake.accept(request(200))
        assert intake.held_bytes > 0
        assert numbers(take_all(intake)) == [200]


def test_a_request_that_would_become_too_large_is_refused(path: Path) -> None:
    """A few bytes that would take more memory than there is are refused, and nothing is kept of them."""
    with opened(path) as log:
        intake = resumed(log, max_bytes=200_000)
        with pytest.raises(Overloaded, match="memory budget"):
            intake.accept(request(*[0] * 5000, signal=Signal.TRACES))
        intake.accept(request(1))
        assert log.last_position("intake") == 1
        assert numbers(take_all(intake)) == [1]


def test_large_batches_are_closed(path: Path) -> None:
    """Batches stay below what the engine is tuned for, from memory as well as from the log."""
    with opened(path) as log:
        intake = resumed(log)
        for n in range(40):
            intake.accept(request(*range(n * 500, n * 500 + 500)))
        batches = take_all(intake)
        assert max(batch.num_rows for batch in batches) < 8192
        assert numbers(batches) == list(range(20_000))
    with opened(path) as log:
        batches = take_all(resumed(log))
        assert max(batch.num_rows for batch in batches) < 8192
        assert numbers(batches) == list(range(20_000))


def test_a_full_log_refuses_and_loses_nothing_accepted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The disk budget is what refuses; what was accepted before is taken, and with room again more is accepted."""
    accepted = []
    refusals = []
    with opened(path, max_bytes=40_000) as log:
        intake = resumed(log)
        random_ = random.Random(7)

        def incompressible(n: int) -> RequestMeta:
            message: Any = REQUESTS[Signal.LOGS]()
            record = message.resource_logs.add().scope_logs.add().log_records.add(flags=n)
            record.body.bytes_value = random_.randbytes(3000)
            return RequestMeta("acme", Signal.LOGS, "protobuf", 0, payload=message.SerializeToString())

        for n in range(30):
            try:
                intake.accept(incompressible(n))
                accepted.append(n)
            except Overloaded as error:
                refusals.append(error)
        assert accepted == list(range(13))
        assert all(refusal.retryable for refusal in refusals)
        assert not any(str(path) in str(refusal) for refusal in refusals)
        assert caplog.text.count("requests are refused") == 1
        assert numbers(take_all(intake)) == accepted
        intake.commit(intake.position)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and log.stored_bytes:
            time.sleep(0.01)
        assert intake.accept(incompressible(30)) == 1
        assert numbers(take_all(intake)) == [30]


def test_a_log_that_was_lost_gives_no_position_twice(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The flow stands at a position that a new log has not reached: new requests get higher ones, and are taken."""
    with opened(path) as log:
        intake = resumed(log, 100)
        intake.accept(request(1))
        assert numbers(take_all(intake)) == [1]
        assert intake.position == 101
    assert "the flow stands at 100" in caplog.text


def test_requests_wait_for_the_flow_to_say_where_it_stands(path: Path) -> None:
    """Nothing is accepted before the source has resumed: a request waits, and is told to come back if that is long."""
    with opened(path) as log:
        intake = LogIntake(log, start_timeout_s=0.05)
        with pytest.raises(Overloaded, match="still starting"):
            intake.accept(request(1))
        assert intake.take(timeout_s=0, max_bytes=1) == []
    with opened(path) as log, ThreadPoolExecutor(1) as pool:
        intake = LogIntake(log)
        future = pool.submit(intake.accept, request(1))
        time.sleep(0.05)
        assert not future.done()
        intake.resume(None)
        assert future.result(30) == 1


def test_damaged_and_expired_entries_are_counted(path: Path) -> None:
    """What the log cannot give back is dropped in the ledger, under its tenant; the rest comes through."""
    with opened(path) as log:
        intake = resumed(log)
        for n in range(4):
            intake.accept(request(n, tenant=f"t{n}"))
        log._file._writer.execute("UPDATE entry SET payload = x'00' WHERE id % 16 = 2")
    ledger = Ledger()
    with opened(path, max_age_s=1e9, now_unix_nano=lambda: 1) as log:
        assert numbers(take_all(resumed(log, ledger=ledger))) == [0, 2, 3]
    found = {(r.outcome.value, r.tenant, r.reason): r.count for r in ledger.rows()}
    assert found["dropped", "t1", "damaged"] == 1
    assert found["derived", "t1", "resumed"] == 1
    assert sum(count for (outcome, _, _), count in found.items() if outcome == "derived") == 4
    ledger = Ledger()
    with opened(path, max_age_s=10, now_unix_nano=lambda: 1 << 60) as log:
        deadline = time.monotonic() + 30
        while log.counters.expired_entries < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert take_all(resumed(log, ledger=ledger)) == []
    assert {(r.outcome, r.reason): 1 for r in ledger.rows()} == {("derived", "resumed"): 1, ("dropped", "expired"): 1}


def test_many_senders_and_one_source(path: Path) -> None:
    """Twelve threads send while the source takes and commits: each record once, those of one sender in order."""
    taken: list[int] = []
    with opened(path) as log, ThreadPoolExecutor(13) as pool:
        intake = resumed(log, max_bytes=400_000)
        done = threading.Event()

        def source() -> None:
            while not (done.is_set() and intake.drained):
                taken.extend(numbers(intake.take(timeout_s=0.01, max_bytes=100_000)))
                intake.commit(intake.position)

        def sender(thread: int) -> None:
            for n in range(60):
                intake.accept(request(thread * 1000 + n, size=2000 if n > 30 else 10))

        sourcing = pool.submit(source)
        list(pool.map(sender, range(12)))
        intake.close()
        done.set()
        sourcing.result(60)
    assert Counter(taken) == Counter(t * 1000 + n for t in range(12) for n in range(60))
    for thread in range(12):
        of_thread = [n for n in taken if n // 1000 == thread]
        assert of_thread == sorted(of_thread)


def test_refuses_when_closed_and_is_drained_when_all_is_taken(path: Path) -> None:
    """`close` lets nothing more in; `drained` is true once the source has everything."""
    with opened(path) as log:
        intake = resumed(log)
        intake.accept(request(1))
        intake.close()
        with pytest.raises(Overloaded, match="shutting down"):
            intake.admit(0)
        assert not intake.drained
        assert numbers(take_all(intake)) == [1]
        assert intake.drained


class IntakeAgainstList(RuleBasedStateMachine):
    """Any order of requests, takes, epochs, failures and restarts: what is taken is what a list would give."""

    folder: Path

    @initialize(budget=st.sampled_from([50_000, 300_000, 1 << 24]))
    def begin(self, budget: int) -> None:
        self.path = Path(tempfile.mkdtemp(dir=self.folder)) / "ingest.db"
        self.budget = budget
        self.sent = 0
        self.taken: list[int] = []
        self.states: list[tuple[int, int]] = [(0, 0)]  # position and number of taken records, per snapshot
        self.start(None)

    def start(self, position: int | None) -> None:
        self.log = opened(self.path)
        self.intake = resumed(self.log, position, max_bytes=self.budget)

    @rule(count=st.integers(1, 5), size=st.sampled_from([0, 0, 20_000]))
    def send(self, count: int, size: int) -> None:
        self.intake.accept(request(*range(self.sent, self.sent + count), size=size))
        self.sent += count

    @rule(max_bytes=st.sampled_from([1, 100_000, 1 << 20]))
    def take(self, max_bytes: int) -> None:
        self.taken += numbers(self.intake.take(timeout_s=0, max_bytes=max_bytes))
        assert self.taken == list(range(len(self.taken)))

    @rule()
    def end_epoch(self) -> None:
        self.states.append((self.intake.position, len(self.taken)))
        if len(self.states) > 2:
            self.intake.commit(self.states[-2][0])

    @rule()
    def fail_to_write(self) -> None:
        def fail(*_: object, **__: object) -> int:
            raise LogFull("no room")

        self.log.append_many = fail  # type: ignore[method-assign]
        with pytest.raises(Overloaded):
            self.intake.accept(request(999_999))
        del self.log.append_many

    @rule()
    def restart(self) -> None:
        """End without a word, and go on from the last committed epoch or the one after it."""
        self.log.close()
        position, count = self.states[-1]
        self.states = self.states[-1:]
        del self.taken[count:]
        self.start(position)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.taken += numbers(take_all(self.intake))
            assert self.taken == list(range(self.sent))
            self.log.close()


def test_gives_what_a_list_would_give(tmp_path: Path) -> None:
    """Whatever happens in whatever order, with memory for nothing, for little or for all."""
    IntakeAgainstList.folder = tmp_path
    run_state_machine_as_test(
        IntakeAgainstList, settings=settings(cast(settings, thorough(15)), stateful_step_count=30)
    )


def test_with_the_memory_of_the_process_spent_it_refuses_while_anything_waits(path: Path) -> None:
    """The hard limit; once the source has taken all, the next request is welcome, so that nothing stands still."""
    with opened(path) as log:
        intake = resumed(log, memory=memory_at(0.99))
        for number in range(3):
            intake.accept(request(number))
            with pytest.raises(Overloaded, match="memory budget"):
                intake.accept(request(99))
            assert numbers(take_all(intake)) == [number]


def test_near_the_memory_of_the_process_what_comes_waits_on_the_disk(path: Path) -> None:
    """The soft limit: an eighth is held, nothing refused, and everything taken once, in order."""
    with opened(path) as log:
        intake = resumed(log, memory=memory_at(0.9), max_bytes=1 << 20)
        held = 0
        for number in range(100):
            intake.accept(request(number, size=10_000))
            held = max(held, intake.held_bytes)
        assert intake.behind
        assert held <= (1 << 17) + (1 << 16)
        assert numbers(take_all(intake)) == list(range(100))


def test_a_batch_that_is_not_full_grows_while_the_source_lingers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The take ends when the chunk is full, when the time is over, and at once when the intake is closed."""
    monkeypatch.setattr(log_intake, "_CHUNK_ROWS", 3)
    with opened(path) as log:
        intake = resumed(log)
        intake.accept(request(1))

        def more() -> None:
            for number in (2, 3):
                time.sleep(0.05)
                intake.accept(request(number))

        sender = threading.Thread(target=more)
        sender.start()
        assert numbers(intake.take(timeout_s=0, max_bytes=1 << 20, linger_s=30)) == [1, 2, 3]
        sender.join()
        intake.accept(request(4))
        assert numbers(intake.take(timeout_s=0, max_bytes=1 << 20, linger_s=0.01)) == [4]
        assert intake.take(timeout_s=0, max_bytes=1 << 20, linger_s=30) == []
        intake.accept(request(5))
        intake.close()
        assert numbers(intake.take(timeout_s=30, max_bytes=1 << 20, linger_s=30)) == [5]
