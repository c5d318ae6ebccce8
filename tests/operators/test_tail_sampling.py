"""tail_sampling, the step of a dataflow: killed or rescaled with traces open, no trace is kept half or lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from operators.tail_sampling import TailSamplingSettings, split_by_trace, split_traced, tail_sampling
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.delivery.committed_reader import committed
from telflow.errors import ConfigError
from telflow.schema import Signal
from tests.cluster import Cluster
from tests.sampling import Row, kept_rows, rows_batch
from tests.spans import EPOCH

POLICIES = [{"type": "status"}, {"type": "probabilistic", "percentage": 25}]


def options(**others: Any) -> TailSamplingSettings:
    return TailSamplingSettings.model_validate(
        {"policies": POLICIES, "decision_wait": "5s", "shards": 5, "emit_on_eof": True} | others
    )


def rows_of(traces: int, seed: int = 3) -> list[Row]:
    """Six spans of each trace, mixed."""
    rng = random.Random(seed)
    rows = [Row(trace=n % traces + 1, span=n, error=rng.random() < 0.05) for n in range(6 * traces)]
    rng.shuffle(rows)
    return rows


def run(batches: Sequence[Any], settings: TailSamplingSettings, workers: int = 1, **others: Any) -> tuple[Any, Ledger]:
    out: list[TelemetryBatch] = []
    ledger = Ledger()
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource(list(batches)))
    op.output(
        "out", tail_sampling("sample", up, settings, clock=lambda: EPOCH, ledger=ledger, **others), TestingSink(out)
    )
    if workers == 1:
        run_main(flow)
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)
    return out, ledger


@pytest.mark.parametrize("workers", [1, 3])
def test_traces_are_kept_whole_or_not_at_all(workers: int) -> None:
    """Spans of a trace in many batches and on several workers get one decision, and every span is accounted for."""
    rows = rows_of(60)
    out, ledger = run([rows_batch(rows[n : n + 25]) for n in range(0, len(rows), 25)], options(), workers)
    kept = kept_rows(out)
    wanted = {row.trace for row in rows if row.error}
    for trace in range(1, 61):
        mine = {row.span in kept for row in rows if row.trace == trace}
        assert len(mine) == 1
        assert trace not in wanted or mine == {True}
    dropped = {(r.component, r.reason): r.count for r in ledger.rows() if r.outcome is Outcome.DROPPED}
    assert dropped == {("test.sample", "not sampled"): len(rows) - len(kept)}
    assert 0 < len(kept) < len(rows)


def test_what_has_no_trace_passes() -> None:
    """Other signals and spans without a trace id come out as they went in."""
    batch = rows_batch([Row(trace=n, span=n) for n in (1, 2, 3)])
    ids = batch.records["trace_id"].to_pylist()
    batch = batch.with_column("trace_id", pa.array([None, ids[1], None], pa.binary(16)))
    out, ledger = run([TelemetryBatch.empty(Signal.LOGS), batch], options(policies=[{"type": "status"}]))
    assert sorted(kept_rows(out)) == [1, 3]
    assert [row.count for row in ledger.rows() if row.outcome is Outcome.DROPPED] == [1]
    nothing, others = split_traced(batch.filter(np.array([True, False, False])))
    assert nothing is None
    assert others is not None


def test_a_function_sees_complete_traces() -> None:
    """It is asked with all spans of each trace, one after the other; a mask of traces or of spans will do."""
    rows = rows_of(20)
    seen: list[TelemetryBatch] = []

    def by_trace(batch: TelemetryBatch) -> Any:
        seen.append(batch)
        ids = batch.records["trace_id"]
        traces = ids.take(pa.array(range(0, len(ids), 6)))
        return pc.equal(pc.binary_slice(traces.cast(pa.binary()), 7, 8), pa.scalar(b"\x04", pa.binary()))

    def by_span(batch: TelemetryBatch) -> Any:
        return batch.records["span_id"].to_numpy(zero_copy_only=False) == (7).to_bytes(8, "big")

    policies = [{"type": "function", "name": "four"}, {"type": "function", "name": "span seven"}]
    batches = [rows_batch(rows[n : n + 11]) for n in range(0, len(rows), 11)]
    for workers in (1, 2):
        seen.clear()
        out, _ = run(batches, options(policies=policies), workers, functions={"four": by_trace, "span seven": by_span})
        assert set(kept_rows(out)) == {row.span for row in rows if row.trace in {4, 8}}
        counts = [n for batch in seen for n in pc.value_counts(batch.records["trace_id"]).field("counts").to_pylist()]
        assert counts == [6] * 20


@pytest.mark.parametrize("result", [None, np.ones(2, bool), np.ones(6), "error"])
def test_a_function_that_fails_loses_nothing(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Its traces are kept, and the log says where to look."""

    def broken(_: TelemetryBatch) -> Any:
        if isinstance(result, str):
            raise RuntimeError(result)  # noqa: TRY004 - any error
        return result

    settings = options(policies=[{"type": "function", "name": "broken"}], shards=1)
    out, _ = run([rows_batch(rows_of(6))], settings, functions={"broken": broken})
    assert len(kept_rows(out)) == 36
    assert "the traces that a function failed on are kept" in caplog.text
    assert "broken" in caplog.text


def test_a_function_that_is_not_given() -> None:
    """Is a mistake of the flow, found when it is built."""
    with pytest.raises(ConfigError, match="no function 'slwo' is given; did you mean 'slow'"):
        run([], options(policies=[{"type": "function", "name": "slwo"}]), functions={"slow": len})
    with pytest.raises(ConfigError, match="in the argument functions"):
        run([], options(policies=[{"type": "function", "name": "slow"}]))


def test_split_by_trace_is_the_same_everywhere() -> None:
    """All spans of a trace go to one part; a part of its own shares no memory of others' resources."""
    rows = rows_of(50)
    parts = split_by_trace(rows_batch(rows), 4)
    assert sum(batch.num_rows for _, batch in parts) == len(rows)
    where: dict[bytes, set[int]] = {}
    for number, batch in parts:
        for trace in batch.records["trace_id"].to_pylist():
            where.setdefault(trace, set()).add(number)
    assert all(len(numbers) == 1 for numbers in where.values())
    (only,) = split_by_trace(parts[0][1], 4)
    assert only[0] == parts[0][0]


FLOW = '''
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from operators.tail_sampling import tail_sampling
from telflow.accounting import Ledger
from tests.operators.test_tail_sampling import FUNCTIONS, cluster_options, cluster_rows
from tests.sampling import rows_batch

OUT, STOP = Path(os.environ["OUT"]), int(os.environ["STOP"])
PACE = float(os.environ.get("PACE", "0"))

class Partition(StatefulSourcePartition):
    """Spans in small batches; past STOP the input ends, for now."""
    def __init__(self, part, resume):
        self.rows = cluster_rows(int(part))
        self.at = resume or 0
    def next_batch(self):
        if self.at >= min(STOP, len(self.rows)):
            raise StopIteration
        batch = self.rows[self.at : self.at + 20]
        self.at += 20
        return [rows_batch(batch)]
    def next_awake(self):
        return datetime.now(UTC) + timedelta(seconds=PACE) if PACE else None
    def snapshot(self):
        return self.at

class Source(FixedPartitionedSource):
    def list_parts(self):
        return ["0", "1", "2"]
    def build_part(self, step_id, for_part, resume_state):
        return Partition(for_part, resume_state)

class Writer(StatefulSinkPartition):
    """Spans of an aborted epoch are taken back, as a transactional sink does."""
    def __init__(self, part, resume):
        self.file = open(OUT / part, "a+b")
        self.file.truncate(resume or 0)
    def write_batch(self, values):
        for batch in values:
            for span in batch.records["span_id"].to_pylist():
                self.file.write(b"%d\\n" % int.from_bytes(span, "big"))
        self.file.flush()
    def snapshot(self):
        return self.file.seek(0, 2)

class Sink(FixedPartitionedSink):
    def list_parts(self):
        return ["a", "b"]
    def part_fn(self, item_key):
        return int(item_key)
    def build_part(self, step_id, for_part, resume_state):
        return Writer(for_part, resume_state)

flow = Dataflow("sampling")
up = op.redistribute("spread", op.input("in", flow, Source()))
settings = cluster_options(os.environ["MODE"], last=STOP > 10_000)
kept = tail_sampling("sample", up, settings, FUNCTIONS if os.environ["MODE"] == "function" else None, ledger=Ledger())
op.output("out", op.key_on("key", kept, lambda batch: str(batch.num_rows % 2)), Sink())
'''


def cluster_rows(part: int) -> list[Row]:
    """The spans of 300 traces, two of each trace in each of three partitions of the source, in another order each."""
    rows = [row for row in rows_of(300) if row.span % 3 == part]
    random.Random(part).shuffle(rows)
    return rows


def cluster_options(mode: str, *, last: bool) -> TailSamplingSettings:
    """No trace is decided before all is there; only the last run decides at the end of the input."""
    policies = [{"type": "function", "name": "errors"}] if mode == "function" else POLICIES
    return options(policies=policies, decision_wait="1h", interval="100ms", emit_on_eof=last)


FUNCTIONS = {"errors": lambda batch: pc.equal(pc.fill_null(batch.records["status_code"], 0), 2)}


@pytest.mark.parametrize("mode", ["policies", "function"])
def test_killed_and_rescaled_with_traces_open(mode: str, tmp_path: Path) -> None:
    """SIGKILL of 2 processes in full run, then 3, then 1: every trace is whole, none is lost, none comes twice."""
    flow_file, out, recovery = tmp_path / "sampling_flow.py", tmp_path / "out", tmp_path / "recovery"
    flow_file.write_text(FLOW)
    out.mkdir()
    recovery.mkdir()
    init_db_dir(recovery, 2)
    arguments = ["-r", str(recovery), "-s", "1", "-b", "0"]
    environment = {"OUT": str(out), "MODE": mode}
    with Cluster(flow_file, 2, environment | {"STOP": "100000", "PACE": "0.3"}, arguments) as cluster:
        cluster.wait_until(lambda: (committed(recovery, "sampling.sample.sample", "0/5")[0] or 0) >= 3)
        cluster.kill()
    with Cluster(flow_file, 3, environment | {"STOP": "400"}, arguments) as cluster:
        cluster.wait()
    with Cluster(flow_file, 1, environment | {"STOP": "100000"}, arguments) as cluster:
        cluster.wait()
    found = [int(line) for name in ("a", "b") for line in (out / name).read_text().split()]
    assert len(found) == len(set(found))
    rows = [row for part in range(3) for row in cluster_rows(part)]
    assert len(rows) == 1800
    undisturbed, _ = run([rows_batch(rows)], cluster_options(mode, last=True), **_given(mode))
    assert set(found) == set(kept_rows(undisturbed))


def _given(mode: str) -> dict[str, Any]:
    return {"functions": FUNCTIONS} if mode == "function" else {}
