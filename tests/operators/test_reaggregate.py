"""reaggregate, the step of a dataflow: on one worker or many, killed and rescaled: as the reference has it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from operators import ReaggregateSettings, reaggregate
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from tests import points_flow
from tests.crash import killed_and_rescaled
from tests.metric_points import Point, metrics_batch_of, points_of
from tests.numbered_source import SOURCES, half_way
from tests.points_flow import MERGE, NOW, line_of, merged_of
from tests.reaggregation_reference import merge
from tests.spans import EPOCH

COUNT = 25


def expected() -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Lines of what comes out, and why points were refused, by tenant."""
    out, refused = Counter[str](), Counter[tuple[str, str]]()
    for source in SOURCES:
        points = [point for number in range(COUNT) for point in merged_of(source, number)]
        found, reasons = merge(points, MERGE, NOW - EPOCH)
        out.update(line_of(point) for point in found)
        refused.update({(source, reason): count for reason, count in reasons.items()})
    return out, refused


def test_killed_and_rescaled_the_results_are_exact(tmp_path: Path) -> None:
    """Three processes, killed at once with intervals open, go on as two: each point counts once."""
    environment = {"FOLDER": str(tmp_path), "STEP": "reaggregate", "COUNT": str(COUNT)}
    killed_and_rescaled(Path(points_flow.__file__), tmp_path, environment, lambda: half_way(tmp_path, COUNT))
    assert Counter(points_flow.lines(tmp_path)) == expected()[0]


@pytest.mark.parametrize("workers", [1, 3])
def test_points_are_merged_and_accounted_for(workers: int) -> None:
    """On any number of workers; what came is merged, what was refused is counted besides, what leaves is derived."""
    batches = [metrics_batch_of(merged_of(source, n)) for n in range(COUNT) for source in SOURCES]
    out: list[TelemetryBatch] = []
    ledger = Ledger()
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource(batches))
    op.output("out", points_flow.convert("reaggregate", up, ledger), TestingSink(out))
    if workers == 1:
        run_main(flow)
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)
    points, refused = expected()
    assert Counter(line_of(point) for point in points_of(out)) == points
    dropped = {(row.tenant, row.reason): row.count for row in ledger.rows() if row.outcome is Outcome.DROPPED}
    assert dropped == {**refused, **{(source, "merged"): 16 * COUNT for source in SOURCES}}
    derived = sum(row.count for row in ledger.rows() if row.outcome is Outcome.DERIVED)
    assert derived == sum(points.values()) + sum(refused.values())


def test_streams_that_become_one_come_to_one_shard() -> None:
    """A large tenant's metrics in parts: each merged stream is in one of them."""
    settings = ReaggregateSettings.model_validate(
        {"remove": ["a"], "shards": 4, "emit_on_eof": True, "idle_timeout": None}
    )
    points = [Point(n, 1, 0, attributes={"a": n % 5, "b": n % 20}) for n in range(1, 201)]
    out: list[TelemetryBatch] = []
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource([metrics_batch_of(points[:90]), metrics_batch_of(points[90:])]))
    op.output("out", reaggregate("merge", up, settings, lambda: NOW, Ledger()), TestingSink(out))
    run_main(flow)
    assert sorted((p.attributes["b"], p.value) for p in points_of(out)) == [(n, 10) for n in range(20)]


def test_what_cannot_be_merged_passes() -> None:
    """As the same objects, where nothing of a batch is merged."""
    falling = metrics_batch_of([Point(10, 1, temporality=2, monotonic=False)])
    other = metrics_batch_of([Point(10, 1, name="other")])
    batches = [TelemetryBatch.empty(Signal.LOGS), TelemetryBatch.empty(Signal.METRICS), falling, other]
    settings = ReaggregateSettings.model_validate({"keep": [], "exclude": ["other"]})
    out: list[TelemetryBatch] = []
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource(batches))
    op.output("out", reaggregate("merge", up, settings), TestingSink(out))
    run_main(flow)
    assert all(mine is theirs for mine, theirs in zip(out, batches, strict=True))
