"""span_metrics against Bytewax's own `fold_window`, per item, on the same spans: equal results, then the times.

8192-span batches over 4000 series (8 services x 250 span names x 2 statuses), 10 s windows, ends out of order by up to
2 s, about 80 K spans per second of event time. `fold_window` gets the same spans as one item each, keyed by series, its
clock unordered (ordered, it busy-loops); it folds count, sum, min, max and the same histogram. It is timed twice: with
its clock as it comes, and with one that stands still and sets no timers, which spares it the system clock per item.
Times are CPU seconds of the process: this says more than wall time on a shared machine. The options that cost most
(exponential histograms, exemplars, resources told apart by all attributes) are timed on the same spans.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import numpy as np
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from bench import report
from operators.span_metrics import SpanMetrics, SpanMetricsSettings, span_metrics
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.columns import attribute_lists, fill_record_batch
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, MetricType, Signal

ROWS = 8192
SERVICES, NAMES, STATUSES = 8, 250, 2
BATCHES, REFERENCE_BATCHES = 400, 100
START = 1_750_000_000_000_000_000
BATCH_NANO = 100_000_000
DISORDER_NANO = 2_000_000_000
NOW = START + 86_400_000_000_000
SETTINGS = SpanMetricsSettings(
    temporality="delta",
    window=timedelta(seconds=10),
    lateness=timedelta(seconds=5),
    emit_on_eof=True,
    idle_timeout=None,
)
OPTIONS: dict[str, dict[str, Any]] = {
    "exponential": {"histogram": "exponential"},
    "exemplars": {"exemplars": {}},
    "resources": {"resource_attributes": ["*"]},
}
BOUNDS_NANO = [round(bound.total_seconds() * 1e9) for bound in SETTINGS.buckets]
_STATUS = ["STATUS_CODE_UNSET", "STATUS_CODE_OK"]
Result = dict[tuple[int, str, str, str], tuple[int, int, int, int, list[int]]]


def batches(count: int, seed: int = 7) -> list[TelemetryBatch]:
    """Seeded span batches; attributes are left out, as neither side reads them."""
    rng = np.random.default_rng(seed)
    names = pa.array([f"GET /api/v1/resource-{n}/items/{{id}}" for n in range(NAMES)], pa.string())
    services = pa.array([f"service-{n}" for n in range(SERVICES)], pa.string())
    resources = fill_record_batch(
        RESOURCES, SERVICES, {"tenant": "acme", "attributes": attribute_lists(SERVICES, [("service.name", services)])}
    )
    scopes = fill_record_batch(SCOPES, 1, {"name": "bench"})
    made = []
    for number in range(count):
        end = START + number * BATCH_NANO + rng.integers(0, DISORDER_NANO, ROWS)
        records = fill_record_batch(
            RECORD_SCHEMAS[Signal.TRACES],
            ROWS,
            {
                "resource": np.sort(rng.integers(0, SERVICES, ROWS)),
                "name": names.take(pa.array(rng.integers(0, NAMES, ROWS))),
                "kind": 2,
                "status_code": rng.integers(0, STATUSES, ROWS),
                "start_time_unix_nano": end - rng.lognormal(17, 1.5, ROWS).astype(np.int64),
                "end_time_unix_nano": end,
            },
        )
        made.append(TelemetryBatch(Signal.TRACES, records, resources, scopes))
    return made


def run_operator(
    made: list[TelemetryBatch], settings: SpanMetricsSettings = SETTINGS
) -> tuple[float, float, list[TelemetryBatch]]:
    """Wall seconds, CPU seconds and the metrics of the step in a dataflow of one worker."""
    out: list[tuple[str, TelemetryBatch]] = []
    flow = Dataflow("bench")
    up = op.input("in", flow, TestingSource([("acme", batch) for batch in made]))
    op.output("out", span_metrics("red", up, settings, clock=lambda: NOW, ledger=Ledger()).metrics, TestingSink(out))
    wall, cpu = _timed(flow)
    return wall, cpu, [batch for _, batch in out]


def run_fold_window(items: list[tuple[str, tuple[datetime, int]]], *, still_clock: bool) -> tuple[float, float, Result]:
    """The same by Bytewax's own windows, one span an item."""
    out: list[Any] = []
    flow = Dataflow("reference")
    up = op.input("in", flow, TestingSource(items, batch_size=ROWS))
    # An hour of patience: the watermark also follows the system clock, and a slow run must not make spans late.
    now = datetime.fromtimestamp(NOW / 1e9, UTC)
    still: dict[str, Any] = {"now_getter": lambda: now, "to_system_utc": lambda _: None} if still_clock else {}
    clock: win.EventClock[tuple[datetime, int]] = win.EventClock(lambda item: item[0], timedelta(hours=1), **still)
    windower = win.TumblingWindower(length=SETTINGS.window, align_to=datetime.fromtimestamp(0, UTC))
    folded = win.fold_window("fold", up, clock, windower, _empty, _fold, _merge, ordered=False)
    op.output("out", folded.down, TestingSink(out))
    wall, cpu = _timed(flow)
    result: Result = {}
    length = round(SETTINGS.window.total_seconds() * 1e9)
    for key, (number, state) in out:
        service, name, status = key.split("|")
        result[number * length, service, name, status] = (state[0], state[1], state[2], state[3], state[4])
    return wall, cpu, result


def _empty() -> list[Any]:
    return [0, 0, 2**63, 0, [0] * (len(BOUNDS_NANO) + 1)]


def _fold(state: list[Any], item: tuple[datetime, int]) -> list[Any]:
    duration = item[1]
    state[0] += 1
    state[1] += duration
    state[2] = min(state[2], duration)
    state[3] = max(state[3], duration)
    state[4][bisect.bisect_left(BOUNDS_NANO, duration)] += 1
    return state


def _merge(left: list[Any], right: list[Any]) -> list[Any]:
    counts = [a + b for a, b in zip(left[4], right[4], strict=True)]
    return [left[0] + right[0], left[1] + right[1], min(left[2], right[2]), max(left[3], right[3]), counts]


def _timed(flow: Dataflow) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run_main(flow)
    return time.perf_counter() - wall, time.process_time() - cpu


def items_of(made: Iterable[TelemetryBatch]) -> list[tuple[str, tuple[datetime, int]]]:
    """One item per span, made beforehand: only the windows are timed."""
    found = []
    shared: dict[str, str] = {}  # one text per series, not per span
    for batch in made:
        services = [row[0]["str"] for row in batch.resources["attributes"].to_pylist()]
        columns = [
            batch.records[name].to_pylist()
            for name in ("resource", "name", "status_code", "start_time_unix_nano", "end_time_unix_nano")
        ]
        for resource, name, status, start, end in zip(*columns, strict=True):
            at = datetime.fromtimestamp(end // 1_000_000_000, UTC) + timedelta(microseconds=end % 1_000_000_000 // 1000)
            key = f"{services[resource]}|{name}|{_STATUS[status]}"
            found.append((shared.setdefault(key, key), (at, end - start)))
    return found


def result_of(metrics: Iterable[TelemetryBatch]) -> Result:
    """The operator's histogram points in the reference's form."""
    result: Result = {}
    for batch in metrics:
        for row in batch.records.to_pylist():
            if row["type"] == MetricType.HISTOGRAM:
                attributes = {a["key"]: a["str"] for a in row["attributes"]}
                key = (
                    row["start_time_unix_nano"],
                    attributes["service.name"],
                    attributes["span.name"],
                    attributes["status.code"],
                )
                nanos = [round(row[name] * 1e9) for name in ("sum", "min", "max")]
                result[key] = (row["count"], nanos[0], nanos[1], nanos[2], row["bucket_counts"])
    return result


def main() -> None:
    pa.set_cpu_count(1)
    made = batches(BATCHES)
    few = made[:REFERENCE_BATCHES]
    items = items_of(few)

    wall, cpu, reference = run_fold_window(items, still_clock=False)
    _, still_cpu, again = run_fold_window(items, still_clock=True)
    assert again == reference
    assert result_of(run_operator(few)[2]) == reference, "both sides must count the same"
    series = {key[1:] for key in reference}
    assert len(series) == SERVICES * NAMES * STATUSES
    assert sum(value[0] for value in reference.values()) == len(items)

    few_cpu = min(run_operator(few)[1] for _ in range(5))
    runs = [run_operator(made) for _ in range(5)]
    counted = sum(row for batch in runs[0][2] for row in batch.records["count"].drop_null().to_pylist())
    assert counted == ROWS * BATCHES
    full_wall, full_cpu = min(run[0] for run in runs), min(run[1] for run in runs)

    snapshot = _snapshot_ms(few)
    optional = {name: _with_options(few, options) for name, options in OPTIONS.items()}
    figures = {
        "series": len(series),
        "rows_per_batch": ROWS,
        "spans_per_s": round(ROWS * BATCHES / full_wall),
        "cpu_s_per_million_spans": round(full_cpu / (ROWS * BATCHES / 1e6), 4),
        "spans_per_cpu_s": round(ROWS * BATCHES / full_cpu),
        "fold_window_spans_per_cpu_s": round(len(items) / cpu),
        "fold_window_spans_per_s": round(len(items) / wall),
        "fold_window_still_clock_spans_per_cpu_s": round(len(items) / still_cpu),
        "ratio_on_the_same_rows": round(cpu / few_cpu, 1),
        "ratio_on_the_same_rows_still_clock": round(still_cpu / few_cpu, 1),
        "snapshot_ms": snapshot,
        **{f"{name}_spans_per_cpu_s": round(ROWS * len(few) / cpu_s) for name, cpu_s in optional.items()},
    }
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(report.write("span_metrics", figures))
    assert figures["ratio_on_the_same_rows"] >= 50, "must be at least 50 times fold_window"


def _with_options(made: list[TelemetryBatch], options: dict[str, Any]) -> float:
    """CPU seconds with other options; every span must be counted."""
    settings = SpanMetricsSettings.model_validate(SETTINGS.model_dump() | options)
    runs = [run_operator(made, settings) for _ in range(3)]
    calls = sum(sum(batch.records["value_int"].drop_null().to_pylist()) for batch in runs[0][2])
    assert calls == ROWS * len(made)
    return min(run[1] for run in runs)


def _snapshot_ms(made: list[TelemetryBatch]) -> float:
    kernel = SpanMetrics(SETTINGS)
    for batch in made:
        kernel.add(batch, NOW)
    began = time.perf_counter()
    kernel.state()
    return round((time.perf_counter() - began) * 1e3, 2)


if __name__ == "__main__":
    main()
