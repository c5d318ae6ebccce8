"""Flows that are killed at random moments until they may come to their end, and the source they read from."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from typing_extensions import override

from telflow.batch import TelemetryBatch
from telflow.packages import ROOT

__all__ = ["ALL", "BATCHES", "ROWS", "NumberedSource", "random_of_kills", "run_and_kill", "run_once"]

ROWS, BATCHES = 20, 60
ALL = range(2 * ROWS * BATCHES)
"""The numbers that a `NumberedSource` brings."""


class NumberedSource(FixedPartitionedSource[TelemetryBatch, int]):
    """Two partitions with half of the numbers each, in order, resumable."""

    def __init__(self, batch_of: Callable[[range], TelemetryBatch], *, pause_s: float = 0.0) -> None:
        """Describe it.

        Args:
            batch_of: Makes records with these numbers.
            pause_s: Time before each batch.
        """
        self._batch_of = batch_of
        self._pause_s = pause_s

    @override
    def list_parts(self) -> list[str]:
        return ["0", "1"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Part:
        return _Part(self._batch_of, self._pause_s, int(for_part) * ROWS * BATCHES, resume_state or 0)


class _Part(StatefulSourcePartition[TelemetryBatch, int]):
    def __init__(self, batch_of: Callable[[range], TelemetryBatch], pause_s: float, first: int, at: int) -> None:
        self._batch_of = batch_of
        self._pause_s = pause_s
        self._first = first
        self._at = at

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        if self._at == BATCHES:
            raise StopIteration
        start = self._first + self._at * ROWS
        self._at += 1
        time.sleep(self._pause_s)
        return [self._batch_of(range(start, start + ROWS))]

    @override
    def snapshot(self) -> int:
        return self._at


def random_of_kills() -> random.Random:
    """What decides on the moments; TELFLOW_KILL_SEED chooses others."""
    return random.Random(int(os.environ.get("TELFLOW_KILL_SEED", "7")))


def run_once(folder: Path, source: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start a Python program, whose text is `source`, with arguments."""
    script = folder / "flow.py"
    script.write_text(textwrap.dedent(source))
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)


def run_and_kill(
    folder: Path,
    source: str,
    *arguments: object,
    after_s: tuple[float, float],
    kills: int = 4,
    ends: Sequence[int] = (0,),
    let_live: Callable[[], object] = lambda: None,
) -> int:
    """Run a program, kill it at random moments, and run it again, until it comes to its end.

    Args:
        folder: For the program's file.
        source: Its text. It says "ready" on a line of its own when killing it makes sense.
        arguments: Its arguments.
        after_s: Between these times after that it is killed.
        kills: So often it is, unless it is quicker; TELFLOW_KILLS says otherwise.
        ends: Its exit codes that are an end.
        let_live: Called when it is not to be killed any more.

    Returns:
        The exit code it ended with.
    """
    random_ = random_of_kills()
    killed, wanted = 0, int(os.environ.get("TELFLOW_KILLS", str(kills)))
    while True:
        with run_once(folder, source, *arguments) as flow:
            assert flow.stdout is not None
            assert flow.stdout.readline() == b"ready\n"
            if killed < wanted:
                time.sleep(random_.uniform(*after_s))
                flow.send_signal(signal.SIGKILL)
                killed += flow.wait() == -signal.SIGKILL
            else:
                let_live()
                assert flow.wait() in ends
            code = flow.wait()
        if code in ends:
            assert killed
            return code
