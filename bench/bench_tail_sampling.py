"""tail_sampling against a plain Python dict of traces, on the same spans: equal results, then the times.

60 K spans a second of 10 K traces a second (six spans each, over up to two seconds), 10 attributes a span, wait 10 s:
at least 100 K traces are open from then on, with about 680 bytes of Arrow data a span. Policies: errors, slow traces,
an attribute, and ten of a hundred others. Time is simulated, by 8192-span batches; only steady state is timed, in CPU
seconds of the process, through the whole step in a dataflow of one worker.

The reference gets each span as a ready tuple with just the fields that policies read, and keeps row numbers: reading
attributes, copying spans and engine cost it nothing.

The step once more, with a recovery store on disk and an epoch a second: every span is then saved once at least.
What an epoch saves is measured apart: bytes and CPU milliseconds of what is known of all open traces, and of the
batches that came, or of which spans went, within one interval; against all spans on hold.
"""

from __future__ import annotations

import pickle
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main
from typing_extensions import override

from bench import report
from bench.payloads import RECORDS, traces
from operators.tail_sampling import TailSamplingSettings, tail_sampling
from telflow import codec
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.rows import replace_column
from telflow.sampling import HeldSpans, Predicates, SpanFacts, TailSampler
from telflow.sampling.trace_state import threshold_of
from telflow.schema import Signal

TRACES_PER_S = 10_000
SPANS_PER_TRACE = 6
WARM_UP, TIMED = 95, 100
SECOND = 1_000_000_000
START = 1_750_000_000 * SECOND
BATCH_NANO = RECORDS * SECOND // (TRACES_PER_S * SPANS_PER_TRACE)
SLOW_NANO = 450_000_000
ROUTES = ("/checkout",)
SETTINGS = TailSamplingSettings.model_validate(
    {
        "decision_wait": "10s",
        "emit_on_eof": True,
        "max_traces": 1_000_000,
        "max_bytes": 4 << 30,
        "policies": [
            {"type": "status"},
            {"type": "latency", "threshold": "450ms"},
            {
                "type": "and",
                "policies": [
                    {"type": "string_attribute", "key": "http.route", "values": ROUTES, "source": "span"},
                    {"type": "numeric_attribute", "key": "http.response.status_code", "min_value": 500},
                ],
            },
            {"type": "probabilistic", "percentage": 10},
        ],
    }
)


class Clock:
    """Simulated system time."""

    now = START

    def __call__(self) -> int:
        """Unix nanoseconds."""
        return self.now


def batches(count: int, seed: int = 7) -> Iterator[TelemetryBatch]:
    """Seeded batches: spans of traces that began up to two seconds before, ids random."""
    rng = np.random.default_rng(seed)
    bases = [_quiet(codec.decode(traces(seed=seed + n), Signal.TRACES, tenant="acme")) for n in range(4)]
    total = count * RECORDS // SPANS_PER_TRACE + 1
    ids = rng.integers(0, 256, (total, 16), dtype=np.uint8)
    spread = 2 * TRACES_PER_S
    # Six spans of each trace, the first at once, the others somewhere in the next two seconds.
    arrival = np.repeat(np.arange(total), SPANS_PER_TRACE).astype(np.float64)
    arrival += rng.random(len(arrival)) * spread * (np.arange(len(arrival)) % SPANS_PER_TRACE > 0)
    order = np.argsort(arrival, kind="stable")
    for number in range(count):
        rows = order[number * RECORDS : (number + 1) * RECORDS]
        base = bases[number % len(bases)]
        starts = START + number * BATCH_NANO + rng.integers(0, BATCH_NANO, RECORDS)
        slow = rng.random(RECORDS) < 0.01
        ends = starts + np.where(slow, 600_000_000, rng.integers(1_000_000, 90_000_000, RECORDS))
        columns = {
            "trace_id": _binary(ids[rows // SPANS_PER_TRACE]),
            "span_id": _binary(rows.astype(np.uint64).view(np.uint8).reshape(-1, 8)),
            # All begin together, so that a trace takes as long as its slowest span.
            "start_time_unix_nano": pa.array(np.full(RECORDS, START), pa.uint64()),
            "end_time_unix_nano": pa.array(START + ends - starts, pa.uint64()),
            "status_code": pa.array(np.where(rng.random(RECORDS) < 0.005, 2, 0), pa.int32()),
        }
        records = base.records
        for name, column in columns.items():
            records = replace_column(records, name, column)
        yield base.with_records(records)


def _quiet(batch: TelemetryBatch) -> TelemetryBatch:
    return batch.with_column("trace_state", pa.repeat(pa.scalar("", pa.string()), batch.num_rows))


def _binary(values: np.ndarray[Any, Any]) -> pa.Array:
    data = np.ascontiguousarray(values)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(data.shape[1]), len(data), [None, pa.py_buffer(data)])


Numbers = npt.NDArray[np.uint64]


class _Kept(StatelessSinkPartition[TelemetryBatch]):
    def __init__(self, out: list[Numbers]) -> None:
        self._out = out

    @override
    def write_batch(self, items: list[TelemetryBatch]) -> None:
        for batch in items:
            # A copy: the column alone would keep the whole batch in memory.
            # Copied: a column keeps the whole batch in memory.
            ids = batch.records["span_id"]
            numbers = np.frombuffer(ids.buffers()[1], np.uint64)
            self._out.append(numbers[ids.offset : ids.offset + len(ids)].copy())


class _Sink(DynamicSink[TelemetryBatch]):
    def __init__(self, out: list[Numbers]) -> None:
        self._out = out

    @override
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Kept:
        return _Kept(self._out)


def run_operator(made: list[TelemetryBatch], recovery: Path | None = None) -> tuple[float, float, Numbers]:
    """Wall and CPU seconds of the timed part, and the ids of kept spans; with an epoch a second if there is a store."""
    clock, out, marks = Clock(), list[Numbers](), list[tuple[float, float]]()
    seen = [0]

    def tick(batch: TelemetryBatch) -> TelemetryBatch:
        clock.now = START + seen[0] * BATCH_NANO
        if seen[0] in {WARM_UP, WARM_UP + TIMED}:
            marks.append((time.perf_counter(), time.process_time()))
        seen[0] += 1
        return batch

    flow = Dataflow("bench")
    up = op.map("clock", op.input("in", flow, TestingSource(made)), tick)
    op.output("out", tail_sampling("sample", up, SETTINGS, clock=clock, ledger=Ledger()), _Sink(out))
    if recovery is None:
        run_main(flow)
    else:
        init_db_dir(recovery, 1)
        config = RecoveryConfig(str(recovery), backup_interval=timedelta())
        run_main(flow, epoch_interval=timedelta(seconds=1), recovery_config=config)
    (wall, cpu), (wall_end, cpu_end) = marks
    kept = np.sort(np.concatenate(out))
    assert (kept[1:] > kept[:-1]).all(), "a span came out twice"
    return wall_end - wall, cpu_end - cpu, kept


Item = tuple[bytes, bytes, int, int, int, str | None, int | None]


def items_of(batch: TelemetryBatch) -> list[Item]:
    """Each span as a tuple of what policies read, made beforehand."""
    columns = [
        batch.records[name].to_pylist()
        for name in ("trace_id", "span_id", "status_code", "start_time_unix_nano", "end_time_unix_nano")
    ]
    columns.append(batch.attribute("http.route", type=pa.string()).to_pylist())
    columns.append(batch.attribute("http.response.status_code", type=pa.int64()).to_pylist())
    return list(zip(*columns, strict=True))


class Reference:
    """A dict of traces, span by span."""

    def __init__(self) -> None:
        self.open: dict[bytes, tuple[int, list[Item]]] = {}
        self.decided: dict[bytes, bool] = {}
        self.kept: list[bytes] = []
        self.tick = 0
        self.most = 0

    def add(self, items: list[Item], now: int) -> None:
        """Take spans in, after deciding what is due."""
        tick = now // SECOND
        if tick > self.tick:
            self.most = max(self.most, len(self.open))
            self.decide_due(tick)
            self.tick = tick
        for item in items:
            trace_id = item[0]
            known = self.open.get(trace_id)
            if known is not None:
                known[1].append(item)
            elif trace_id in self.decided:
                if self.decided[trace_id]:
                    self.kept.append(item[1])
            else:
                self.open[trace_id] = (tick + 11, [item])

    def decide_due(self, tick: int) -> None:
        """Decide what is due."""
        for trace_id in [t for t, (deadline, _) in self.open.items() if deadline <= tick]:
            spans = self.open.pop(trace_id)[1]
            keep = self.decided[trace_id] = self.decide(trace_id, spans)
            if keep:
                self.kept.extend(span[1] for span in spans)

    @staticmethod
    def decide(trace_id: bytes, spans: list[Item]) -> bool:
        """The same policies."""
        if any(span[2] == 2 for span in spans):
            return True
        if max(span[4] for span in spans) - min(span[3] for span in spans) >= SLOW_NANO:
            return True
        if any(s[5] in ROUTES for s in spans) and any(s[6] is not None and s[6] >= 500 for s in spans):
            return True
        return int.from_bytes(trace_id[-7:], "big") >= threshold_of(0.1)


def run_reference(made: list[list[Item]]) -> tuple[float, Numbers, int]:
    """CPU seconds of the timed part, the ids of kept spans, most open traces."""
    reference, cpu, cpu_end = Reference(), 0.0, 0.0
    for number, items in enumerate(made):
        if number == WARM_UP:
            cpu = time.process_time()
        elif number == WARM_UP + TIMED:
            cpu_end = time.process_time()
        reference.add(items, START + number * BATCH_NANO)
    reference.decide_due(2**62)
    return cpu_end - cpu, np.sort(np.frombuffer(b"".join(reference.kept), np.uint64)), reference.most


def snapshots(made: list[TelemetryBatch]) -> dict[str, float]:
    """What an epoch of one interval saves while all these traces are open."""
    samplers = [TailSampler(SETTINGS) for _ in range(SETTINGS.shards)]
    held: dict[str, HeldSpans] = {}
    touched: set[str] = set()
    predicates, ledger = Predicates(SETTINGS.policies), Ledger()
    for number, batch in enumerate(made[: WARM_UP + 1]):
        now = START + number * BATCH_NANO
        if now // SECOND != (now - BATCH_NANO) // SECOND:
            touched.clear()
        held[str(number)] = HeldSpans(batch)
        touched.add(str(number))
        for shard, facts in SpanFacts.of(batch, str(number), predicates).split(SETTINGS.shards):
            for name, rows, verdicts in samplers[shard].add(facts, now).released:
                held[name].release(rows, verdicts, "sample", ledger)
                touched.add(name)
    began = time.process_time()
    index = [pickle.dumps(sampler.state()) for sampler in samplers]
    index_ms = (time.process_time() - began) * 1e3
    began = time.process_time()
    came = [pickle.dumps(held[name].state()) for name in touched if len(held[name])]
    came_ms = (time.process_time() - began) * 1e3
    return {
        "open_traces": sum(sampler.open_traces for sampler in samplers),
        "facts_mb": round(sum(map(len, index)) / 1e6, 2),
        "facts_ms": round(index_ms, 1),
        "touched_batches_mb": round(sum(map(len, came)) / 1e6, 2),
        "touched_batches_ms": round(came_ms, 1),
        "all_on_hold_mb": round(sum(len(pickle.dumps(one.state())) for one in held.values()) / 1e6, 1),
    }


def main() -> None:
    pa.set_cpu_count(1)
    made = list(batches(WARM_UP + TIMED + 1))
    wall, cpu, kept = run_operator(made)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with tempfile.TemporaryDirectory() as directory:
        _, cpu_saved, kept_saved = run_operator(made, Path(directory))
    assert np.array_equal(kept, kept_saved), "with a recovery store the result is another"
    saved = snapshots(made)
    items = [items_of(batch) for batch in made]
    del made
    reference_cpu, reference_kept, most = run_reference(items)
    assert np.array_equal(kept, reference_kept), f"{len(kept)} kept against {len(reference_kept)}"
    assert most >= 100_000
    spans = RECORDS * TIMED
    figures: dict[str, Any] = {
        "open_traces": most,
        "kept_share": round(len(kept) / (RECORDS * (WARM_UP + TIMED + 1)), 3),
        "spans_per_cpu_s": round(spans / cpu),
        "target_spans_per_cpu_s": 500_000,
        "spans_per_s": round(spans / wall),
        "with_recovery_spans_per_cpu_s": round(spans / cpu_saved),
        "python_dict_spans_per_cpu_s": round(spans / reference_cpu),
        "ratio": round(reference_cpu / cpu, 2),
        "peak_rss_mib": peak,
        "snapshot": saved,
    }
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(report.write("tail_sampling", figures))


if __name__ == "__main__":
    main()
