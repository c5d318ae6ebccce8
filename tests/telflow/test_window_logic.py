"""The engine's side of windows: timers, restarts and stalls. The kernel is that of span_metrics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from operators.span_metrics import SpanMetrics, SpanMetricsSettings
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from telflow.window_logic import WindowLogic
from tests.spans import EPOCH, SECOND, Span, spans_batch

NOW = EPOCH + 3600 * SECOND


class _Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


def _logic(clock: _Clock, state: dict[str, Any] | None = None, **options: Any) -> WindowLogic[TelemetryBatch]:
    settings = SpanMetricsSettings.model_validate({"temporality": "delta", **options})
    return WindowLogic("test", SpanMetrics(settings), state, emit_on_eof=False, clock=clock, ledger=Ledger())


def test_a_stall_of_the_worker_is_not_silence() -> None:
    """Woken far too late, the step waits once more: what came in the meantime is still in front of it."""
    clock = _Clock()
    logic = _logic(clock)
    assert logic.notify_at() is None
    logic.on_batch([spans_batch([Span(EPOCH)])])
    due = logic.notify_at()
    assert due == datetime.fromtimestamp((NOW + 15 * SECOND) / SECOND, UTC)
    clock.now = NOW + 14 * SECOND
    assert list(logic.on_notify()[0]) == []
    clock.now = NOW + 40 * SECOND
    assert list(logic.on_notify()[0]) == []
    assert logic.notify_at() == due + timedelta(seconds=40)
    clock.now = NOW + 55 * SECOND
    (batch,) = logic.on_notify()[0]
    assert batch.signal is Signal.METRICS
    assert logic.notify_at() is None


def test_after_a_restart_silence_counts_anew() -> None:
    """Windows restored after a long stop wait for what the sources still hold."""
    clock = _Clock()
    logic = _logic(clock)
    logic.on_batch([spans_batch([Span(EPOCH)])])
    state = logic.snapshot()
    clock.now = NOW + 1000 * SECOND
    restored = _logic(clock, state)
    assert restored.notify_at() == datetime.fromtimestamp((NOW + 1015 * SECOND) / SECOND, UTC)


@pytest.mark.parametrize("event", ["batch", "notify", "eof"])
def test_windows_of_changed_options_come_out_first(event: str) -> None:
    """Whatever happens first after a restart with other buckets, the old windows leave with it."""
    clock = _Clock()
    logic = _logic(clock)
    logic.on_batch([spans_batch([Span(EPOCH)])])
    restored = _logic(clock, logic.snapshot(), buckets=["3s"])
    assert restored.notify_at() == datetime.fromtimestamp(NOW / SECOND, UTC)
    out = {
        "batch": lambda: restored.on_batch([spans_batch([Span(EPOCH)])]),
        "notify": restored.on_notify,
        "eof": restored.on_eof,
    }[event]()[0]
    assert [batch.signal for batch in out] == [Signal.METRICS]
