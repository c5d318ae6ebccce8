"""The steps of aggregations: several metrics of one stream, state found again by the metric's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from telflow.accounting import Ledger, Outcome
from telflow.aggregation import AggregateSettings, Count, Item, MetricSelection, Plan, ReadySettings
from telflow.aggregation.steps import measured_metrics, to_points
from tests.spans import EPOCH, SECOND, Span, points, spans_batch

NOW = EPOCH + 3600 * SECOND


def _run(items: list[Any], names: list[str], ledger: Ledger, recovery: Path | None, *, last: bool) -> dict[str, int]:
    settings = ReadySettings(emit_on_eof=last, idle_timeout=None)
    plans: list[Plan] = [settings.plan(Item.SPANS, name, Count(), MetricSelection()) for name in names]
    made: list[Any] = []
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource(items))
    op.output("out", measured_metrics(up, plans, step_id="m", clock=lambda: NOW, ledger=ledger), TestingSink(made))
    run_main(flow, recovery_config=RecoveryConfig(str(recovery)) if recovery else None)
    return {p["name"]: p["value_int"] for p in points(batch for _, batch in made)}


def test_state_stays_with_a_metric_when_others_come_and_go(tmp_path: Path) -> None:
    """Its windows go on although it is the second one now; a new one counts from here."""
    init_db_dir(tmp_path, 1)
    first, second = spans_batch([Span(EPOCH)] * 3), spans_batch([Span(EPOCH + SECOND)])
    items = [first, TestingSource.EOF(), second]
    assert _run(items, ["a.b", "gone"], Ledger(), tmp_path, last=False) == {}
    assert _run(items, ["new", "a.b"], Ledger(), tmp_path, last=True) == {"a.b": 4, "new": 1}


def test_late_records_are_counted_for_each_metric_that_misses_them() -> None:
    """Under the step, as taken and dropped: the records themselves go on elsewhere."""
    ledger = Ledger()
    items = [spans_batch([Span(EPOCH + 60 * SECOND)]), spans_batch([Span(EPOCH)])]
    assert _run(items, ["a", "b"], ledger, None, last=True) == {"a": 1, "b": 1}
    counted = [(r.outcome, r.component, r.reason, r.count) for r in ledger.rows()]
    assert counted == [
        (Outcome.DERIVED, "m", "", 2),
        (Outcome.DERIVED, "m", "late", 2),
        (Outcome.DROPPED, "m", "late", 2),
    ]


def test_what_is_no_result_gives_no_points() -> None:
    """Late records beside results, and results without a final one."""
    settings = AggregateSettings.model_validate({"measures": {"n": {"kind": "count"}}, "window": "10s"})
    ledger = Ledger()
    assert to_points(spans_batch([Span(EPOCH)]), settings, step_id="m", ledger=ledger) is None
    assert ledger.rows() == ()
