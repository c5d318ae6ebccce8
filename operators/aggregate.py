"""aggregate: measures of any signal, by any fields, in windows of event time.

Batches are taken apart by tenant where they are; what crosses to the worker that keeps the windows of a tenant are
partial aggregates (`telflow.aggregation.Partial`). Rules of time: `telflow.windows`, `telflow.session_windows`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream

from telflow.accounting import LEDGER, Ledger
from telflow.aggregation import AggregateSettings, AnyMeasure
from telflow.aggregation.settings import AnyWindow
from telflow.aggregation.steps import to_points, windowed
from telflow.batch import TelemetryBatch
from telflow.fields import FieldRef

__all__ = ["AggregateOut", "aggregate", "aggregate_with", "to_metrics"]


@dataclass(frozen=True)
class AggregateOut:
    """Streams of `aggregate`.

    Attributes:
        rows: Results as Arrow tables, one row per series and window; see `telflow.aggregation.results.rows_of`.
            `to_metrics` makes metrics of them.
        late: With `late="side_output"`: the records that came too late, whole. Counted as dropped already.
    """

    rows: KeyedStream[pa.RecordBatch]
    late: KeyedStream[TelemetryBatch]


@operator
def aggregate_with(
    step_id: str,
    up: Stream[TelemetryBatch],
    settings: AggregateSettings,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> AggregateOut:
    """As `aggregate`, with settings.

    Args:
        step_id: Unique ID.
        up: Batches of any signal.
        settings: See `AggregateSettings`.
        clock: System time in Unix nanoseconds.
        ledger: Where refused records are counted (dropped, `late` and `ahead of clock`).

    Returns:
        Results, and late records.
    """
    out = windowed(up, settings, step_id=step_id, clock=clock, ledger=ledger)
    found = op.filter_value("rows", out, lambda item: isinstance(item, pa.RecordBatch))
    late = op.filter_value("late", out, lambda item: isinstance(item, TelemetryBatch))
    return AggregateOut(found, late)


@operator
def to_metrics(
    step_id: str, up: KeyedStream[pa.RecordBatch], settings: AggregateSettings, ledger: Ledger = LEDGER
) -> KeyedStream[TelemetryBatch]:
    """Make metrics of the final results of `aggregate`: one metric per measure, one point per series.

    Args:
        step_id: Unique ID.
        up: `AggregateOut.rows`.
        settings: Those of the aggregation.
        ledger: Where the points are counted (derived).

    Returns:
        Metrics for any OTLP backend.
    """
    points = functools.partial(to_points, settings=settings, step_id=step_id, ledger=ledger)
    return op.filter_map_value("metrics", up, points)


def aggregate(
    step_id: str,
    up: Stream[TelemetryBatch],
    *,
    measures: Mapping[str, AnyMeasure],
    window: AnyWindow | timedelta | str,
    by: Sequence[FieldRef | str] = (),
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
    **options: Any,
) -> AggregateOut:
    """Measure records by tenant and other keys, in windows of event time.

    State is kept per tenant (and shard), survives restarts and changes of the number of workers, and is bounded.

    Args:
        step_id: Unique ID.
        up: Batches of any signal.
        measures: What to measure, by the name of the result: `Count()`, `Histogram(of="duration_s", bounds=...)` ...
        window: `TumblingWindow`, `SlidingWindow` or `SessionWindow`; a duration means tumbling.
        by: What tells series apart: names of columns and attributes, or `FieldRef`s that say more.
        clock: System time in Unix nanoseconds.
        ledger: Where refused records are counted.
        **options: Further fields of `AggregateSettings`.

    Returns:
        Results as rows (`to_metrics` makes metrics of them), and late records.

    Raises:
        ValidationError: Options contradict each other.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from telflow import Signal
    >>> from telflow.aggregation import Count, Quantiles
    >>> flow = Dataflow("example")
    >>> spans = op.input("spans", flow, TestingSource([TelemetryBatch.empty(Signal.TRACES)]))
    >>> red = aggregate(
    ...     "red", spans, by=["service.name"], window="1m",
    ...     measures={"requests": Count(), "latency": Quantiles(of="duration_s")},
    ... )
    >>> op.output("rows", red.rows, TestingSink([]))
    >>> run_main(flow)
    """
    settings = AggregateSettings.model_validate(
        {"by": tuple(by), "measures": dict(measures), "window": window, **options}
    )
    return aggregate_with(step_id, up, settings, clock=clock, ledger=ledger)
