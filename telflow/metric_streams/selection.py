"""What goes into a conversion: the points it is meant for, and the rows of a batch that are left when it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow.accounting import split_by_tenant
from telflow.batch import TelemetryBatch
from telflow.metric_points import Temporality
from telflow.metric_streams.identity import stream_hashes
from telflow.metric_streams.settings import ConversionSettings
from telflow.schema import MetricType, Signal

__all__ = ["Converted", "Selector", "converted", "no_value", "split_by_stream"]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_NO_VALUE = np.uint32(1)  # DataPointFlags of opentelemetry.proto.metrics.v1
_NAN = pa.scalar(np.nan, pa.float64())
_NO_TENANT = "(none)"


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of a batch.

    Attributes:
        batch: What is left of it, in its order; None: nothing.
        dropped: Points that are not, and why.
        rows: Which of its rows are left; None: all.
    """

    batch: TelemetryBatch | None
    dropped: tuple[tuple[TelemetryBatch, str], ...] = ()
    rows: Ints | None = None


class Selector:
    """Finds the points to convert.

    Args:
        settings: Which metrics.
        temporality: Of these.
    """

    def __init__(self, settings: ConversionSettings, temporality: Temporality) -> None:
        self._settings = settings
        self._temporality = int(temporality)
        self._wanted: dict[str, bool] = {}

    def chosen(self, records: pa.RecordBatch) -> Mask:
        """Return which points are to be converted."""
        kinds = records["type"].to_numpy()
        mask = records["aggregation_temporality"].to_numpy() == self._temporality
        mask &= np.isin(kinds, sorted(self._settings.types))
        monotonic = records["is_monotonic"].to_numpy(zero_copy_only=False)
        mask &= (kinds != int(MetricType.SUM)) | monotonic
        return self.wanted(records, np.asarray(mask))

    def wanted(self, records: pa.RecordBatch, mask: Mask) -> Mask:
        """Return which of the points of a mask are of metrics with the right names."""
        if mask.any() and (self._settings.include or self._settings.exclude):
            names = records["name"].dictionary_encode()
            wanted = [self._wants(name) for name in names.dictionary.to_pylist()]
            mask = mask & np.array(wanted, np.bool_)[names.indices.to_numpy()]
        return mask

    def _wants(self, name: str) -> bool:
        found = self._wanted.get(name)
        if found is None:
            if len(self._wanted) > self._settings.max_streams:
                self._wanted.clear()
            found = self._wanted[name] = self._settings.wants(name)
        return found


def no_value(records: pa.RecordBatch, rows: Ints) -> Mask:
    """Which points say that there is no value ("no recorded value"), or have none."""
    flags = records["flags"].to_numpy()[rows]
    number = np.isin(records["type"].to_numpy()[rows], [int(MetricType.SUM), int(MetricType.GAUGE)])
    whole = records["value_int"].is_valid().to_numpy(zero_copy_only=False)[rows]
    real = records["value_double"].fill_null(_NAN).to_numpy()[rows]
    return np.asarray(((flags & _NO_VALUE) != 0) | (number & ~whole & np.isnan(real)))


def converted(batch: TelemetryBatch, records: pa.RecordBatch, dropped: list[tuple[Ints, str]]) -> Converted:
    """Return a batch with other records, less those dropped.

    Args:
        batch: As it came.
        records: As many, in the same order.
        dropped: Rows that are not to go on, and why.
    """
    keep = np.ones(batch.num_rows, np.bool_)
    gone = []
    for rows, reason in dropped:
        if rows.size:
            keep[rows] = False
            gone.append((batch.take(rows).compact(), reason))
    left = batch.with_records(records)
    if gone:
        left = left.filter(keep).compact()
    return Converted(left if left.num_rows else None, tuple(gone), np.flatnonzero(keep) if gone else None)


def split_by_stream(
    batch: TelemetryBatch, shards: int, chosen: Callable[[pa.RecordBatch], Mask]
) -> tuple[TelemetryBatch | None, list[tuple[str, TelemetryBatch]]]:
    """Divide a batch by who works on it: all points of a stream come to the same key.

    Args:
        batch: Of any signal.
        shards: Parts of each tenant.
        chosen: Which points of a metrics batch are worked on.

    Returns:
        What nobody works on, or None, and the rest by key.
    """
    if batch.signal is not Signal.METRICS or not batch.num_rows:
        return batch, []
    mask = chosen(batch.records)
    if not mask.any():
        return batch, []
    rest = None
    if shards > 1 and not mask.all():
        rest, batch = batch.filter(~mask).compact(), batch.filter(mask)
    parts: list[tuple[str, TelemetryBatch]] = []
    for tenant, owned in split_by_tenant(batch):
        key = tenant or _NO_TENANT
        if shards == 1:
            parts.append((key, owned))
            continue
        low = stream_hashes(owned).low
        shard = (low >> np.uint64(33)) % np.uint64(shards)
        parts += [(f"{key}/{n}", owned.filter(shard == n).compact()) for n in np.unique(shard).tolist()]
    return rest, parts
