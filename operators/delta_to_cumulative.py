"""delta_to_cumulative: sums and histograms that say what was added become ones that say the total.

Prometheus and its like only take totals. A stream of points is identified, kept and reset as the OpenTelemetry metrics
data model says; rules: `telflow.metric_streams.to_cumulative`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bytewax.dataflow import Stream, operator

from telflow.accounting import LEDGER, Ledger
from telflow.batch import TelemetryBatch
from telflow.metric_points import Temporality
from telflow.metric_streams import DeltaToCumulativeSettings, Selector, ToCumulative, convert_streams, split_by_stream

__all__ = ["DeltaToCumulativeSettings", "delta_to_cumulative"]


@operator
def delta_to_cumulative(
    step_id: str,
    up: Stream[TelemetryBatch],
    settings: DeltaToCumulativeSettings,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> Stream[TelemetryBatch]:
    """Convert delta sums (monotonic), histograms and exponential histograms to cumulative ones.

    Everything else passes. All points of a stream are worked on at one place, whatever worker received them; totals
    survive restarts and changes of the number of workers. Points that cannot be used are counted in the ledger as
    dropped: `duplicate`, `out of order`, `overlapping`, `no recorded value`, `too many streams`.

    Args:
        step_id: Unique ID.
        up: Batches of any signal and tenant.
        settings: See `DeltaToCumulativeSettings`.
        clock: System time in Unix nanoseconds; event time is not believed beyond it.
        ledger: Where dropped points are counted.

    Returns:
        Batches with converted points in place of those that came.

    >>> import bytewax.operators as op
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from telflow.schema import Signal
    >>> out: list[TelemetryBatch] = []
    >>> flow = Dataflow("example")
    >>> points = op.input("points", flow, TestingSource([TelemetryBatch.empty(Signal.METRICS)]))
    >>> op.output("totals", delta_to_cumulative("total", points, DeltaToCumulativeSettings()), TestingSink(out))
    >>> run_main(flow)
    """
    selector = Selector(settings, Temporality.DELTA)

    def split(batch: TelemetryBatch) -> tuple[TelemetryBatch | None, list[tuple[str, TelemetryBatch]]]:
        return split_by_stream(batch, settings.shards, selector.chosen)

    return convert_streams(step_id, up, split, lambda: ToCumulative(settings), clock=clock, ledger=ledger)
