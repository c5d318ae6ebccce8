"""A flow whose source counts, for the tests of what the engine has committed; run it as a module.

Arguments: recovery folder, number of workers, milliseconds of an epoch. It prints `resume N` with the state it starts
from, and `next S C` whenever its source is asked after a snapshot: the state it snapshotted last, and what is committed
then.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, cluster_main

from telflow.delivery.committed import CommittedStates

STEP = "counting.count"


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class _Counting(StatefulSourcePartition[int, int]):
    def __init__(self, committed: CommittedStates, part: str, state: int | None) -> None:
        self._committed = committed
        self._part = part
        self._count = state or 0
        self._snapshotted = False
        say("resume", self._part, self._count)

    def next_batch(self) -> list[int]:
        if self._snapshotted:
            self._snapshotted = False
            say("next", self._part, self._count, self._committed.get(STEP, self._part))
        self._count += 1
        time.sleep(0.001)
        return [self._count]

    def snapshot(self) -> int:
        self._snapshotted = True
        return self._count


class _Counters(FixedPartitionedSource[int, int]):
    def __init__(self, recovery_dir: Path) -> None:
        self._committed = CommittedStates(recovery_dir)

    def list_parts(self) -> list[str]:
        return ["a", "b", "c"]

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _Counting:
        assert step_id == STEP
        return _Counting(self._committed, for_part, resume_state)


def main() -> None:
    recovery_dir, workers, epoch_ms = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if not any(recovery_dir.glob("part-*")):
        init_db_dir(recovery_dir, 2)
    flow = Dataflow("counting")
    numbers = op.input("count", flow, _Counters(recovery_dir))
    keyed = op.key_on("key", numbers, lambda number: str(number % 7))
    sums = op.stateful_map("sum", keyed, lambda state, value: ((state or 0) + value, value))
    op.output("out", sums, TestingSink([]))
    cluster_main(
        flow,
        [],
        0,
        worker_count_per_proc=workers,
        epoch_interval=timedelta(milliseconds=epoch_ms),
        recovery_config=RecoveryConfig(recovery_dir),
    )


if __name__ == "__main__":
    main()
