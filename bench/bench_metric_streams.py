"""delta_to_cumulative, cumulative_to_delta, reaggregate: exact results first, then rows per CPU second, by kind.

8192-point batches over 50 K streams with four attributes each, in the dataflow of one worker. The reference adds the
same points up in a dictionary, object by object, from rows that were read before its time is taken.
"""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from bench import report
from bench.timing import best_cpu_s
from operators import (
    CumulativeToDeltaSettings,
    DeltaToCumulativeSettings,
    ReaggregateSettings,
    cumulative_to_delta,
    delta_to_cumulative,
    reaggregate,
)
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.columns import attribute_lists, fill_record_batch, fixed_lists
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, MetricType, Signal

ROWS, BATCHES, STREAMS, RESOURCE_COUNT = 8192, 60, 50_000, 50
START = 1_750_000_000_000_000_000
STEP = 10_000_000_000
NOW = START + 86_400_000_000_000
KINDS = ("sum", "histogram", "exponential_histogram")
_SCHEMA = RECORD_SCHEMAS[Signal.METRICS]
_ROUNDS = 2


def batches(kind: str, count: int, seed: int = 3) -> list[TelemetryBatch]:
    """Delta points; the streams report in turn, each every `STEP`."""
    rng = np.random.default_rng(seed)
    resources = fill_record_batch(
        RESOURCES,
        RESOURCE_COUNT,
        {
            "tenant": "acme",
            "attributes": attribute_lists(
                RESOURCE_COUNT, [("service.name", pa.array([f"service-{n}" for n in range(RESOURCE_COUNT)]))]
            ),
        },
    )
    scopes = fill_record_batch(SCOPES, 1, {"name": "bench"})
    made = []
    for number in range(count):
        points = np.arange(number * ROWS, (number + 1) * ROWS)
        stream, turn = points % STREAMS, points // STREAMS
        attributes = attribute_lists(
            ROWS,
            [
                ("http.request.method", pa.array(["GET", "POST"]).take(pa.array(stream % 2))),
                (
                    "http.route",
                    pa.array([f"/api/v1/resource-{n}/items" for n in range(200)]).take(pa.array(stream % 200)),
                ),
                ("http.response.status_code", pa.array(200 + stream % 5)),
                ("server.address", pa.array([f"host-{n}.example.com" for n in (stream // 200).tolist()])),
            ],
        )
        columns: dict[str, Any] = {
            "resource": stream % RESOURCE_COUNT,
            "name": "http.server.requests",
            "type": int(MetricType[kind.upper()]),
            "aggregation_temporality": 1,
            "attributes": attributes,
            "start_time_unix_nano": START + turn * STEP,
            "time_unix_nano": START + (turn + 1) * STEP,
        }
        made.append(
            TelemetryBatch(
                Signal.METRICS, fill_record_batch(_SCHEMA, ROWS, columns | _values(kind, rng)), resources, scopes
            )
        )
    return made


def _values(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    if kind == "sum":
        return {"is_monotonic": True, "value_int": rng.integers(0, 100, ROWS)}
    counts = rng.integers(1, 5, (ROWS, 16)).astype(np.uint64)
    shared = {"count": counts.sum(axis=1), "sum": rng.random(ROWS)}
    if kind == "histogram":
        bounds = np.broadcast_to(np.arange(15.0), (ROWS, 15))
        return shared | {
            "bucket_counts": fixed_lists(counts, _SCHEMA.field("bucket_counts").type),
            "explicit_bounds": fixed_lists(bounds, _SCHEMA.field("explicit_bounds").type),
        }
    dtype = _SCHEMA.field("positive").type
    lists = fixed_lists(counts, dtype[1].type)
    positive = pa.StructArray.from_arrays([pa.array(rng.integers(-3, 3, ROWS), pa.int32()), lists], fields=list(dtype))
    return shared | {"scale": 3, "zero_count": 0, "zero_threshold": 0.0, "positive": positive}


def run_steps(made: list[TelemetryBatch], *, back: bool = False) -> list[TelemetryBatch]:
    """Totals, or totals and back, of a flow of one worker."""
    out: list[TelemetryBatch] = []
    flow = Dataflow("bench")
    stream = op.input("in", flow, TestingSource(made))
    ledger = Ledger()
    if back:
        stream = cumulative_to_delta(
            "delta", stream, CumulativeToDeltaSettings(initial_value="keep"), lambda: NOW, ledger
        )
    else:
        stream = delta_to_cumulative("total", stream, DeltaToCumulativeSettings(), lambda: NOW, ledger)
    op.output("out", stream, TestingSink(out))
    run_main(flow)
    assert not ledger.rows(), "nothing may be dropped"
    return out


def run_reaggregate(made: list[TelemetryBatch]) -> int:
    """The sum of all merged points, of a flow of one worker that leaves out where a request was served."""
    out: list[TelemetryBatch] = []
    flow = Dataflow("bench")
    settings = ReaggregateSettings.model_validate(
        {"remove": ["server.address"], "interval": "60s", "emit_on_eof": True, "idle_timeout": None}
    )
    up = op.input("in", flow, TestingSource(made))
    op.output("out", reaggregate("fewer", up, settings, lambda: NOW, Ledger()), TestingSink(out))
    run_main(flow)
    return sum(int(pc.sum(batch.records["value_int"]).as_py()) for batch in out)


def rows_of(made: list[TelemetryBatch]) -> list[tuple[Any, int]]:
    """Stream and value of each point."""
    found = []
    for batch in made:
        resource = batch.records["resource"].to_pylist()
        attributes = batch.records["attributes"].to_pylist()
        values = batch.records["value_int"].to_pylist()
        keys = [tuple((a["key"], a["str"], a["int"]) for a in row) for row in attributes]
        found += list(zip(zip(resource, keys, strict=True), values, strict=True))
    return found


def run_reference(points: list[tuple[Any, int]]) -> list[int]:
    """Totals by a dictionary."""
    totals: dict[Any, int] = {}
    out = []
    for stream, value in points:
        totals[stream] = total = totals.get(stream, 0) + value
        out.append(total)
    return out


def main() -> None:
    pa.set_cpu_count(1)
    figures: dict[str, Any] = {"streams": STREAMS, "rows_per_batch": ROWS}
    for kind in KINDS:
        made = batches(kind, BATCHES if kind == "sum" else BATCHES // 2)
        totals = run_steps(made)
        deltas = run_steps(totals, back=True)
        for name in ("value_int", "bucket_counts", "positive", "count", "start_time_unix_nano"):
            for mine, theirs in zip(deltas, made, strict=True):
                assert mine.records[name].equals(theirs.records[name]), (kind, name)
        rows = ROWS * len(made)
        best = best_cpu_s(
            {"to_cumulative": lambda m=made: run_steps(m), "to_delta": lambda t=totals: run_steps(t, back=True)},  # type: ignore[misc]
            _ROUNDS,
        )
        figures |= {f"{kind}_{name}_rows_per_cpu_s": round(rows / cpu) for name, cpu in best.items()}
        if kind == "sum":
            some = made[:30]
            assert run_reaggregate(some) == sum(int(pc.sum(b.records["value_int"]).as_py()) for b in some)
            merging = best_cpu_s({"merge": lambda s=some: run_reaggregate(s)}, _ROUNDS)["merge"]  # type: ignore[misc]
            figures["sum_reaggregate_rows_per_cpu_s"] = round(ROWS * len(some) / merging)
            few = rows_of(made[:20])
            expected = run_reference(few)
            assert expected == [v for b in totals[:20] for v in b.records["value_int"].to_pylist()]
            cost = best_cpu_s({"reference": lambda f=few: run_reference(f)}, _ROUNDS)["reference"]  # type: ignore[misc]
            figures["reference_sum_rows_per_cpu_s_already_read"] = round(len(few) / cost)
    for name, value in figures.items():
        print(f"{name:50} {value}")
    print(report.write("metric_streams", figures))


if __name__ == "__main__":
    main()
