"""What conversions of streams have in common: which points they get, in the order of streams, and their state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow.batch import TelemetryBatch
from telflow.metric_points import Temporality
from telflow.metric_streams.identity import stream_hashes
from telflow.metric_streams.selection import Converted, Selector, converted, no_value
from telflow.metric_streams.settings import ConversionSettings
from telflow.metric_streams.totals import Totals
from telflow.metric_streams.tracker import StreamTracker, times_of
from telflow.state_version import state_version

__all__ = ["StreamConversion", "StreamPoints"]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_STATE_VERSION = 2  # 1 had other hashes of streams


@dataclass(frozen=True, slots=True)
class StreamPoints:
    """Points in the order of their streams, and within one in their own.

    Attributes:
        rows: Where they are in their batch.
        slots: Of their streams.
        times: When they end.
        starts: When they begin; 0: unknown.
        horizon: See `telflow.metric_streams.tracker`.
    """

    rows: Ints
    slots: Ints
    times: Ints
    starts: Ints
    horizon: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, which: Ints | Mask) -> StreamPoints:
        """Return some of them."""
        return StreamPoints(*(getattr(self, column.name)[which] for column in fields(self)))


class StreamConversion(ABC):
    """The kernel of a conversion, for one key of a stream. No clock and no I/O; times are Unix nanoseconds.

    Args:
        settings: Which metrics, and how much is remembered.
        temporality: Of the points to convert.
    """

    name: ClassVar[str]
    """The operator's, for messages."""

    def __init__(self, settings: ConversionSettings, temporality: Temporality) -> None:
        self._selector = Selector(settings, temporality)
        self._tracker = StreamTracker(-(-settings.max_streams // settings.shards), settings.stale_nano)
        self._totals = Totals()

    def __len__(self) -> int:
        """Streams in memory."""
        return len(self._tracker)

    def add(self, batch: TelemetryBatch, now_unix_nano: int) -> Converted:
        """Convert a batch of metrics; what is not meant to be converted goes on as it is."""
        records = batch.records
        rows = np.flatnonzero(self._selector.chosen(records))
        empty = no_value(records, rows)
        dropped = [(rows[empty], "no recorded value")]
        rows = rows[~empty]
        if rows.size:
            times = times_of(records["time_unix_nano"])[rows]
            starts = times_of(records["start_time_unix_nano"])[rows]
            seen = self._tracker.see(stream_hashes(batch, rows), times, now_unix_nano)
            self._grow(len(self._tracker))
            homeless = seen.slots < 0
            dropped.append((rows[homeless], "too many streams"))
            order = np.argsort(seen.slots, kind="stable")[int(homeless.sum()) :]
            if order.size:
                points = StreamPoints(rows, seen.slots, times, starts, seen.horizon).at(order)
                records, refused = self._convert(records, points)
                dropped += [(points.rows[found], reason) for reason, found in refused]
            kept = self._tracker.forget()
            if kept is not None:
                self._keep(kept)
        return converted(batch, records, dropped)

    def state(self) -> dict[str, Any]:
        """Return everything as plain, versioned data that later changes do not touch."""
        return {"version": _STATE_VERSION, "tracker": self._tracker.state(), "totals": self._totals.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned.

        Raises:
            BatchError: Another version of telflow wrote it, in a form this one does not read.
        """
        state_version(state, self.name, _STATE_VERSION)
        self._tracker.restore(state["tracker"])
        self._totals.restore(state["totals"])

    @abstractmethod
    def _convert(self, records: pa.RecordBatch, points: StreamPoints) -> tuple[pa.RecordBatch, list[tuple[str, Ints]]]:
        """Return a table with these points converted, and which of them are not and why; remember the last ones."""

    def _grow(self, slots: int) -> None:
        """Make room for streams."""
        self._totals.grow(slots)

    def _keep(self, slots: Ints) -> None:
        """Forget all other streams: slot ``slots[i]`` becomes ``i``."""
        self._totals.keep(slots)
