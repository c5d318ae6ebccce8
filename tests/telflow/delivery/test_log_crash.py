"""The log under violence: killed writers, full and read-only disks, damaged files, and the order of write and sync."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from telflow.delivery.log import Durability, Entry, Log, LogError, LogFull, Loss
from telflow.schema import Signal

ROOT = Path(__file__).parents[3]
ACK = re.compile(r"(part-\d) (\d+) ([A-Za-z]{24})\n")
WRITER = [sys.executable, "-P", "-m", "tests.log_writer"]


def entry(payload: bytes) -> Entry:
    return Entry(Signal.LOGS, payload, 1, tenant="acme")


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does soon."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def entries_of(path: Path) -> dict[tuple[str, int], bytes]:
    """Everything the log at `path` holds, by partition and position."""
    with Log(path, min_free_bytes=0) as log:
        return {
            (stats.name, each.position): each.payload
            for stats in log.stats()
            for each in log.read(stats.name, after=0, max_bytes=1 << 30)
        }


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_killed_writer_has_every_acknowledged_entry(tmp_path: Path, durability: str) -> None:
    """SIGKILL at random moments, again and again on one file: what was acknowledged is there, at its position."""
    path = tmp_path / "ingest.db"
    random_ = random.Random(durability)
    acknowledged: dict[tuple[str, int], bytes] = {}
    for _ in range(int(os.environ.get("TELFLOW_KILLS", "3"))):
        command = [*WRITER, str(path), durability, "4", "1000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as writer:
            assert writer.stdout is not None
            first = os.read(writer.stdout.fileno(), 65536)
            time.sleep(random_.uniform(0, 0.15))
            writer.send_signal(signal.SIGKILL)
            told = (first + writer.stdout.read()).decode()
        new = {(part, int(position)): text.encode() for part, position, text in ACK.findall(told)}
        assert new
        assert not new.keys() & acknowledged.keys()
        acknowledged |= new
        held = entries_of(path)
        assert acknowledged.items() <= held.items()
        for part in ("part-0", "part-1"):
            positions = [position for name, position in held if name == part]
            assert positions == list(range(1, len(positions) + 1))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_is_acknowledged_before_its_bytes_are_synced(tmp_path: Path) -> None:
    """Power-cut approximation: traced system calls show write to the WAL, then its fdatasync, then the acknowledgement.

    Everything that is not synced may be gone after the loss of power; so for every entry of four threads, between the
    write that holds its bytes and its acknowledgement a sync of that file must have begun and ended.
    """
    trace = tmp_path / "trace"
    calls = "trace=openat,pwrite64,write,fsync,fdatasync"
    command = ["strace", "-f", "-y", "-s", "300000", "-e", calls, "-o", str(trace), *WRITER]
    done = subprocess.run(
        [*command, str(tmp_path / "ingest.db"), "fsync", "4", "12"],
        capture_output=True,
        env=environment(),
        check=False,
    )
    if b"ptrace" in done.stderr.lower():
        pytest.skip("this system does not allow to trace processes")
    assert done.returncode == 0, done.stderr.decode()
    written: dict[str, int] = {}
    synced: list[tuple[int, int]] = []
    begun: dict[str, int] = {}
    acknowledged: dict[str, int] = {}
    for number, line in enumerate(trace.read_text(encoding="utf-8", errors="replace").splitlines()):
        thread, _, call = line.partition(" ")
        call = call.strip()
        if "pwrite64" in call and "ingest.db-wal>" in call:
            for text in re.findall(r"[A-Za-z]{24}", call):
                written.setdefault(text, number)
        elif call.startswith(("fdatasync(", "fsync(")) and "ingest.db-wal>" in call:
            begun[thread] = number
            if "<unfinished" not in call:
                synced.append((begun.pop(thread), number))
        elif re.match(r"<\.\.\. (fdatasync|fsync) resumed>.*= 0$", call) and thread in begun:
            synced.append((begun.pop(thread), number))
        elif "write(1<" in call and (found := re.search(r"part-\d \d+ ([A-Za-z]{24})", call)):
            acknowledged[found[1]] = number
    assert len(acknowledged) == 48
    for text, told in acknowledged.items():
        assert any(written[text] < start and end < told for start, end in synced), text


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own at `folder`; skips the test where none may be mounted."""
    if shutil.which("mount") is None:
        pytest.skip("no file system may be mounted here: there is no mount")
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def append_until_full(log: Log, acknowledged: list[bytes]) -> None:
    random_ = random.Random(7)
    for _ in range(100_000):
        payload = random_.randbytes(50_000)
        log.append("intake", entry(payload))
        acknowledged.append(payload)


def test_a_log_that_fills_its_disk_goes_on_after_a_trim(tmp_path: Path) -> None:
    """The log stops before the disk is full, so that it can forget without anybody else making room."""
    with mounted(tmp_path / "disk", "size=160m") as disk, Log(disk / "ingest.db") as log:
        acknowledged: list[bytes] = []
        with pytest.raises(LogFull, match="bytes free") as caught:
            append_until_full(log, acknowledged)
        assert caught.value.retryable
        assert shutil.disk_usage(disk).free > 40 << 20
        assert [e.payload for e in log.read("intake", after=0, max_bytes=1 << 30)] == acknowledged
        log.trim("intake", len(acknowledged))
        wait_for(lambda: log.stored_bytes == 0)
        wait_for(lambda: shutil.disk_usage(disk).free > 64 << 20)
        assert log.append("intake", entry(b"again")) == len(acknowledged) + 1


def test_a_disk_that_others_filled_is_refused_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """No byte left on the disk: appends say LogFull, all acknowledged stays readable; with room again it goes on."""
    with mounted(tmp_path / "disk", "size=12m") as disk:
        path = disk / "ingest.db"
        acknowledged: list[bytes] = []
        with Log(path, min_free_bytes=0) as log:
            log.append("intake", entry(b"first"))
            acknowledged.append(b"first")
            (disk / "filler").write_bytes(bytes(8 << 20))
            with pytest.raises(LogFull, match=r"the disk under the log (is full|has less than)") as caught:
                append_until_full(log, acknowledged)
            assert caught.value.retryable
            assert len(acknowledged) > 20
            assert [e.payload for e in log.read("intake", after=0, max_bytes=1 << 30)] == acknowledged
            log.trim("intake", 1)
            (disk / "filler").unlink()
            assert log.append("intake", entry(b"again")) == len(acknowledged) + 1
        assert [*entries_of(path).values()] == [*acknowledged[1:], b"again"]


def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    """A disk that is mounted read-only: the log does not open, and the error says the path and what is expected."""
    with mounted(tmp_path / "disk", "size=1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(LogError, match=r"ingest\.db: cannot lock the log: Read-only file system\n  hint: expected"):
            Log(disk / "ingest.db")


def test_a_disk_that_turns_read_only_refuses_and_keeps(tmp_path: Path) -> None:
    """A file that may no longer be written while the log is open: appends fail, what was acknowledged can be read."""
    with mounted(tmp_path / "disk", "size=8m") as disk:
        path = disk / "ingest.db"
        with Log(path, min_free_bytes=0) as log:
            log.append("intake", entry(b"kept"))
            log._file._writer.execute("PRAGMA query_only=1")  # a remount is refused while files are open for writing
            with pytest.raises(LogError, match="cannot write the log"):
                log.append("intake", entry(b"refused"))
            assert [e.payload for e in log.read("intake", after=0)] == [b"kept"]
        assert entries_of(path) == {("intake", 1): b"kept"}


def _write(path: Path, sizes: list[int]) -> list[bytes]:
    random_ = random.Random(7)
    payloads = [random_.randbytes(size) for size in sizes]
    with Log(path, durability=Durability.OS, min_free_bytes=0) as log:
        for payload in payloads:
            log.append("intake", entry(payload))
    return payloads


def outcome(path: Path, payloads: list[bytes]) -> str:
    """Read a log that may be damaged; whatever is read must be right, and whatever is not must be told."""
    losses: list[Loss] = []
    try:
        with Log(path, on_loss=losses.extend, min_free_bytes=0) as log:
            held = {e.position: e.payload for e in log.read("intake", after=0, max_bytes=1 << 30)}
            assert log.counters.damaged_entries == len(losses)
    except LogError as error:
        return str(error).removeprefix(f"{path}: ")
    assert {position: payloads[position - 1] for position in held} == held
    lost = {loss.position for loss in losses}
    assert sorted([*lost, *held]) == list(range(1, len(payloads) + 1))
    return f"{len(lost)} damaged"


DAMAGED = (
    "the log is damaged: database disk image is malformed\n  hint: move it away with the files of the same name beside "
    "it, telflow starts a new one; what it still holds can be read with `telflow log salvage`"
)


@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"telflow"])
@pytest.mark.parametrize("last", [20, 60_000])
def test_a_damaged_last_page_never_gives_wrong_data(tmp_path: Path, fill: bytes, last: int) -> None:
    """The last page of the database is overwritten: its entry is told as damaged, or the file is, with a hint."""
    path = tmp_path / "ingest.db"
    payloads = _write(path, [60_000] * 8 + [last] * 3)
    page = 16 << 10
    with path.open("r+b") as file:
        file.seek(-page, os.SEEK_END)
        file.write((fill * page)[:page])
    assert outcome(path, payloads) in {"1 damaged", DAMAGED}


def test_any_damaged_page_never_gives_wrong_data(tmp_path: Path) -> None:
    """Whichever page is damaged: no entry is read as something else, and none is left out without a word."""
    whole = tmp_path / "whole.db"
    payloads = _write(whole, random.Random(7).choices([20, 3000, 60_000], k=25))
    path = tmp_path / "ingest.db"
    outcomes = set()
    for number in range(whole.stat().st_size >> 14):
        shutil.copy(whole, path)
        with path.open("r+b") as file:
            file.seek(number << 14)
            file.write(random.Random(number).randbytes(16 << 10))
        outcomes.add(outcome(path, payloads))
    not_one = "the log is damaged: file is not a database" + DAMAGED.partition("malformed")[2]
    assert outcomes == {"1 damaged", DAMAGED, not_one}


def test_a_torn_wal_loses_only_what_was_not_acknowledged(tmp_path: Path) -> None:
    """The WAL ends in the middle of a transaction, after a power cut: all before it is there, the log goes on."""
    path = tmp_path / "ingest.db"
    with Log(path, min_free_bytes=0) as log:
        for n in range(10):
            log.append("intake", entry(b"%d" % n))
        wal = path.with_name("ingest.db-wal")
        before = wal.stat().st_size
        log.append("intake", entry(random.Random(7).randbytes(100_000)))
        assert wal.stat().st_size > before
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for each in (path, wal):
            shutil.copy(each, crashed)
    with (crashed / "ingest.db-wal").open("r+b") as file:
        file.truncate(before + 30_000)
    held = entries_of(crashed / "ingest.db")
    assert [*held.values()] == [b"%d" % n for n in range(10)]
    with Log(crashed / "ingest.db", min_free_bytes=0) as log:
        assert log.append("intake", entry(b"next")) == 11


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_failed_sync_ends_acceptance_until_a_restart(tmp_path: Path) -> None:
    """Once a sync has failed nobody knows what the disk holds: nothing more is acknowledged, and the error says why."""
    path = tmp_path / "ingest.db"
    # Every sync from the twentieth on fails as a broken disk would make it fail.
    inject = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=20+"]
    command = ["strace", "-f", "-o", str(tmp_path / "trace"), *inject, *WRITER, str(path), "fsync", "1", "60"]
    done = subprocess.run(command, capture_output=True, env=environment(), text=True, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip("this system does not allow to trace processes")
    told = [(part, int(position), text.encode()) for part, position, text in ACK.findall(done.stdout)]
    lines = done.stdout.splitlines()
    failed = next(number for number, line in enumerate(lines) if line.startswith("failed"))
    assert "the disk reports an error" in done.stdout
    assert not any(ACK.match(f"{line}\n") for line in lines[failed:])
    assert 10 < len(told) < 25
    held = entries_of(path)
    assert all(held[part, position] == text for part, position, text in told)
