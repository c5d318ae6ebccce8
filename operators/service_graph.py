"""service_graph: which services call which, how often, how long and with what success, from the spans at both ends.

Names, attributes and most options are those of the OpenTelemetry Collector's ``servicegraph`` connector. The spans of a
request may come to any two workers: what is needed of them goes to where their trace is paired, and the requests found
there to where their tenant's metrics are counted:

    spans ─→ split ─→ halves ─→ pair (a key per tenant and part of its traces) ─→ edges ─→ count (a key per tenant)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream

from telflow.accounting import LEDGER, Ledger
from telflow.batch import TelemetryBatch
from telflow.service_graph import NO_TENANT, EdgeMetrics, Pairing, ServiceGraphSettings, halves_by_key
from telflow.window_logic import WindowLogic

__all__ = ["ServiceGraphSettings", "service_graph"]


@operator
def service_graph(
    step_id: str,
    up: Stream[TelemetryBatch],
    settings: ServiceGraphSettings,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> KeyedStream[TelemetryBatch]:
    """Make metrics of the requests between services.

    What waits for its other half, and the metrics' state, survive restarts and changes of the number of workers. Spans
    that do not count are counted in the ledger (this step's copy of them as dropped): `unpaired`, `store full`, `late`,
    `ahead of clock`.

    Args:
        step_id: Unique ID.
        up: Batches of any signal and tenant; spans of clients, servers, producers and consumers count.
        settings: See `ServiceGraphSettings`.
        clock: System time in Unix nanoseconds.
        ledger: Where outcomes are counted.

    Returns:
        Metrics by tenant, for any OTLP backend.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from telflow.schema import Signal
    >>> flow = Dataflow("example")
    >>> spans = op.input("spans", flow, TestingSource([TelemetryBatch.empty(Signal.TRACES)]))
    >>> op.output("metrics", service_graph("graph", spans, ServiceGraphSettings()), TestingSink([]))
    >>> run_main(flow)
    """

    def split(batch: TelemetryBatch) -> list[tuple[str, pa.RecordBatch]]:
        return halves_by_key(batch, settings)

    def pair(state: dict[str, Any] | None) -> WindowLogic[pa.RecordBatch]:
        kernel = Pairing(settings)
        return WindowLogic(step_id, kernel, state, emit_on_eof=settings.emit_on_eof, clock=clock, ledger=ledger)

    def count(state: dict[str, Any] | None) -> WindowLogic[pa.RecordBatch]:
        kernel = EdgeMetrics(settings)
        return WindowLogic(step_id, kernel, state, emit_on_eof=settings.emit_on_eof, clock=clock, ledger=ledger)

    def by_tenant(item: tuple[str, Any]) -> tuple[str, Any]:
        return item[1]["tenant"][0].as_py() or NO_TENANT, item[1]

    edges = op.map("by_tenant", op.stateful_batch("pair", op.flat_map("split", up, split), pair), by_tenant)
    return op.filter_value("metrics", op.stateful_batch("count", edges, count), lambda made: made.num_rows > 0)
