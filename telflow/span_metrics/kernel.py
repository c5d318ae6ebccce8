"""Span metrics of one key of a stream: spans in, metrics of closed windows out. No clock and no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow.aggregation.partial import Partial
from telflow.aggregation.settings import nanos
from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from telflow.series_windows import SeriesWindows
from telflow.span_metrics.family import Family
from telflow.span_metrics.rows import CrossedPart, SpanPart, SpanReader, refused_spans
from telflow.span_metrics.settings import SpanMetricsSettings
from telflow.state_version import state_version
from telflow.window_logic import Refused, Update

__all__ = ["SpanMetrics"]

_STATE_VERSION = 3


class SpanMetrics:
    """The kernel; times are Unix nanoseconds.

    >>> kernel = SpanMetrics(SpanMetricsSettings())
    >>> kernel.add(TelemetryBatch.empty(Signal.TRACES), now_unix_nano=0)
    Update(metrics=(), late=None, ahead=None, rows=(), refused=())
    """

    def __init__(self, settings: SpanMetricsSettings) -> None:
        self._settings = settings
        self._reader = SpanReader(settings)
        self._families = [Family(measured, settings) for measured in self._reader.measured]
        # All families see the same times, so their windows open and close together; the first has all spans.
        self._windows = self._families[0].windows

    def add(self, item: TelemetryBatch | SpanPart | CrossedPart, now_unix_nano: int) -> Update:
        """Count a batch of spans, or what came of one from another process; other signals change nothing."""
        if isinstance(item, CrossedPart):
            return self._add_crossed(item)
        batch = item.batch if isinstance(item, SpanPart) else item
        if batch.signal is not Signal.TRACES or not batch.num_rows:
            return Update()
        sifted = self._windows.sift(batch.records["end_time_unix_nano"].to_numpy(), now_unix_nano)
        metrics = self._fold(self._reader.parts(batch, sifted))
        if self._settings.late == "drop":
            return Update(metrics, refused=refused_spans(batch, sifted))
        late = batch.take(pa.array(sifted.late)) if sifted.late.size else None
        ahead = batch.take(pa.array(sifted.ahead)) if sifted.ahead.size else None
        return Update(metrics, late, ahead)

    def _add_crossed(self, crossed: CrossedPart) -> Update:
        spans = crossed.parts[0]
        late = self._windows.late(spans.sifted)
        refused = (*crossed.refused, *_late(spans.take(late))) if late.size else crossed.refused
        parts = [part.without(self._windows.late(part.sifted)) for part in crossed.parts]
        return Update(self._fold(parts), refused=refused)

    def _fold(self, parts: Sequence[Partial]) -> tuple[TelemetryBatch, ...]:
        made: list[TelemetryBatch] = []
        for family, part in zip(self._families, parts, strict=True):
            if family.name == "events":
                # Spans without events are no silence, and windows without events repeat totals.
                family.windows.open(parts[0].sifted)
            made += family.series.add(part.sifted, part.keys, part.values)
        return tuple(batch for batch in made if batch.num_rows)

    def due_unix_nano(self) -> int | None:
        """System time at which `advance` closes a window if no spans come until then; None when nothing is open."""
        idle = self._settings.idle_timeout
        return None if idle is None else self._windows.due_unix_nano(nanos(idle))

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment: after a restart, or a stall of the process."""
        for family in self._families:
            family.windows.idle_since(system_unix_nano)

    def advance(self, now_unix_nano: int) -> Update:
        """Let the system clock close windows, the input being silent; only when `due_unix_nano` has passed."""
        return self._each(lambda series: series.advance(now_unix_nano))

    def flush(self) -> Update:
        """Close all open windows; spans for them that still come are late."""
        return self._each(SeriesWindows[TelemetryBatch].flush)

    def state(self) -> dict[str, Any]:
        """Return everything as plain, versioned data that later changes do not touch."""
        return {
            "version": _STATE_VERSION,
            "settings": self._settings.model_dump(mode="json"),
            "families": {family.name: family.series.state() for family in self._families},
        }

    def restore(self, state: Mapping[str, Any]) -> Update:
        """Take over what `state` returned, before anything is added.

        When options that shape windows have changed since, the windows of that time cannot go on: they are closed
        under their own options and returned, and counting begins anew behind them.

        Raises:
            BatchError: Another version of telflow wrote it, in a form this one does not read.
        """
        if state_version(state, "span_metrics", _STATE_VERSION - 1, _STATE_VERSION) == _STATE_VERSION:
            families = state["families"]
        else:  # had one family, of all spans
            families = {"spans": {name: state[name] for name in ("series", "windows", "life", "totals")}}
        before = SpanMetricsSettings.model_validate(state["settings"])
        if before.shape() != self._settings.shape():
            old = SpanMetrics(before)
            old.restore(state)
            first = old._families[0].name
            for family in self._families:
                family.windows.restore_time(families[first]["windows"])
            return old.flush()
        for family in self._families:
            family.series.restore(families[family.name])
        return Update()

    def _each(self, step: Callable[[SeriesWindows[TelemetryBatch]], tuple[TelemetryBatch, ...]]) -> Update:
        return Update(tuple(made for family in self._families for made in step(family.series) if made.num_rows))


def _late(spans: Partial) -> list[Refused]:
    """Say whose some spans are that came too late: their first key."""
    owners = pc.fill_null(spans.keys[0], "").dictionary_encode()
    counts = np.bincount(owners.indices.to_numpy(), weights=spans.records)
    return [
        Refused(Signal.TRACES, owner or None, int(count), "late")
        for owner, count in zip(owners.dictionary.to_pylist(), counts, strict=True)
    ]
