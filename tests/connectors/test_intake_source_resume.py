"""The intake's source over a durable intake: flows that are killed and resume."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from connectors.intake_source import IntakeSource
from telflow.delivery.log import Log
from telflow.delivery.log_intake import LogIntake
from tests.durable_flow import request

ROOT = Path(__file__).parents[2]


def test_a_killed_flow_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    """SIGKILL at random moments: every acknowledged number comes out, each once, and the flow's counts are exact."""
    random_ = random.Random(7)
    acknowledged: set[int] = set()
    first = 1
    kills = int(os.environ.get("TELFLOW_KILLS", "4"))
    for run in range(kills + 1):
        last = run == kills
        count = 50 if last else 1_000_000
        command = [sys.executable, "-P", "-m", "tests.durable_flow", str(tmp_path), str(first), str(count)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            told = os.read(process.stdout.fileno(), 1 << 16)
            if not last:
                time.sleep(random_.uniform(0, 0.4))
                process.send_signal(signal.SIGKILL)
            told += process.stdout.read()
        assert not last or process.returncode == 0
        new = set(map(int, told.decode().rpartition("\n")[0].split()))
        assert new
        acknowledged |= new
        first = max(new) + 1000  # some more may have been accepted without a word
    written = [tuple(map(int, line.split())) for line in (tmp_path / "output").read_text().splitlines()]
    numbers = [number for number, _, _ in written]
    assert len(set(numbers)) == len(numbers)
    assert acknowledged <= set(numbers)
    for key in range(4):
        of_key = [line for line in written if line[0] % 4 == key]
        total = 0
        for place, (number, count, sum_) in enumerate(of_key, start=1):
            total += number
            assert (count, sum_) == (place, total)


def test_a_committed_epoch_is_trimmed_and_an_open_one_is_not(tmp_path: Path) -> None:
    """The log keeps what a resume could still ask for: it is trimmed when the source is asked after its snapshot."""
    with Log(tmp_path / "ingest.db", min_free_bytes=0) as log:
        intake = LogIntake(log)
        part = IntakeSource(intake, wait_s=0).build_part("in", "intake", None)
        for number in range(3):
            intake.accept(request(number))
        assert sum(batch.num_rows for batch in part.next_batch()) == 3
        assert len(log.read("intake", after=0)) == 3
        assert part.snapshot() == 3
        assert len(log.read("intake", after=0)) == 3
        intake.accept(request(4))
        part.next_batch()
        assert [entry.position for entry in log.read("intake", after=0)] == [4]
