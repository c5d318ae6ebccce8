"""map_batches: a function of the flow's author over whole batches, in terms of telflow, pyarrow or polars.

A function that raises, or returns what it must not, either stops the flow (`map_batches`) or sends the batch it
failed on another way (`map_batches_or_quarantine`). Whatever it leaves out or adds is accounted for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Stream, operator

from telflow.accounting import LEDGER, Ledger, Outcome, count_by_tenant
from telflow.batch import TelemetryBatch
from telflow.errors import UserFunctionError
from telflow.user_functions import call, name_of

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "BatchFunction",
    "MapBatchesOut",
    "apply",
    "lift_arrow",
    "lift_polars",
    "map_batches",
    "map_batches_or_quarantine",
]

_log = logging.getLogger(__name__)

BatchFunction = Callable[[TelemetryBatch], TelemetryBatch]
"""A function that returns another batch; it may change the signal, too. To leave out all: `batch.slice(0, 0)`."""


@dataclass(frozen=True)
class MapBatchesOut:
    """The streams out of `map_batches_or_quarantine`.

    Attributes:
        mapped: What the function returned.
        quarantined: Batches it failed on, as they came in.
    """

    mapped: Stream[TelemetryBatch]
    quarantined: Stream[TelemetryBatch]


def apply(step_id: str, function: BatchFunction, batch: TelemetryBatch) -> TelemetryBatch:
    """Return `function(batch)`.

    Raises:
        UserFunctionError: It raised, or returned something else than a batch.
    """
    result: object = call(step_id, function, batch)
    if isinstance(result, TelemetryBatch):
        return result
    hint = "; to leave out all records return batch.slice(0, 0)" if result is None else ""
    raise UserFunctionError(
        f"step {step_id!r}: function {name_of(function)}: expected it to return a TelemetryBatch, "
        f"got {type(result).__name__}{hint}"
    )


def lift_arrow(function: Callable[[pa.RecordBatch], pa.RecordBatch | pa.BooleanArray]) -> BatchFunction:
    """Make a function over the records, in pyarrow, one over batches.

    Args:
        function: Is given `batch.records`; returns records of the same schema, or a mask of those to keep.

    >>> import pyarrow.compute as pc
    >>> slow = lift_arrow(lambda spans: pc.greater(spans["end_time_unix_nano"], 0))
    >>> slow(TelemetryBatch.empty("traces")).num_rows
    0
    """

    @functools.wraps(function)
    def lifted(batch: TelemetryBatch) -> TelemetryBatch:
        result = function(batch.records)
        if isinstance(result, pa.RecordBatch):
            return batch.with_records(result)
        return batch.filter(result)

    return lifted


def lift_polars(function: Callable[[pl.DataFrame], pl.DataFrame]) -> BatchFunction:
    """Make a function over the records, in polars, one over batches.

    Args:
        function: Is given `batch.to_polars()`; returns a frame with the same columns.

    >>> import polars as pl
    >>> named = lift_polars(lambda spans: spans.filter(pl.col("name") != ""))
    >>> named(TelemetryBatch.empty("traces")).num_rows
    0
    """

    @functools.wraps(function)
    def lifted(batch: TelemetryBatch) -> TelemetryBatch:
        import polars as pl

        result: object = function(batch.to_polars())
        if not isinstance(result, pl.DataFrame):
            raise TypeError(f"expected it to return a polars DataFrame, got {type(result).__name__}")
        return batch.with_polars(result)

    return lifted


@operator
def map_batches(
    step_id: str, up: Stream[TelemetryBatch], function: BatchFunction, ledger: Ledger = LEDGER
) -> Stream[TelemetryBatch]:
    """Replace every batch by what `function` makes of it; an error in it stops the flow.

    Args:
        step_id: Unique ID.
        up: Batches of any signal.
        function: See `BatchFunction`, `lift_arrow` and `lift_polars`.
        ledger: Where records that it leaves out (dropped) or adds (derived) are counted.

    Returns:
        What the function returned, without batches that hold no records.
    """

    def shim(batch: TelemetryBatch) -> TelemetryBatch | None:
        result = apply(step_id, function, batch)
        _account(step_id, batch, result, ledger)
        return result if result.num_rows else None

    return op.filter_map("filter_map", up, shim)


@operator
def map_batches_or_quarantine(
    step_id: str, up: Stream[TelemetryBatch], function: BatchFunction, ledger: Ledger = LEDGER
) -> MapBatchesOut:
    """Replace every batch by what `function` makes of it; batches it fails on leave by another stream.

    The first failure is logged with its trace. Quarantined records are counted as such: hand the stream to a sink that
    keeps them and does not count them again.

    Args:
        step_id: Unique ID.
        up: Batches of any signal.
        function: As in `map_batches`.
        ledger: As in `map_batches`; quarantined records, too.

    Returns:
        What the function returned, and what it failed on.
    """
    quarantine = _Quarantine(step_id, function, ledger)
    split = op.branch("branch", op.map("map", up, quarantine.apply), lambda outcome: not outcome.failed)
    mapped = op.filter_map("mapped", split.trues, lambda outcome: outcome.batch if outcome.batch.num_rows else None)
    quarantined = op.map("quarantined", split.falses, lambda outcome: outcome.batch)
    return MapBatchesOut(mapped, quarantined)


@dataclass(frozen=True, slots=True)
class _Outcome:
    batch: TelemetryBatch
    failed: bool


class _Quarantine:
    def __init__(self, step_id: str, function: BatchFunction, ledger: Ledger) -> None:
        self._step_id = step_id
        self._function = function
        self._ledger = ledger
        self._failed = False

    def apply(self, batch: TelemetryBatch) -> _Outcome:
        try:
            result = apply(self._step_id, self._function, batch)
        except UserFunctionError:
            if not self._failed:
                self._failed = True
                _log.exception("step %r: a batch is quarantined; further ones are only counted", self._step_id)
            self._ledger.add_batch(Outcome.QUARANTINED, batch, component=self._step_id, reason="function failed")
            return _Outcome(batch, failed=True)
        _account(self._step_id, batch, result, self._ledger)
        return _Outcome(result, failed=False)


def _account(step_id: str, before: TelemetryBatch, after: TelemetryBatch, ledger: Ledger) -> None:
    """Count what a function left out and added, by signal and tenant."""
    if after is before:
        return
    came = {(before.signal, tenant): count for tenant, count in count_by_tenant(before).items()}
    went = {(after.signal, tenant): count for tenant, count in count_by_tenant(after).items()}
    for signal, tenant in came | went:
        more = went.get((signal, tenant), 0) - came.get((signal, tenant), 0)
        if more < 0:
            ledger.add(Outcome.DROPPED, signal, tenant, -more, component=step_id, reason="left out by function")
        elif more > 0:
            ledger.add(Outcome.DERIVED, signal, tenant, more, component=step_id, reason="added by function")
