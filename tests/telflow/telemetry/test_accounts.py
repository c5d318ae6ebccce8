"""The check of the accounts: what cannot be is noticed, what can be is not complained of."""

from __future__ import annotations

import pytest

from telflow.accounting import Ledger, Outcome
from telflow.schema import Signal
from telflow.telemetry import AccountCheck


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_counted_out_more_often_than_in_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Which tenant, which signal and by how much; said once, and again when it is over."""
    ledger = Ledger()
    check = AccountCheck(ledger, is_holding=lambda: False)
    ledger.add(Outcome.RECEIVED, Signal.LOGS, "acme", 5, component="otlp")
    assert check.look().balanced
    ledger.add(Outcome.DELIVERED, Signal.LOGS, "acme", 7, component="export")
    for _ in range(3):
        state = check.look()
        assert state.overdrawn == {("acme", Signal.LOGS): 2}
        assert not state.balanced
    ledger.add(Outcome.RECEIVED, Signal.LOGS, "acme", 2, component="otlp")
    assert check.look().balanced
    assert [record.getMessage() for record in caplog.records] == [
        "the accounts do not agree: 2 logs records of tenant 'acme' were counted out more often than in",
        "the accounts agree again",
    ]


def test_what_nothing_holds_is_unexplained_after_a_quiet_time() -> None:
    """While anything moves or waits, records in flight are in order; when nothing has for long enough, they are not."""
    ledger, clock, holding = Ledger(), Clock(), [False]
    check = AccountCheck(ledger, is_holding=lambda: holding[0], quiet_s=30, now_s=clock)
    ledger.add(Outcome.RECEIVED, Signal.TRACES, "acme", 4, component="otlp")
    assert check.look().balanced
    clock.now_s = 29
    assert check.look().balanced
    holding[0], clock.now_s = True, 100  # a queue waits for its destination, for however long
    assert check.look().balanced
    holding[0], clock.now_s = False, 129
    assert check.look().balanced
    clock.now_s = 131
    assert check.look().unexplained == 4
    ledger.add(Outcome.DELIVERED, Signal.TRACES, "acme", 4, component="export")
    assert check.look().balanced
    clock.now_s = 1000
    assert check.look().balanced


def test_the_check_holds_for_every_way_a_record_can_end() -> None:
    """Delivered, dropped, quarantined, throttled, and copies that are derived: in flight is what is left."""
    ledger = Ledger()
    check = AccountCheck(ledger, is_holding=lambda: False)
    ledger.add(Outcome.RECEIVED, Signal.METRICS, None, 10, component="otlp")
    ledger.add(Outcome.DERIVED, Signal.METRICS, None, 10, component="archive", reason="copy")
    ends = (Outcome.DELIVERED, Outcome.DROPPED, Outcome.QUARANTINED, Outcome.THROTTLED)
    for left, outcome in zip((15, 10, 5, 0), ends, strict=True):
        ledger.add(outcome, Signal.METRICS, None, 5, component="x")
        state = check.look()
        assert state.balances["", Signal.METRICS].in_flight == left
        assert state.balanced
