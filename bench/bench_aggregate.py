"""aggregate against polars group-by on the same rows: equal results, then the times; memory under a flood of series.

The spans are those of `bench_span_metrics`: 8192 a batch, 4000 series (service, span name, status), out of order by up
to 2 s. Measured are a count, a sum and a histogram of durations by service name (an attribute of the resource), span
name and status, in 10 s tumbling windows. The reference is what one would write without windows that remember:
polars, a group-by per batch and one over their results. It knows no lateness, no limits and no state. Times are CPU
seconds of the process.

Memory: one tenant offers a million series under a limit of 10,000, another one sends ten.
"""

from __future__ import annotations

import itertools
import resource
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
import polars as pl
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from bench import report
from bench.bench_span_metrics import BATCHES, NAMES, NOW, ROWS, SERVICES, STATUSES, batches
from bench.timing import best_cpu_s
from operators.aggregate import aggregate_with
from telflow.accounting import Ledger
from telflow.aggregation import AggregateSettings, Aggregation
from telflow.batch import TelemetryBatch
from telflow.columns import fill_record_batch
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal

BOUNDS = [0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
OPTIONS: dict[str, Any] = {
    "by": [{"name": "service.name", "level": "resource"}, "name", "status_code"],
    "measures": {
        "spans": {"kind": "count"},
        "busy_s": {"kind": "sum", "of": "duration_s"},
        "took": {"kind": "histogram", "of": "duration_s", "bounds": BOUNDS},
    },
    "window": "10s",
    "emit_on_eof": True,
    "idle_timeout": None,
}
SETTINGS = AggregateSettings.model_validate(OPTIONS)
OFFERED, LIMIT = 1_000_000, 10_000
_ROUNDS = 2
_TARGET = 2_000_000
Result = dict[tuple[int, str, str, int], tuple[int, float, list[int]]]


def run_operator(made: list[TelemetryBatch], settings: AggregateSettings = SETTINGS) -> list[pa.RecordBatch]:
    """The rows of the step in a dataflow of one worker."""
    out: list[tuple[str, pa.RecordBatch]] = []
    flow = Dataflow("bench")
    up = op.input("in", flow, TestingSource(made))
    op.output("out", aggregate_with("red", up, settings, clock=lambda: NOW, ledger=Ledger()).rows, TestingSink(out))
    run_main(flow)
    return [table for _, table in out]


def run_polars(made: list[TelemetryBatch]) -> Result:
    """The same by polars: a group-by per batch, and one over their results."""
    parts = []
    for batch in made:
        services = pl.Series([row[0]["str"] for row in batch.resources["attributes"].to_pylist()])
        frame = batch.to_polars().select(
            window=pl.col("end_time_unix_nano") // 10_000_000_000 * 10_000_000_000,
            service=pl.lit(services).gather(pl.col("resource")),
            name="name",
            status="status_code",
            took=(pl.col("end_time_unix_nano") - pl.col("start_time_unix_nano")) / 1e9,
        )
        edges = [float("-inf"), *BOUNDS, float("inf")]
        between = [(pl.col("took") > low) & (pl.col("took") <= high) for low, high in itertools.pairwise(edges)]
        counts = [inside.sum().alias(f"b{n}") for n, inside in enumerate(between)]
        parts.append(
            frame.lazy()
            .group_by("window", "service", "name", "status")
            .agg(pl.len().alias("n"), pl.col("took").sum(), *counts)
            .collect()
        )
    keys = ["window", "service", "name", "status"]
    found = pl.concat(parts).group_by(keys).agg(pl.exclude(keys).sum())
    return {
        (row["window"], row["service"], row["name"], row["status"]): (
            row["n"],
            row["took"],
            [row[f"b{n}"] for n in range(len(BOUNDS) + 1)],
        )
        for row in found.to_dicts()
    }


def result_of(rows: list[pa.RecordBatch]) -> Result:
    """The operator's rows in the reference's form."""
    return {
        (row["window_start_unix_nano"], row["service.name"], row["name"], row["status_code"]): (
            row["spans"],
            row["busy_s"],
            row["took"]["bucket_counts"],
        )
        for table in rows
        for row in table.to_pylist()
    }


def assert_equal(found: Result, expected: Result) -> None:
    assert found.keys() == expected.keys()
    for key, (count, total, buckets) in expected.items():
        assert (found[key][0], found[key][2]) == (count, buckets)
        assert np.isclose(found[key][1], total, rtol=1e-12)


def flood() -> dict[str, Any]:
    """One tenant offers a million series; what that costs, and what another tenant sees of it."""
    settings = AggregateSettings.model_validate(OPTIONS | {"by": ["name"], "max_series": LIMIT})
    kernels = {"loud": Aggregation(settings), "quiet": Aggregation(settings)}
    scopes = fill_record_batch(SCOPES, 1, {"name": "bench"})
    before = peak = 0
    end = NOW - 3_600_000_000_000
    for start in range(0, OFFERED, 10_000):
        for tenant, names in (
            ("loud", [f"n{i}" for i in range(start, start + 10_000)]),
            ("quiet", [f"q{i}" for i in range(10)]),
        ):
            columns = {"name": pa.array(names), "start_time_unix_nano": end - 1_000_000, "end_time_unix_nano": end}
            records = fill_record_batch(RECORD_SCHEMAS[Signal.TRACES], len(names), columns)
            batch = TelemetryBatch(Signal.TRACES, records, fill_record_batch(RESOURCES, 1, {"tenant": tenant}), scopes)
            kernels[tenant].add(batch, NOW)
        used = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
        before = before or used  # once the limit is reached
        peak = max(peak, used)
    rows = {tenant: kernel.flush().rows[0].to_pylist() for tenant, kernel in kernels.items()}
    over = [row["spans"] for row in rows["loud"] if row["overflow"]]
    assert len(rows["loud"]) == LIMIT + 1
    assert over == [OFFERED - LIMIT]
    assert sorted(row["name"] for row in rows["quiet"]) == [f"q{i}" for i in range(10)]
    assert {row["spans"] for row in rows["quiet"]} == {OFFERED // 10_000}
    assert peak - before < 64, "990,000 further series must not take memory"
    return {
        "series_offered": OFFERED,
        "series_held": LIMIT,
        "overflowed": over[0],
        "mib_beyond_the_limit": peak - before,
    }


def main() -> None:
    pa.set_cpu_count(1)
    made = batches(BATCHES)
    few = made[:30]
    assert_equal(result_of(run_operator(few)), run_polars(few))
    sketches = AggregateSettings.model_validate(
        OPTIONS
        | {
            "measures": {
                "quantiles": {"kind": "quantiles", "of": "duration_s"},
                "exponential": {"kind": "exponential_histogram", "of": "duration_s"},
            }
        }
    )
    distinct = AggregateSettings.model_validate(OPTIONS | {"measures": {"ends": {"kind": "distinct", "of": "name"}}})
    sliding = AggregateSettings.model_validate(
        OPTIONS | {"window": {"kind": "sliding", "length": "10s", "slide": "5s"}}
    )
    session = AggregateSettings.model_validate(OPTIONS | {"window": {"kind": "session", "gap": "2s"}})
    rows, few_rows = ROWS * BATCHES, ROWS * len(few)
    best = best_cpu_s({"aggregate": lambda: run_operator(made)}, _ROUNDS)
    best |= best_cpu_s({"few": lambda: run_operator(few), "polars": lambda: run_polars(few)}, _ROUNDS)
    others = {"sketches": sketches, "distinct": distinct, "sliding": sliding, "session": session}
    cost = best_cpu_s({name: lambda s=s: run_operator(few, s) for name, s in others.items()}, 2)  # type: ignore[misc]
    figures = {
        "series": SERVICES * NAMES * STATUSES,
        "rows_per_batch": ROWS,
        "rows_per_cpu_s": round(rows / best["aggregate"]),
        "polars_rows_per_cpu_s": round(few_rows / best["polars"]),
        "ratio_on_the_same_rows": round(best["polars"] / best["few"], 1),
        **{f"{name}_rows_per_cpu_s": round(few_rows / cpu) for name, cpu in cost.items()},
        **flood(),
    }
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(report.write("aggregate", figures))
    assert figures["rows_per_cpu_s"] >= _TARGET, f"must be at least {_TARGET} rows a second"


if __name__ == "__main__":
    main()
