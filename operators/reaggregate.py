"""reaggregate: metrics with fewer attributes, their points merged as their kind allows.

Rules: `telflow.metric_streams.reaggregation`. What cannot be merged passes as it is: summaries, cumulative sums that
may fall, metrics that are not asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.metric_streams import GroupSelector, ReaggregateSettings, Reaggregation, split_by_group
from telflow.window_logic import WindowLogic

__all__ = ["ReaggregateSettings", "reaggregate"]

_PASSED = "/passed"


@operator
def reaggregate(
    step_id: str,
    up: Stream[TelemetryBatch],
    settings: ReaggregateSettings,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> Stream[TelemetryBatch]:
    """Leave attributes out of metrics, and merge the points that then belong together, per interval.

    Streams that become one are worked on at one place, whatever worker received them; what is remembered survives
    restarts and changes of the number of workers. In the ledger the points that came are dropped as `merged`, and those
    that leave are derived; points that could not be used are counted with their reason besides.

    Args:
        step_id: Unique ID.
        up: Batches of any signal and tenant.
        settings: See `ReaggregateSettings`.
        clock: System time in Unix nanoseconds.
        ledger: Where outcomes are counted.

    Returns:
        Merged points, and what passed.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from telflow.schema import Signal
    >>> flow = Dataflow("example")
    >>> points = op.input("points", flow, TestingSource([TelemetryBatch.empty(Signal.METRICS)]))
    >>> op.output("out", reaggregate("fewer", points, ReaggregateSettings(keep=["route"])), TestingSink([]))
    >>> run_main(flow)
    """
    selector = GroupSelector(settings)

    def split(batch: TelemetryBatch) -> list[tuple[str, TelemetryBatch]]:
        rest, parts = split_by_group(batch, settings, selector)
        for _, part in parts:
            ledger.add_batch(Outcome.DROPPED, part, component=step_id, reason="merged")
        return parts if rest is None else [(_PASSED, rest), *parts]

    def build(state: dict[str, Any] | None) -> WindowLogic[TelemetryBatch]:
        kernel = Reaggregation(settings)
        return WindowLogic(step_id, kernel, state, emit_on_eof=settings.emit_on_eof, clock=clock, ledger=ledger)

    divided = op.branch("divided", op.flat_map("split", up, split), lambda item: item[0] != _PASSED)
    merged = op.filter_map_value(
        "merged",
        op.stateful_batch("merge", divided.trues, build),
        lambda made: made if isinstance(made, TelemetryBatch) else None,
    )
    return op.merge("out", op.key_rm("unkeyed", merged), op.key_rm("passed", divided.falses))
