"""A day of made-up spans, what a flow makes of it live, and the same flow over the archive of that day.

For tests that replay on clusters and kill them. Environment: FOLDER (of the archive), OUT (where results go),
PARTITIONS (of the source), RATE (records a second of each process; none: as fast as possible).
"""

from __future__ import annotations

import os
import pickle
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import TestingSource, run_main
from typing_extensions import override

from connectors.archive import ArchiveReadSettings, ArchiveSettings, ArchiveSink, ArchiveSource
from operators import SpanMetricsSettings, partition, span_metrics
from operators.aggregate import aggregate_with
from telflow.accounting import Ledger
from telflow.aggregation import AggregateSettings
from telflow.batch import TelemetryBatch
from tests.spans import EPOCH, SECOND, Span, points, spans_batch

HOUR = 3600 * SECOND
SPANS = 1600
PER_BATCH = 80
RESUMED = "resumed"
"""A file that is there when a run began with the state of an earlier one."""
TENANTS = [None, "acme", "hooli", "stark"]  # a partition each, of four
MEASURES: dict[str, Any] = {
    "spans": {"kind": "count"},
    "total": {"kind": "sum", "of": "size"},
    "took": {"kind": "histogram", "of": "duration_s", "bounds": [0.5, 2]},
    "quantiles": {"kind": "quantiles", "of": "size"},
}
WINDOWS: dict[str, Any] = {
    "tumbling": {"kind": "tumbling", "length": "1h"},
    "sliding": {"kind": "sliding", "length": "6h", "slide": "1h"},
    "session": {"kind": "session", "gap": "10m"},
}


def day() -> list[list[Span]]:
    """Spans of 24 hours, midnight in the middle, in the order of their arrival; every thirtieth much too late."""
    rng = random.Random(4)
    arrivals = []
    for number in range(SPANS):
        end = EPOCH + number * 24 * HOUR // SPANS + rng.randrange(60) * SECOND
        delay = rng.randrange(30 * 60, 3 * 3600) if number % 30 == 0 else rng.randrange(240)
        span = Span(
            end=end,
            duration=rng.randrange(16) * SECOND // 4,
            name=rng.choice(["GET /", "POST /", "PUT /"]),
            tenant=rng.choice(TENANTS),
            status=rng.choice([None, 2]),
            attributes={"size": rng.randrange(1000)},
            resource_attributes=rng.choice([{}, {"region": "eu"}]),
        )
        arrivals.append((end + delay * SECOND, number, span))
    ordered = [span for _, _, span in sorted(arrivals, key=lambda arrival: arrival[:2])]
    return [ordered[i : i + PER_BATCH] for i in range(0, SPANS, PER_BATCH)]


class _Results(StatefulSinkPartition[Any, int]):
    """Appends to a file, which a resume cuts back to the snapshot."""

    def __init__(self, path: Path, resume: int | None) -> None:
        path.touch()
        if resume is not None:
            path.with_name(RESUMED).touch()
        os.truncate(path, resume or 0)
        self._file = path.open("ab")

    @override
    def write_batch(self, values: list[Any]) -> None:
        for value in values:
            rows = points([value]) if isinstance(value, TelemetryBatch) else value.to_pylist()
            pickle.dump(rows, self._file)
        self._file.flush()

    @override
    def snapshot(self) -> int:
        return self._file.tell()

    @override
    def close(self) -> None:
        self._file.close()


class _Sink(FixedPartitionedSink[Any, int]):
    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    @override
    def list_parts(self) -> list[str]:
        return ["0", "1", "2"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Results:
        return _Results(self._folder / f"{self._name}-{for_part}", resume_state)


def files(folder: Path) -> list[Path]:
    """Where results are."""
    return sorted(folder.glob("*-?"))


def results(folder: Path) -> dict[str, list[str]]:
    """All rows written by each step, each as text, in an order that does not depend on how keys interleave."""
    found: dict[str, list[str]] = {}
    for path in files(folder):
        rows: list[Any] = []
        with path.open("rb") as file:
            while file.peek(1):
                rows += pickle.load(file)  # noqa: S301 - written above
        found.setdefault(path.name[:-2], []).extend(repr(row) for row in rows)
    return {name: sorted(rows) for name, rows in found.items()}


def measure(stream: Stream[TelemetryBatch], folder: Path, ledger: Ledger) -> None:
    """What is made of the spans, live and replayed."""
    for name, window in WINDOWS.items():
        settings = AggregateSettings.model_validate(
            {
                "by": ["name", "region"],
                "measures": MEASURES,
                "window": window,
                "lateness": "5m",
                "max_series": 5,
                "series_expiry": "6h",
                "idle_timeout": None,
                "emit_on_eof": True,
            }
        )
        rows = aggregate_with(name, stream, settings, ledger=ledger).rows
        op.output(f"{name}_results", rows, _Sink(folder, name))
    red = SpanMetricsSettings(
        window=timedelta(hours=1),
        lateness=timedelta(minutes=5),
        series_expiry=timedelta(hours=6),
        idle_timeout=None,
        temporality="cumulative",
        emit_on_eof=True,
    )
    metrics = span_metrics("red", partition("by_tenant", stream, "tenant"), red, ledger=ledger).metrics
    op.output("red_results", metrics, _Sink(folder, "red"))


def live(archive: Path, folder: Path, ledger: Ledger) -> None:
    """Run the flow on the day as it arrives, and archive it."""
    flow = Dataflow("live")
    stream = op.input("spans", flow, TestingSource([spans_batch(spans) for spans in day()]))
    measure(stream, folder, ledger)
    sink = ArchiveSink(ArchiveSettings(path=archive, partitions=2, flush_rows=250), ledger=Ledger())
    op.output("archive", partition("owners", stream, "tenant"), sink)
    run_main(flow, epoch_interval=timedelta(hours=1))


def replayed() -> Dataflow:
    """The flow over the archive."""
    rate = os.environ.get("RATE")
    settings = ArchiveReadSettings(
        path=Path(os.environ["FOLDER"]),
        partitions=int(os.environ["PARTITIONS"]),
        batch_rows=100,
        rate=None if rate is None else float(rate),
    )
    flow = Dataflow("replayed")
    ledger = Ledger()
    stream = op.input("archive", flow, ArchiveSource(settings, ledger=ledger))
    measure(stream, Path(os.environ["OUT"]), ledger)
    return flow


if "FOLDER" in os.environ:
    flow = replayed()
