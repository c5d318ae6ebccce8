"""The log against a plain list, with many threads, and with budgets, ages and foreign files."""

from __future__ import annotations

import random
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from telflow.delivery.group_commit import GroupCommit, Job
from telflow.delivery.log import Durability, Entry, Log, LogError, LogFull, Loss
from telflow.delivery.log_file import _APPLICATION
from telflow.errors import TelflowError
from telflow.schema import Signal
from tests.strategies import thorough

PARTS = st.sampled_from(["intake", "export-a"])
ENTRIES = st.builds(
    Entry,
    signal=st.sampled_from(Signal),
    payload=st.binary(max_size=200) | st.integers(17_000, 60_000).map(lambda n: random.Random(n).randbytes(n)),
    records=st.integers(0, 1000),
    tenant=st.none() | st.text(st.characters(codec="utf-8"), max_size=8),
    encoding=st.sampled_from(["protobuf", "json", "arrow"]),
    arrival_time_unix_nano=st.integers(0, 2**62),
)


def entry(payload: bytes = b"x", *, records: int = 1, at: int = 0) -> Entry:
    return Entry(Signal.LOGS, payload, records, arrival_time_unix_nano=at)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does soon."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ingest.db"


class LogAgainstList(RuleBasedStateMachine):
    """Whatever is done to a log, it holds what a dict of positions would hold, also after it is opened anew."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        self.path = Path(tempfile.mkdtemp(dir=self.folder)) / "log.db"
        self.log = Log(self.path, durability=Durability.OS, min_free_bytes=0)
        self.model: dict[str, dict[int, Entry]] = {"intake": {}, "export-a": {}}
        self.last = {"intake": 0, "export-a": 0}

    def _take(self, part: str, entries: list[Entry]) -> None:
        for each in entries:
            self.last[part] += 1
            self.model[part][self.last[part]] = replace(each, position=self.last[part])

    @rule(part=PARTS, entries=st.lists(ENTRIES, max_size=4))
    def append(self, part: str, entries: list[Entry]) -> None:
        position = self.log.append_many(part, entries)
        self._take(part, entries)
        assert position == self.last[part]

    @rule(part=PARTS, entries=st.lists(ENTRIES, max_size=3))
    def append_soon(self, part: str, entries: list[Entry]) -> None:
        futures = [self.log.append_soon(part, each) for each in entries]
        self._take(part, entries)
        assert [f.result(30) for f in futures] == list(range(self.last[part] - len(entries) + 1, self.last[part] + 1))

    @rule(part=PARTS, data=st.data())
    def trim(self, part: str, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, self.last[part] + 2))
        gone = [p for p in self.model[part] if p <= position]
        assert self.log.trim(part, position) == len(gone)
        for each in gone:
            del self.model[part][each]

    @rule(part=PARTS, data=st.data())
    def truncate(self, part: str, data: st.DataObject) -> None:
        beyond = data.draw(st.integers(0, self.last[part] + 2))
        gone = [p for p in self.model[part] if p > beyond]
        assert self.log.truncate(part, beyond) == len(gone)
        for each in gone:
            del self.model[part][each]
        self.last[part] = min(self.last[part], beyond)

    @rule(part=PARTS, further=st.integers(-2, 5))
    def skip(self, part: str, further: int) -> None:
        position = max(0, self.last[part] + further)
        self.log.skip_to(part, position)
        self.last[part] = max(self.last[part], position)
        self.model[part] = {p: e for p, e in self.model[part].items() if p > position}

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.log = Log(self.path, durability=Durability.OS, min_free_bytes=0)

    @rule(part=PARTS, data=st.data(), max_bytes=st.integers(1, 100_000))
    def read_some(self, part: str, data: st.DataObject, max_bytes: int) -> None:
        after = data.draw(st.integers(0, self.last[part] + 1))
        found = self.log.read(part, after=after, max_bytes=max_bytes)
        expected = [e for p, e in sorted(self.model[part].items()) if p > after]
        assert found == expected[: len(found)]
        assert bool(found) == bool(expected)
        read_bytes = sum(len(e.payload) for e in found)
        assert len(found) <= 1 or read_bytes <= max_bytes
        if len(found) < len(expected):
            assert read_bytes + len(expected[len(found)].payload) > max_bytes

    @invariant()
    def holds_the_same(self) -> None:
        if not hasattr(self, "log"):
            return
        stats = {s.name: s for s in self.log.stats()}
        for part, model in self.model.items():
            assert self.log.read(part, after=0, max_bytes=1 << 30) == [e for _, e in sorted(model.items())]
            if part in stats:
                found = stats[part]
                assert (found.entries, found.last_position) == (len(model), self.last[part])
                assert found.first_position == min(model, default=self.last[part] + 1)
                oldest = model[min(model)].arrival_time_unix_nano if model else None
                assert found.oldest_unix_nano == oldest

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()


def test_holds_what_a_list_would_hold(tmp_path: Path) -> None:
    """Any sequence of calls and restarts: the log and a plain dict of positions agree after every step."""
    LogAgainstList.folder = tmp_path
    run_state_machine_as_test(LogAgainstList, settings=settings(cast(settings, thorough(12)), stateful_step_count=20))


def test_many_threads_share_commits_and_get_positions_without_gaps(path: Path) -> None:
    """Sixteen threads append: each entry stands at the position its thread was told, none twice, none left out."""

    def work(thread: int) -> list[tuple[str, int, bytes]]:
        part = f"part-{thread % 3}"
        told = []
        for n in range(40):
            payload = f"{thread}:{n}".encode()
            told.append((part, log.append(part, entry(payload)), payload))
        return told

    with Log(path, min_free_bytes=0) as log, ThreadPoolExecutor(16) as pool:
        told = [each for found in pool.map(work, range(16)) for each in found]
        held = [(p, e.position, e.payload) for p in ("part-0", "part-1", "part-2") for e in log.read(p, after=0)]
        assert sorted(told) == sorted(held)
        for part in ("part-0", "part-1", "part-2"):
            assert sorted(p for name, p, _ in told if name == part) == list(range(1, log.last_position(part) + 1))
        assert log.counters.entries == log.counters.records == 640
        assert log.counters.commits < 640


def test_reads_while_others_append_and_trim(path: Path) -> None:
    """A reader that follows the log sees every entry once and in order, whatever is trimmed behind it."""
    seen: list[int] = []

    def follow() -> None:
        while len(seen) < 500:
            for each in log.read("intake", after=seen[-1] if seen else 0, max_bytes=10):
                seen.append(each.position)
            log.trim("intake", seen[-1] if seen else 0)

    with Log(path, durability=Durability.OS, min_free_bytes=0) as log, ThreadPoolExecutor(5) as pool:
        done = pool.submit(follow)
        list(pool.map(lambda _: log.append("intake", entry(b"payload")), range(500)))
        done.result(60)
        wait_for(lambda: log.stored_bytes == 0)
    assert seen == list(range(1, 501))


def test_trimmed_entries_are_erased_from_the_disk(path: Path) -> None:
    """A large backlog is trimmed: readers do not see it any more at once, the disk gives it back soon."""
    with Log(path, durability=Durability.OS, min_free_bytes=0) as log:
        for _ in range(80):
            log.append_many("intake", [entry(random.randbytes(250_000)) for _ in range(4)])
        assert path.stat().st_size > 32 << 20
        assert log.trim("intake", 319) == 319
        assert [e.position for e in log.read("intake", after=0)] == [320]
        wait_for(lambda: log.stored_bytes < 300_000)
        wait_for(lambda: path.stat().st_size < 4 << 20)
        assert [e.position for e in log.read("intake", after=0)] == [320]
        assert log.append("intake", entry()) == 321


def test_the_wal_stays_small(path: Path) -> None:
    """However much is written and read, checkpoints keep the WAL near its limit of 32 MiB."""
    wal = path.with_name(f"{path.name}-wal")
    largest = 0
    with Log(path, durability=Durability.OS, min_free_bytes=0) as log:
        for n in range(60):
            log.append_many("intake", [entry(random.randbytes(500_000)) for _ in range(4)])
            log.read("intake", after=4 * n)
            log.trim("intake", 4 * n)
            largest = max(largest, wal.stat().st_size)
        wait_for(lambda: log.counters.checkpoints > 0)
    assert largest <= 80 << 20
    assert not wal.exists()


def test_refuses_over_its_byte_budget_and_goes_on_after_a_trim(path: Path) -> None:
    """A full log refuses with a retryable error and keeps nothing of it; what is trimmed makes room at once."""
    with Log(path, max_bytes=100_000, durability=Durability.OS, min_free_bytes=0) as log:
        for _ in range(9):
            log.append("intake", entry(random.randbytes(10_000)))
        with pytest.raises(LogFull, match=r"holds 90.* of at most 100000 bytes") as caught:
            log.append_many("intake", [entry(random.randbytes(6_000)) for _ in range(2)])
        assert caught.value.retryable
        assert log.last_position("intake") == 9
        assert log.counters.refused_entries == 1
        log.trim("intake", 5)
        assert log.append_many("intake", [entry(random.randbytes(6_000)) for _ in range(2)]) == 11


def test_leaves_the_last_bytes_of_the_disk_alone(path: Path) -> None:
    """With less free than `min_free_bytes` the log refuses before the disk is full."""
    with Log(path, min_free_bytes=1 << 60) as log, pytest.raises(LogFull, match="bytes free"):
        log.append("intake", entry())


def test_forgets_what_is_too_old_and_says_so(path: Path) -> None:
    """Entries over the age budget end, each one told with its tenant and records; younger ones stay."""
    now = [1_000_000_000_000]
    losses: list[Loss] = []
    with Log(path, max_age_s=10, on_loss=losses.extend, now_unix_nano=lambda: now[0], min_free_bytes=0) as log:
        for n in range(3):
            log.append("intake", entry(b"old", records=5, at=now[0] + n))
        log.append("intake", entry(b"young", at=now[0] + 9_000_000_000))
        now[0] += 11_000_000_000
        wait_for(lambda: len(losses) == 3)
        assert losses[0] == Loss("intake", 1, "expired", Signal.LOGS, None, 5)
        assert [e.payload for e in log.read("intake", after=0)] == [b"young"]
        assert log.counters.expired_entries == 3


def test_a_clock_that_jumps_backwards_changes_nothing(path: Path) -> None:
    """Positions order the log: entries that seem to come from the future are kept and read in order of arrival."""
    now = [2_000_000_000_000]
    with Log(path, max_age_s=1000, now_unix_nano=lambda: now[0], min_free_bytes=0) as log:
        log.append("intake", entry(b"first", at=now[0]))
        now[0] -= 1_500_000_000_000
        log.append("intake", entry(b"second", at=now[0]))
        log.append_soon("intake", entry(b"third", at=now[0])).result(30)
    with Log(path, max_age_s=1000, now_unix_nano=lambda: now[0], min_free_bytes=0) as log:
        assert [e.payload for e in log.read("intake", after=0)] == [b"first", b"second", b"third"]


def test_futures_may_append_again(path: Path) -> None:
    """A callback of `append_soon` that appends does not lock up."""
    again: list[int] = []
    with Log(path, min_free_bytes=0) as log:
        future = log.append_soon("intake", entry())
        future.add_done_callback(lambda done: again.append(log.append("intake", entry()) + done.result()))
        wait_for(lambda: again == [3])


def test_close_commits_what_waits_and_ends_the_rest(path: Path) -> None:
    """Everything handed over before `close` is in the log; whoever comes later is told that it is closed."""
    log = Log(path, min_free_bytes=0)
    futures = [log.append_soon("intake", entry(bytes([n]))) for n in range(100)]
    log.close()
    log.close()
    assert [f.result(0) for f in futures] == list(range(1, 101))
    for call in (
        lambda: log.append("intake", entry()),
        lambda: log.append_soon("intake", entry()),
        lambda: log.read("intake", after=0),
        lambda: log.truncate("intake", 0),
        lambda: log.skip_to("intake", 5),
        log.stats,
    ):
        with pytest.raises(LogError, match="is closed"):
            call()
    with Log(path, min_free_bytes=0) as log:
        assert len(log.read("intake", after=0)) == 100


def test_only_its_owner_may_read_it(path: Path) -> None:
    """An ingest log holds data before redaction: folder 0700, all files 0600, also those found with more."""
    with Log(path, min_free_bytes=0) as log:
        log.append("intake", entry())
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        found = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert found == dict.fromkeys(["ingest.db", "ingest.db-wal", "ingest.db-shm", "ingest.db.lock"], 0o600)
    path.chmod(0o644)
    Log(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_two_logs_on_one_file(path: Path) -> None:
    """A second log on the same file is refused and names the holder; after the first is closed it may open."""
    with Log(path), pytest.raises(LogError, match=r"another process \(pid \d+\) has it open"):
        Log(path)
    Log(path).close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("CREATE TABLE other (x)", "a database of something else"),
        (f"PRAGMA application_id={_APPLICATION}; PRAGMA user_version=9; CREATE TABLE t (x)", "got one of format 9"),
    ],
)
def test_refuses_what_is_not_a_log_of_this_format(tmp_path: Path, make: str, message: str) -> None:
    """A database of another program or of a later version is left alone, with an error that says what it is."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.executescript(make)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LogError, match=message):
        Log(path)
    assert path.read_bytes() == before


def test_refuses_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """The error says which path and what was expected."""
    (tmp_path / "state").write_text("")
    with pytest.raises(LogError, match=r"state/ingest\.db: cannot lock the log"):
        Log(tmp_path / "state" / "ingest.db")


def test_an_interrupt_in_a_commit_leaves_nobody_waiting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the leading thread: those in its group get an error, nothing hangs, and nothing more is accepted."""
    with Log(path, min_free_bytes=0) as log:
        log.append("intake", entry())
        with monkeypatch.context() as patch:

            def interrupt(*_: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(log._file, "write", interrupt)
            with pytest.raises(KeyboardInterrupt):
                log.append("intake", entry())
        with pytest.raises(LogError, match="interrupted"):
            log.append("intake", entry())
    with Log(path, min_free_bytes=0) as log:
        assert log.append("intake", entry()) == 2


def test_an_interrupted_leader_leaves_the_lead_to_others() -> None:
    """Whoever waits behind it gets its turn, and those in its group are told."""
    entered, go_on = threading.Event(), threading.Event()

    def commit(jobs: Sequence[Job]) -> None:
        if not go_on.is_set():
            entered.set()
            go_on.wait(30)
            raise KeyboardInterrupt
        for job in jobs:
            job.position = 1

    group = GroupCommit(commit, threading.Lock())

    def submit(job: Job) -> int:
        group.submit(job)
        return job.result()

    first, second, third = (Job("p", [entry()]) for _ in range(3))
    third.future = Future()
    with ThreadPoolExecutor(2) as pool:
        interrupted = pool.submit(submit, first)
        assert entered.wait(30)
        waiting = pool.submit(submit, second)
        wait_for(lambda: group.waiting_bytes >= first.size + second.size)
        group.submit_soon(third)
        go_on.set()
        assert isinstance(interrupted.exception(30), KeyboardInterrupt)
        assert waiting.result(30) == 1
    assert third.future.result(30) == 1
    with pytest.raises(TelflowError, match="interrupted"):
        first.result()


def test_threads_end_with_the_log(path: Path) -> None:
    """A closed log leaves no thread behind."""
    before = threading.active_count()
    with Log(path):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(7)
