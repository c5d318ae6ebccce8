"""tap: look at what flows past, without a way to harm it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from telflow.batch import TelemetryBatch
from telflow.user_functions import name_of

__all__ = ["Tap", "tap"]

_log = logging.getLogger(__name__)


class Tap:
    """A function over batches whose failures are counted; the first is logged, with the others only the number grows.

    Args:
        step_id: What to call it in the log.
        function: Is given every batch; what it returns is ignored.

    Attributes:
        failures: How often it raised.
    """

    def __init__(self, step_id: str, function: Callable[[TelemetryBatch], object]) -> None:
        self._step_id = step_id
        self._function = function
        self.failures = 0

    def __call__(self, batch: TelemetryBatch) -> None:
        """Show it a batch."""
        try:
            self._function(batch)
        except Exception:  # noqa: BLE001 - whatever it is, the data must flow on
            self.failures += 1
            if self.failures == 1:
                _log.exception(
                    "step %r: function %s raised on %d records of %s; they flow on, further failures are only counted",
                    self._step_id,
                    name_of(self._function),
                    batch.num_rows,
                    batch.signal,
                )


@operator
def tap(
    step_id: str, up: Stream[TelemetryBatch], function: Callable[[TelemetryBatch], object]
) -> Stream[TelemetryBatch]:
    """Show every batch to `function` and pass it on, whatever the function does.

    It runs in the worker: a slow function slows the flow.

    Args:
        step_id: Unique ID.
        up: Batches.
        function: For example ``print``, or one that counts. An error in it is logged once.

    Returns:
        The same batches.
    """
    show = Tap(step_id, function)

    def shim(batch: TelemetryBatch) -> TelemetryBatch:
        show(batch)
        return batch

    return op.map("map", up, shim)
