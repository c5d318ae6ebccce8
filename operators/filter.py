"""filter_records: keep the records a condition holds for; the others are counted as dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import bytewax.operators as op
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bytewax.dataflow import Stream, operator
from pydantic import Field

from telflow.accounting import LEDGER, Ledger, Outcome, count_by_tenant
from telflow.batch import TelemetryBatch
from telflow.errors import BatchError, UserFunctionError
from telflow.schema import Signal
from telflow.settings import Settings
from telflow.user_functions import call, name_of

__all__ = ["FilterSettings", "Filtered", "Mask", "filter_batch", "filter_records"]

Mask = Callable[[TelemetryBatch], pa.BooleanArray | npt.NDArray[np.bool_]]
"""A function that says for each record of a batch whether it stays; null counts as false."""


class FilterSettings(Settings):
    """What `filter_records` looks at, and how it accounts for what it drops."""

    signals: frozenset[Signal] = Field(default=frozenset(Signal), min_length=1)
    """Signals the condition is asked about; others pass."""

    reason: str = Field(default="filtered", min_length=1)
    """Reason under which dropped records are counted, in a fixed word or two."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What came of filtering a batch.

    Attributes:
        kept: The records that stay.
        dropped: How many went, by tenant; an unknown owner is the empty string.
    """

    kept: TelemetryBatch
    dropped: dict[str, int]


def filter_batch(batch: TelemetryBatch, mask: pa.BooleanArray | npt.NDArray[np.bool_]) -> Filtered:
    """Keep the records for which `mask` is true.

    Raises:
        BatchError: `mask` is not one boolean for each record.
    """
    kept = batch.filter(mask)
    if kept.num_rows == batch.num_rows:
        return Filtered(kept, {})
    left = count_by_tenant(kept)
    counts = {tenant: count - left.get(tenant, 0) for tenant, count in count_by_tenant(batch).items()}
    return Filtered(kept, {tenant: count for tenant, count in counts.items() if count})


@operator
def filter_records(
    step_id: str,
    up: Stream[TelemetryBatch],
    mask: Mask,
    settings: FilterSettings | None = None,
    ledger: Ledger = LEDGER,
) -> Stream[TelemetryBatch]:
    """Keep only records for which `mask` is true; batches left without any are not passed on.

    Args:
        step_id: Unique ID.
        up: Batches.
        mask: Called with each batch, for example
            ``lambda batch: pc.not_equal(batch.column("name"), "GET /health")``.
        settings: See `FilterSettings`.
        ledger: Where dropped records are counted.

    Returns:
        What stays. An error in `mask` stops the flow and says where; no record is dropped for it.
    """
    chosen = settings or FilterSettings()

    def shim(batch: TelemetryBatch) -> TelemetryBatch | None:
        if batch.signal not in chosen.signals:
            return batch
        found = call(step_id, mask, batch)
        try:
            filtered = filter_batch(batch, found)
        except BatchError as error:
            raise UserFunctionError(f"step {step_id!r}: function {name_of(mask)}: {error}") from error
        for tenant, count in filtered.dropped.items():
            ledger.add(Outcome.DROPPED, batch.signal, tenant, count, component=step_id, reason=chosen.reason)
        return filtered.kept if filtered.kept.num_rows else None

    return op.filter_map("filter_map", up, shim)
