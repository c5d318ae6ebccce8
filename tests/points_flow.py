"""A flow that converts numbered batches of metrics of several tenants, for tests that run it on clusters and kill it.

Environment: FOLDER (where results go), STEP (which conversion), COUNT and HOLD (see `tests.numbered_source`).
Each source feeds a tenant of its own, whose points so come in a known order. Results are written as lines, and cut back
to the snapshot on a resume.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.files import DirSink
from bytewax.dataflow import Dataflow, Stream

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
from tests.numbered_source import NumberedSource
from tests.service_graph_reference import calls_of, halves_batch
from tests.spans import EPOCH, SECOND
from tests.stream_reference import random_point

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


def batch_of(source: str, number: int) -> TelemetryBatch:
    """What the step under test gets."""
    match os.environ["STEP"]:
        case "service_graph":
            return halves_batch(calls_of(source, number))
        case "reaggregate":
            return metrics_batch_of(merged_of(source, number))
        case step:
            return metrics_batch_of(input_of(source, number, 2 if step == "cumulative_to_delta" else 1))


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
    found = convert(os.environ["STEP"], op.input("in", flow, NumberedSource(batch_of)), Ledger())

    def written(batch: TelemetryBatch) -> Iterator[tuple[str, Any]]:
        return ((str(point.tenant), line_of(point)) for point in points_of([batch]))

    op.output("out", op.flat_map("lines", found, written), DirSink(Path(os.environ["FOLDER"]), 3))
    return flow


if "FOLDER" in os.environ:
    flow = build()
