"""What is reported as committed, against flows that run, are killed and resume."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from telflow.delivery.committed import CommittedStates
from telflow.errors import TelflowError

ROOT = Path(__file__).parents[3]
PARTS = ("a", "b", "c")
STEP = "counting.count"


def run_and_kill(folder: Path, workers: int, seconds: float) -> tuple[list[list[str]], list[dict[str, int]]]:
    """Run the flow for a while and kill it; return what it said and what was committed meanwhile."""
    command = [sys.executable, "-P", "-m", "tests.committing_flow", str(folder), str(workers), "20"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seen: list[dict[str, int]] = []
    with (
        CommittedStates(folder) as committed,
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process,
    ):
        assert process.stdout is not None
        said = os.read(process.stdout.fileno(), 1 << 16)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            seen.append({part: committed.get(STEP, part) or 0 for part in PARTS})
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read()
    return [line.split() for line in said.decode().splitlines()], seen


@pytest.mark.parametrize("workers", [1, 2])
def test_reports_what_a_resume_starts_from(tmp_path: Path, workers: int) -> None:
    """Kill and resume, again and again: what was reported is never ahead of the resume, and at rest it is the same."""
    random_ = random.Random(workers)
    at_rest = dict.fromkeys(PARTS, 0)
    with CommittedStates(tmp_path) as committed:
        for _ in range(3):
            said, seen = run_and_kill(tmp_path, workers, random_.uniform(0.3, 0.6))
            resumed = {words[1]: int(words[2]) for words in said if words[0] == "resume"}
            assert resumed == at_rest
            for before, after in zip([at_rest, *seen], seen, strict=False):
                assert all(before[part] <= after[part] for part in PARTS)
            at_rest = {part: committed.get(STEP, part) or 0 for part in PARTS}
            assert all(seen[-1][part] <= at_rest[part] for part in PARTS)
            assert all(at_rest[part] > resumed[part] for part in PARTS)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_source_that_is_asked_again_has_its_last_snapshot_committed(tmp_path: Path, workers: int) -> None:
    """What the trimming of the ingest log relies on: an epoch does not begin before the one before it is committed."""
    said, _ = run_and_kill(tmp_path, workers, 1.5)
    asked = [words[2:] for words in said if words[0] == "next" and len(words) == 4]
    assert len(asked) > 10
    assert all(int(committed) >= int(snapshotted) for snapshotted, committed in asked)


def test_nothing_is_committed_before_the_first_run(tmp_path: Path) -> None:
    """A folder without recovery files, or none at all: no state and no epoch."""
    for folder in (tmp_path, tmp_path / "missing"):
        with CommittedStates(folder) as committed:
            assert committed.get(STEP, "a") is None
            assert committed.resume_epoch() is None


def test_a_killed_reader_is_started_again(tmp_path: Path) -> None:
    """The reading process is replaceable: the next question finds another one."""
    with CommittedStates(tmp_path) as committed:
        assert committed.resume_epoch() is None
        assert committed._reader is not None
        committed._reader.kill()
        committed._reader.wait()
        assert committed.resume_epoch() is None


def test_files_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    """Something else in the folder: an error that names it, not a state."""
    (tmp_path / "part-0.sqlite3").write_bytes(b"no database" * 100)
    with CommittedStates(tmp_path) as committed, pytest.raises(TelflowError, match="recovery files cannot be read"):
        committed.get(STEP, "a")
