"""coalesce: nothing lost or repeated, sizes and delays within their limits; on a cluster and after a crash too."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators import Coalescer, CoalesceSettings, coalesce
from operators.coalesce import _CoalesceLogic
from telflow import Signal, TelemetryBatch
from telflow.errors import BatchError
from tests.batches import spans
from tests.cluster import Cluster
from tests.strategies import thorough

SECOND = 10**9
ROWS = spans([{"n": i} for i in range(120)], resource={"service.name": "shop"}, tenant="acme")
LOG_BATCH = TelemetryBatch.empty(Signal.LOGS)


def numbered(start: int, count: int) -> TelemetryBatch:
    return ROWS.slice(start, count)


def numbers(batches: list[TelemetryBatch]) -> list[int]:
    return [n for batch in batches for n in batch.attribute("n").to_pylist()]


@thorough(25)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=8), st.integers(1, 25))
def test_all_records_come_out_once_in_order_and_in_time(steps: list[tuple[int, int]], max_rows: int) -> None:
    """For any input sizes and pauses: the same records in order, no batch too large, none waiting beyond its time."""
    coalescer = Coalescer(CoalesceSettings(max_rows=max_rows, timeout=timedelta(seconds=2)))
    out: list[TelemetryBatch] = []
    now, sent = 0, 0
    arrived: dict[int, int] = {}
    for count, pause in steps:
        now += pause * SECOND
        due = coalescer.due(now)
        out += due
        assert all(now - arrived[n] <= 5 * SECOND for n in numbers(due))
        batch = numbered(sent % 60, count)
        full = coalescer.add(batch, now)
        sizes = [ready.num_rows for ready in full]
        assert all(one + other >= max_rows for one, other in itertools.pairwise(sizes))
        out += full
        arrived |= dict.fromkeys(numbers([batch]), now)
        sent += count
        deadline = coalescer.deadline_unix_nano
        assert deadline is None or now < deadline <= now + 2 * SECOND
    out += coalescer.flush()
    assert coalescer.deadline_unix_nano is None
    assert all(batch.num_rows <= max_rows for batch in out)
    wanted, sent = [], 0
    for count, _ in steps:
        wanted += numbers([numbered(sent % 60, count)])
        sent += count
    assert numbers(out) == wanted


def test_bytes_are_a_limit_too() -> None:
    """What reaches the byte limit leaves at once, whatever its number of records."""
    coalescer = Coalescer(CoalesceSettings(max_bytes=2 * numbered(0, 10).num_bytes))
    sizes = [len(out) for i in range(9) for out in coalescer.add(numbered(10 * i, 10), 0)]
    assert sizes
    assert all(10 <= size <= 30 for size in sizes)


def test_signals_are_kept_apart() -> None:
    """Spans do not fill up a batch of metrics, and a batch without records leaves no trace."""
    coalescer = Coalescer(CoalesceSettings(max_rows=20))
    assert coalescer.add(LOG_BATCH, 0) == []
    assert coalescer.deadline_unix_nano is None
    assert coalescer.add(numbered(0, 9), 0) == []
    assert list(coalescer.waiting()) == [Signal.TRACES]


def test_unknown_fields_are_counted_once() -> None:
    """Splitting a batch does not multiply what was counted while decoding it."""
    batch = TelemetryBatch(ROWS.signal, ROWS.records, ROWS.resources, ROWS.scopes, 5)
    coalescer = Coalescer(CoalesceSettings(max_rows=50))
    out = coalescer.add(batch, 0) + coalescer.flush()
    assert [b.num_rows for b in out] == [50, 50, 20]
    assert sum(b.unknown_fields for b in out) == 5


@pytest.mark.parametrize("max_rows", [120, 240])
def test_a_large_batch_passes_uncopied(max_rows: int) -> None:
    """What is half as large as wanted does not wait and is not copied; what waited before it leaves before it."""
    coalescer = Coalescer(CoalesceSettings(max_rows=max_rows))
    assert coalescer.add(ROWS, 0)[0].records is ROWS.records
    waiting = numbered(0, 10)
    assert coalescer.add(waiting, 0) == []
    out = coalescer.add(ROWS, 0) + coalescer.add(ROWS, 0)
    assert numbers(out) == numbers([waiting, ROWS, ROWS])
    assert coalescer.deadline_unix_nano is None


def test_waiting_batches_survive_a_snapshot() -> None:
    """What a key holds is plain data; a new logic built from it emits the same records."""
    logic = _CoalesceLogic(CoalesceSettings(max_rows=50), lambda: 0, None)
    assert logic.on_batch([numbered(0, 20), numbered(20, 7)]) == ([], False)
    state = logic.snapshot()
    assert state["version"] == 1
    assert all(type(data) is bytes for data in state["batches"])
    logic.on_batch([numbered(27, 30)])
    again = _CoalesceLogic(CoalesceSettings(max_rows=50), lambda: 0, state)
    assert numbers(list(again.on_eof()[0])) == list(range(27))


def test_limits_may_be_smaller_after_a_restart() -> None:
    """What was kept under larger limits leaves at once with the next batch, or when it is due."""
    logic = _CoalesceLogic(CoalesceSettings(max_rows=100), lambda: 0, None)
    logic.on_batch([numbered(0, 30)])
    again = _CoalesceLogic(CoalesceSettings(max_rows=10), lambda: 0, logic.snapshot())
    out, _ = again.on_batch([numbered(30, 10)])
    assert [batch.num_rows for batch in out] == [30, 10]
    due = _CoalesceLogic(CoalesceSettings(max_rows=10), lambda: 0, logic.snapshot())
    assert numbers(list(due.on_notify()[0])) == list(range(30))


def test_state_of_another_version_is_refused() -> None:
    """It says what to do, instead of losing what it cannot read."""
    with pytest.raises(BatchError, match="expected recovered state of version 1, got 2: drain the flow"):
        _CoalesceLogic(CoalesceSettings(), lambda: 0, {"version": 2})


def test_settings_are_checked() -> None:
    """Limits of nothing and unknown keys are refused; durations may be text."""
    for wrong in ({"max_rows": 0}, {"max_bytes": 0}, {"timeout": "0s"}, {"timeout": "-1s"}, {"rows": 1}):
        with pytest.raises(ValidationError):
            CoalesceSettings.model_validate(wrong)
    assert CoalesceSettings.model_validate({"timeout": "1s"}).timeout == timedelta(seconds=1)


# In a flow


def flow_of(items: list[Any], out: list[Any], settings: CoalesceSettings) -> Dataflow:
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource(items))
    keyed = op.key_on("key", up, lambda batch: "odd" if batch.attribute("n")[0].as_py() % 2 else "even")
    op.output("out", coalesce("gather", keyed, settings), TestingSink(out))
    return flow


LONG = CoalesceSettings(max_rows=10, timeout=timedelta(hours=1))


def test_keys_are_kept_apart_and_the_end_flushes() -> None:
    """Each key fills its own batches; the end of the input passes on the rest."""
    out: list[tuple[str, TelemetryBatch]] = []
    run_main(flow_of([numbered(i, 4) for i in range(5)], out, LONG))
    found = [(key, numbers([batch])) for key, batch in out]
    assert sorted(found) == [
        ("even", [0, 1, 2, 3, 2, 3, 4, 5]),
        ("even", [4, 5, 6, 7]),
        ("odd", [1, 2, 3, 4, 3, 4, 5, 6]),
    ]


def test_time_is_kept_without_further_input() -> None:
    """A record that waits leaves on its timeout although nothing follows and the input has not ended."""
    out: list[tuple[str, TelemetryBatch]] = []
    seen: list[int] = []

    def watch(_: Any) -> str:
        seen.append(len(out))
        return "k"

    flow = Dataflow("flow")
    pause = TestingSource.PAUSE(timedelta(seconds=1))
    items: list[Any] = [numbered(0, 1), pause, numbered(1, 1)]
    up = op.input("in", flow, TestingSource(items))
    keyed = op.key_on("key", up, watch)
    op.output("out", coalesce("gather", keyed, CoalesceSettings(timeout=timedelta(milliseconds=50))), TestingSink(out))
    run_main(flow)
    assert seen == [0, 1]
    assert numbers([batch for _, batch in out]) == [0, 1]


def test_a_drained_and_continued_flow_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """With recovery, over an orderly stop in the middle, a crash and a resume, every record comes out exactly once."""
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(str(tmp_path))
    out: list[tuple[str, TelemetryBatch]] = []
    items: list[Any] = [numbered(2 * i, 2) for i in range(12)]
    items[5:5] = [TestingSource.EOF()]
    items[9:9] = [TestingSource.ABORT()]
    flow = flow_of(items, out, LONG)
    run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    assert numbers([batch for _, batch in out]) == list(range(10))
    run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    assert numbers([batch for _, batch in out]) == list(range(24))


CLUSTER_FLOW = '''
import os, time
from datetime import timedelta
from pathlib import Path
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from operators import CoalesceSettings, coalesce
from tests.batches import spans

COUNT, FIRST_RUN = 40, "FIRST_RUN" in os.environ
OUT = Path(os.environ["OUT"])

class Part(StatefulSourcePartition):
    def __init__(self, name, position):
        self.name, self.position = name, position or 0
        print("position", self.position, flush=True)
    def next_batch(self):
        if self.position == COUNT:
            raise StopIteration
        if FIRST_RUN:
            time.sleep(0.02)
        number = self.position
        self.position += 1
        return [(f"key-{number % 3}", spans([{"id": f"{self.name}-{number}-{i}"} for i in range(7)]))]
    def snapshot(self):
        return self.position

class Source(FixedPartitionedSource):
    def list_parts(self):
        return ["p0", "p1"]
    def build_part(self, step_id, for_part, resume_state):
        return Part(for_part, resume_state)

class Out(StatefulSinkPartition):
    """Truncates to its snapshot on resume, as an exactly-once sink does."""
    def __init__(self, name, size):
        self.file = open(OUT / name, "a+")
        self.file.truncate(size or 0)
    def write_batch(self, batches):
        for batch in batches:
            self.file.write(" ".join(batch.attribute("id").to_pylist()) + chr(10))
    def snapshot(self):
        self.file.flush()
        os.fsync(self.file.fileno())
        return os.fstat(self.file.fileno()).st_size
    def close(self):
        self.file.close()

class Sink(FixedPartitionedSink):
    def list_parts(self):
        return ["o0", "o1"]
    def build_part(self, step_id, for_part, resume_state):
        return Out(for_part, resume_state)

flow = Dataflow("crash")
gathered = coalesce("gather", op.input("in", flow, Source()), CoalesceSettings(max_rows=50, timeout=timedelta(hours=1)))
op.output("out", gathered, Sink())
'''


def test_a_killed_cluster_resumes_exactly_once(tmp_path: Path) -> None:
    """Two processes die by SIGKILL in mid-flow; resumed, every record is written once, in full batches but the last."""
    flow, out, recovery = tmp_path / "crash_flow.py", tmp_path / "out", tmp_path / "recovery"
    flow.write_text(CLUSTER_FLOW)
    out.mkdir()
    recovery.mkdir()
    init_db_dir(recovery, 2)
    arguments = ["-r", str(recovery), "-b", "0"]
    with Cluster(flow, 2, {"OUT": str(out), "FIRST_RUN": "1"}, [*arguments, "-s", "0"]) as cluster:
        cluster.wait_until(lambda: sum(f.stat().st_size for f in out.iterdir()) > 1000)
        cluster.kill()
    with Cluster(flow, 2, {"OUT": str(out)}, [*arguments, "-s", "1"]) as cluster:
        said = "".join(cluster.wait())
    assert any(int(line.split()[1]) > 0 for line in said.splitlines() if line.startswith("position"))
    lines = [line.split() for f in sorted(out.iterdir()) for line in f.read_text().splitlines()]
    found = [record for line in lines for record in line]
    wanted = {f"p{p}-{number}-{i}" for p in range(2) for number in range(40) for i in range(7)}
    assert len(found) == len(set(found)) == len(wanted)
    assert set(found) == wanted
    assert sorted(len(line) for line in lines)[3:] == [49] * (len(lines) - 3)  # seven whole inputs
