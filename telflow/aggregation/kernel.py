"""The aggregation of one key of a stream: batches or partials in, results of windows out. No clock and no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from telflow.aggregation.partial import Partial
from telflow.aggregation.results import rows_of
from telflow.aggregation.rows import partial_of
from telflow.aggregation.settings import AggregateSettings, SessionWindow, nanos
from telflow.batch import TelemetryBatch
from telflow.fields import event_times
from telflow.series_windows import SeriesResult, SeriesWindows
from telflow.session_windows import SessionWindows
from telflow.state_version import state_version
from telflow.window_logic import Refused, Update
from telflow.windows import EventWindows

__all__ = ["Aggregation"]

_STATE_VERSION = 1


class Aggregation:
    """Windows of one key; times are Unix nanoseconds.

    >>> settings = AggregateSettings.model_validate({"measures": {"n": {"kind": "count"}}, "window": "10s"})
    >>> Aggregation(settings).flush()
    Update(metrics=(), late=None, ahead=None, rows=(), refused=())
    """

    def __init__(self, settings: AggregateSettings) -> None:
        self._settings = settings
        self._early = None if settings.early is None else nanos(settings.early)
        self._told = 0  # multiples of `early` that event time had come to when early results were last emitted
        measures, shape = settings.columns(), settings.window_shape()
        self._windows: EventWindows | SessionWindows
        if isinstance(settings.window, SessionWindow):
            self._windows = SessionWindows(measures, shape)
        else:
            self._windows = EventWindows(measures, shape)
        self._series = SeriesWindows(
            settings.key_types(),
            measures,
            self._windows,
            self._rows,
            max_series=settings.max_series // settings.shards,
            expiry_nano=nanos(settings.series_expiry),
            cumulative=settings.temporality == "cumulative",
        )

    def add(self, item: TelemetryBatch | Partial, now_unix_nano: int) -> Update:
        """Count a batch, or a part of one."""
        return self._add_partial(item) if isinstance(item, Partial) else self._add_batch(item, now_unix_nano)

    def due_unix_nano(self) -> int | None:
        """System time at which `advance` closes a window if nothing comes until then; None: not at all."""
        idle = self._settings.idle_timeout
        return None if idle is None else self._windows.due_unix_nano(nanos(idle))

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment."""
        self._windows.idle_since(system_unix_nano)

    def advance(self, now_unix_nano: int) -> Update:
        """Let the system clock close windows, the input being silent."""
        return Update(rows=self._series.advance(now_unix_nano))

    def flush(self) -> Update:
        """Close all open windows; records for them that still come are late."""
        return Update(rows=self._series.flush())

    def state(self) -> dict[str, Any]:
        """Return everything as plain, versioned data that later changes do not touch."""
        return {
            "version": _STATE_VERSION,
            "settings": self._settings.model_dump(mode="json"),
            "told": self._told,
            **self._series.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> Update:
        """Take over what `state` returned, before anything is added.

        When options that shape windows have changed since, the windows of that time are closed under their own options
        and returned, and counting begins anew behind them.

        Raises:
            BatchError: Another version of telflow wrote it, in a form this one does not read.
        """
        state_version(state, "aggregate", _STATE_VERSION)
        before = AggregateSettings.model_validate(state["settings"])
        if before.shape() != self._settings.shape():
            old = Aggregation(before)
            old.restore(state)
            self._windows.restore_time(state["windows"])
            return old.flush()
        self._series.restore(state)
        self._told = state["told"]
        return Update()

    def _add_batch(self, batch: TelemetryBatch, now_unix_nano: int) -> Update:
        if batch.signal not in self._settings.signals or not batch.num_rows:
            return Update()
        sifted = self._windows.sift(event_times(batch.signal, batch.records), now_unix_nano)
        tenant = batch.resources["tenant"][batch.places("resource")[0]].as_py()
        late = batch.take(sifted.late) if sifted.late.size else None
        ahead = batch.take(sifted.ahead) if sifted.ahead.size else None
        return Update(late=late, ahead=ahead, rows=self._fold(partial_of(batch, tenant, sifted, self._settings)))

    def _add_partial(self, partial: Partial) -> Update:
        late = self._windows.late(partial.sifted)
        refused: tuple[Refused, ...] = ()
        if late.size:
            count = int(partial.records[late].sum())
            refused = (Refused(partial.signal, partial.tenant, count, "late"),)
        return Update(rows=self._fold(partial.without(late)), refused=refused)

    def _fold(self, partial: Partial) -> tuple[pa.RecordBatch, ...]:
        rows = len(partial.records)
        tenant = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(rows, np.int32)), pa.array([partial.tenant], pa.string())
        )
        results = self._series.add(partial.sifted, [tenant, *partial.keys], partial.values)
        if self._early is not None and self._windows.high_unix_nano // self._early > self._told:
            self._told = self._windows.high_unix_nano // self._early
            results += self._series.early()
        return results

    def _rows(self, result: SeriesResult) -> pa.RecordBatch:
        return rows_of(result, self._settings)
