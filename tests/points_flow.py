"""A flow that converts numbered batches of metrics of several tenants, for tests that run it on clusters and kill it.

Environment: FOLDER (where results go), STEP (which conversion), COUNT (batches of each source), HOLD (1: do not end
then, wait to be killed). Each source feeds a tenant of its own, whose points so come in a known order. Results are
written as lines, and cut back to the snapshot on a resume.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.files import DirSink
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from typing_extensions import override

from operators import (
    CumulativeToDeltaSettings,
    DeltaToCumulativeSettings,
    ReaggregateSettings,
    ServiceGraphSettings,
    cumulative_to_delta,
    delta_to_cumulative,
    reaggregate,
    service_graph,
)
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from tests.metric_points import Point, metrics_batch_of, points_of
from tests.service_graph_reference import calls_of, halves_batch
from tests.spans import EPOCH, SECOND
from tests.stream_reference import random_point

SOURCES = ["a", "b", "c", "d"]
NOW = EPOCH + 3600 * SECOND
GAUGE: dict[str, Any] = {"gauge": True, "temporality": 0, "monotonic": False}
TO_CUMULATIVE = DeltaToCumulativeSettings.model_validate({"max_stale": "200us", "shards": 3})
GRAPH = ServiceGraphSettings.model_validate(
    {
        "wait": "60s",
        "lateness": "60s",
        "window": "5s",
        "emit_on_eof": True,
        "idle_timeout": None,
        "temporality": "delta",
        "dimensions": ["zone"],
    }
)
MERGE = ReaggregateSettings.model_validate(
    {"keep": [], "gauge": "sum", "interval": "5ms", "lateness": "3ms", "emit_on_eof": True, "idle_timeout": None}
)
TO_DELTA = CumulativeToDeltaSettings.model_validate({"max_stale": "200us"})


def input_of(source: str, number: int, temporality: int) -> list[Point]:
    """A batch of a source."""
    rng = random.Random(f"{source} {number} {temporality}")
    return [
        replace(
            random_point(rng, 10_000 * (number + n // 8), temporality), tenant=source, attributes={}, service="shop"
        )
        for n in range(16)
    ]


def merged_of(source: str, number: int) -> list[Point]:
    """A batch of a source of deltas, totals and gauges with an attribute to leave out; time goes on by 2 ms."""
    rng = random.Random(f"{source} {number}")
    found = []
    for n in range(16):
        at = (number + n // 8) * 2_000_000
        point = Point(
            at + rng.randrange(4) * 1_000_000, rng.randrange(9), at - 1, attributes={"a": n % 3}, tenant=source
        )
        found.append(replace(point, **rng.choice([{}, {"temporality": 2, "start": 0}, GAUGE])))
    return found


def line_of(point: Point) -> str:
    """A point in a line."""
    labels = sorted(point.attributes.items())
    return repr((point.tenant, point.name, labels, point.start, point.time, point.temporality, point.value))


class _Partition(StatefulSourcePartition[TelemetryBatch, int]):
    def __init__(self, source: str, resume: int | None) -> None:
        self._source = source
        self._next = resume or 0
        self._temporality = 2 if os.environ["STEP"] == "cumulative_to_delta" else 1
        self._awake: datetime | None = None

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        done = self._next >= int(os.environ["COUNT"])
        if done and os.environ["HOLD"] != "1":
            raise StopIteration
        self._awake = datetime.now(UTC) + timedelta(milliseconds=30)
        if done:
            return []
        self._next += 1
        (Path(os.environ["FOLDER"]) / f"at-{self._source}").write_text(str(self._next))
        if os.environ["STEP"] == "service_graph":
            return [halves_batch(calls_of(self._source, self._next - 1))]
        if os.environ["STEP"] == "reaggregate":
            return [metrics_batch_of(merged_of(self._source, self._next - 1))]
        return [metrics_batch_of(input_of(self._source, self._next - 1, self._temporality))]

    @override
    def next_awake(self) -> datetime | None:
        return self._awake

    @override
    def snapshot(self) -> int:
        return self._next


class _Source(FixedPartitionedSource[TelemetryBatch, int]):
    @override
    def list_parts(self) -> list[str]:
        return SOURCES

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Partition:
        return _Partition(for_part, resume_state)


def half_way(folder: Path, count: int) -> bool:
    """Whether each source has given a third of `count` batches."""
    found = [(folder / f"at-{source}") for source in SOURCES]
    return all(path.exists() and int(path.read_text() or 0) > count // 3 for path in found)


def lines(folder: Path) -> list[str]:
    """All that was written."""
    return [line for path in sorted(folder.glob("part_*")) for line in path.read_text().splitlines()]


def convert(step: str, up: Stream[TelemetryBatch], ledger: Ledger) -> Stream[TelemetryBatch]:
    """The step under test."""

    def clock() -> int:
        return NOW

    if step == "reaggregate":
        return reaggregate("merge", up, MERGE, clock, ledger)
    if step == "service_graph":
        return op.key_rm("unkeyed", service_graph("graph", up, GRAPH, clock, ledger))
    if step == "delta_to_cumulative":
        return delta_to_cumulative("convert", up, TO_CUMULATIVE, clock, ledger)
    return cumulative_to_delta("convert", up, TO_DELTA, clock, ledger)


def build() -> Dataflow:
    flow = Dataflow("converting")
    found = convert(os.environ["STEP"], op.input("in", flow, _Source()), Ledger())

    def written(batch: TelemetryBatch) -> Iterator[tuple[str, Any]]:
        return ((str(point.tenant), line_of(point)) for point in points_of([batch]))

    op.output("out", op.flat_map("lines", found, written), DirSink(Path(os.environ["FOLDER"]), 3))
    return flow


if "FOLDER" in os.environ:
    flow = build()
