"""The steps of a dataflow that every aggregation is made of; operators put them together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream

from telflow.accounting import Ledger, Outcome
from telflow.aggregation.items import items_of
from telflow.aggregation.kernel import Aggregation
from telflow.aggregation.partial import Partial
from telflow.aggregation.ready import Plan
from telflow.aggregation.results import metrics_of
from telflow.aggregation.rows import partials_of, split_by_key
from telflow.aggregation.settings import AggregateSettings
from telflow.batch import TelemetryBatch
from telflow.window_logic import WindowLogic, account_refused

__all__ = ["measured_metrics", "to_points", "windowed"]


def windowed(
    up: Stream[TelemetryBatch],
    settings: AggregateSettings,
    *,
    step_id: str,
    clock: Callable[[], int],
    ledger: Ledger,
    prefix: str = "",
) -> KeyedStream[TelemetryBatch | pa.RecordBatch]:
    """Return results (record batches) and late records (telemetry batches) of an aggregation.

    Args:
        up: Batches of any signal.
        settings: What is measured.
        step_id: Under which refused records are counted.
        clock: System time in Unix nanoseconds.
        ledger: Where they are counted.
        prefix: Of the names of the steps; state is found again by them.
    """

    def to_partials(batch: TelemetryBatch) -> list[tuple[str, TelemetryBatch | Partial]]:
        partials, refused = partials_of(batch, settings, clock())
        account_refused(refused, step_id, ledger)
        return [*partials]

    def to_batches(batch: TelemetryBatch) -> list[tuple[str, TelemetryBatch | Partial]]:
        # Late records leave whole, so whole records go where it is known that they are late.
        return [*split_by_key(batch, settings)]

    def build(state: dict[str, Any] | None) -> WindowLogic[TelemetryBatch | Partial]:
        kernel = Aggregation(settings)
        return WindowLogic(step_id, kernel, state, emit_on_eof=settings.emit_on_eof, clock=clock, ledger=ledger)

    split = to_batches if settings.late == "side_output" else to_partials
    return op.stateful_batch(f"{prefix}window", op.flat_map(f"{prefix}split", up, split), build)


def to_points(
    rows: pa.RecordBatch | TelemetryBatch, settings: AggregateSettings, *, step_id: str, ledger: Ledger
) -> TelemetryBatch | None:
    """Return the final results among rows as metrics, counted as derived; None when there are none."""
    if isinstance(rows, TelemetryBatch):
        return None
    batch = metrics_of(rows, settings)
    ledger.add_batch(Outcome.DERIVED, batch, component=step_id)
    return batch if batch.num_rows else None


def measured_metrics(
    up: Stream[TelemetryBatch], plans: Sequence[Plan], *, step_id: str, clock: Callable[[], int], ledger: Ledger
) -> KeyedStream[TelemetryBatch]:
    """Return the metrics of some plans, each batch of one tenant and metric.

    Args:
        up: Batches of any signal.
        plans: The metrics, at least one.
        step_id: Under which points and refused records are counted.
        clock: System time in Unix nanoseconds.
        ledger: Where they are counted.
    """
    made = []
    for plan in plans:
        items = op.filter_map(f"{plan.step}_items", up, functools.partial(items_of, item=plan.item))
        rows = windowed(items, plan.settings, step_id=step_id, clock=clock, ledger=ledger, prefix=f"{plan.step}_")
        points = functools.partial(to_points, settings=plan.settings, step_id=step_id, ledger=ledger)
        made.append(op.filter_map_value(f"{plan.step}_metrics", rows, points))
    return op.merge("merge", *made)
