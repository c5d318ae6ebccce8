"""delta_to_cumulative, the step of a dataflow: on one worker or many, killed and rescaled: as the reference has it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from operators import DeltaToCumulativeSettings, delta_to_cumulative
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from tests import points_flow
from tests.crash import killed_and_rescaled
from tests.metric_points import Point, metrics_batch_of, points_of
from tests.numbered_source import SOURCES, half_way
from tests.points_flow import NOW, input_of, line_of
from tests.spans import EPOCH
from tests.stream_reference import to_cumulative

COUNT = 25


def expected() -> tuple[Counter[str], Counter[str]]:
    """Lines of what comes out, and reasons of what does not."""
    out, dropped = Counter[str](), Counter[str]()
    for source in SOURCES:
        points = [point for number in range(COUNT) for point in input_of(source, number, 1)]
        for found in to_cumulative(points, stale=200_000, gap="reset", now=NOW - EPOCH, max_size=160):
            if isinstance(found, str):
                dropped[found] += 1
            else:
                out[line_of(found)] += 1
    return out, dropped


def test_killed_and_rescaled_the_results_are_exact(tmp_path: Path) -> None:
    """Three processes, killed at once, go on as two: each point once, and as the reference has it."""
    environment = {"FOLDER": str(tmp_path), "STEP": "delta_to_cumulative", "COUNT": str(COUNT)}
    killed_and_rescaled(Path(points_flow.__file__), tmp_path, environment, lambda: half_way(tmp_path, COUNT))
    assert Counter(points_flow.lines(tmp_path)) == expected()[0]


@pytest.mark.parametrize("workers", [1, 3])
def test_each_point_is_converted_or_counted(workers: int) -> None:
    """On any number of workers; what is dropped is in the ledger, with its reason."""
    batches = [metrics_batch_of(input_of(source, n, 1)) for n in range(COUNT) for source in SOURCES]
    out: list[TelemetryBatch] = []
    ledger = Ledger()
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource(batches))
    op.output("out", points_flow.convert("delta_to_cumulative", up, ledger), TestingSink(out))
    if workers == 1:
        run_main(flow)
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)
    made, dropped = expected()
    assert Counter(line_of(point) for point in points_of(out)) == made
    rows: Any = ledger.rows()
    assert {row.component for row in rows} == {"test.convert"}
    counted = Counter[str]()
    for row in rows:
        assert row.outcome is Outcome.DROPPED
        counted[row.reason] += row.count
    assert counted == dropped


def test_other_signals_and_metrics_pass() -> None:
    """As the same objects."""
    other = metrics_batch_of([Point(10, 1, temporality=2), Point(10, 1.0, gauge=True)])
    batches = [TelemetryBatch.empty(Signal.LOGS), TelemetryBatch.empty(Signal.METRICS), other]
    out: list[TelemetryBatch] = []
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource(batches))
    op.output("out", delta_to_cumulative("convert", up, DeltaToCumulativeSettings()), TestingSink(out))
    run_main(flow)
    assert all(mine is theirs for mine, theirs in zip(out, batches, strict=True))
