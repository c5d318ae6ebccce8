"""Functions of a flow's author that decide about complete traces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow.batch import TelemetryBatch
from telflow.errors import UserFunctionError
from telflow.sampling.held_spans import HeldSpans
from telflow.sampling.span_facts import Rows
from telflow.sampling.trace_index import Ints
from telflow.user_functions import call, name_of

__all__ = ["CompleteTraces", "TraceFunction", "ask_function"]

_log = logging.getLogger(__name__)

TraceFunction: TypeAlias = Callable[[TelemetryBatch], Any]
"""A function over the spans of complete traces, those of a trace one after the other; returns a mask with one boolean
for each trace, in this order, or one for each span: a trace is wanted when one of its spans is."""


class CompleteTraces:
    """The spans of traces that are decided together, put in order when first asked for.

    Args:
        parts: Spans on hold, row numbers of some, and the number of the trace of each; -1 for other traces.
        traces: How many traces there are; some may be without spans here.
    """

    def __init__(self, parts: list[tuple[HeldSpans, Rows, Ints]], traces: int) -> None:
        self._parts = parts
        self.count = traces
        self._made: tuple[TelemetryBatch, Ints] | None = None

    def spans(self) -> tuple[TelemetryBatch, Ints] | None:
        """Return the spans, trace by trace, and the number of each one's trace; None when there are none."""
        if self._made is None:
            chosen = [(held, rows, numbers, numbers >= 0) for held, rows, numbers in self._parts]
            some = [(held.take(rows[mask]), numbers[mask]) for held, rows, numbers, mask in chosen if mask.any()]
            if not some:
                return None
            batch = TelemetryBatch.concat([part for part, _ in some])
            numbers = np.concatenate([part for _, part in some])
            order = np.argsort(numbers, kind="stable")
            self._made = (batch.take(order).compact(), numbers[order])
        return self._made

    def wanted(self, step_id: str, function: TraceFunction) -> npt.NDArray[np.bool_]:
        """Return which traces a function wants; those without spans here it is not asked about.

        Raises:
            UserFunctionError: It raised, or returned no such mask.
        """
        wanted = np.zeros(self.count, bool)
        found = self.spans()
        if found is None:
            return wanted
        batch, numbers = found
        mask = _mask(call(step_id, function, batch))
        present = numbers[np.flatnonzero(np.diff(numbers, prepend=-1))]
        if mask is not None and len(mask) == len(present):
            wanted[present] = mask
        elif mask is not None and len(mask) == len(numbers):
            wanted[numbers[mask]] = True
        else:
            got = "no array of booleans" if mask is None else f"{len(mask)} booleans"
            raise UserFunctionError(
                f"step {step_id!r}: function {name_of(function)}: expected {len(present)} booleans, one for each "
                f"trace, or {len(numbers)}, one for each span, got {got}"
            )
        return wanted


def ask_function(
    step_id: str, functions: Mapping[str, TraceFunction], name: str, traces: CompleteTraces
) -> npt.NDArray[np.bool_]:
    """Return which traces a function wants. One that fails wants all: nothing is lost by a mistake in it."""
    try:
        return traces.wanted(step_id, functions[name])
    except UserFunctionError:
        _log.exception("step %r: the traces that a function failed on are kept", step_id)
        return np.ones(traces.count, bool)


def _mask(result: Any) -> npt.NDArray[np.bool_] | None:
    if isinstance(result, pa.ChunkedArray):
        result = result.combine_chunks()
    if isinstance(result, pa.BooleanArray):
        result = result.fill_null(False).to_numpy(zero_copy_only=False)
    if not isinstance(result, np.ndarray) or result.dtype != np.bool_ or result.ndim != 1:
        return None
    return result
