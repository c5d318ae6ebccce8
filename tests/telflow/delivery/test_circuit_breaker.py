"""The circuit breaker: what it lets through in each state, by examples and against a model of all histories."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pydantic import ValidationError

from telflow.delivery.circuit_breaker import CircuitBreaker, CircuitBreakerSettings, CircuitState

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock, *, window_s: float = 10, open_s: float = 5, **more: float) -> CircuitBreaker:
    options = {"failure_ratio": 0.5, "min_requests": 4, **more}
    times = {"window": timedelta(seconds=window_s), "open_duration": timedelta(seconds=open_s)}
    return CircuitBreaker(CircuitBreakerSettings.model_validate({**options, **times}), clock)


def ask(circuit: CircuitBreaker, *outcomes: bool) -> None:
    for outcome in outcomes:
        assert circuit.allow()
        circuit.record(outcome)


def test_it_opens_at_the_ratio_of_enough_requests() -> None:
    """Half of four failing opens it; fewer requests, or a smaller share, do not."""
    clock = Clock()
    few = breaker(clock)
    ask(few, False, False, False)
    assert few.state is CLOSED
    mostly_well = breaker(clock)
    ask(mostly_well, *[True, True, False] * 20)
    assert mostly_well.state is CLOSED
    circuit = breaker(clock)
    ask(circuit, True, True, False, False)
    assert (circuit.state, circuit.allow(), circuit.times_opened) == (OPEN, False, 1)


def test_failures_out_of_the_window_are_forgotten() -> None:
    """Three failures long ago and one now are one failure."""
    clock = Clock()
    circuit = breaker(clock)
    ask(circuit, False, False, False)
    clock.now += 10
    ask(circuit, False)
    assert circuit.state is CLOSED


def test_a_probe_after_the_wait_closes_it_or_opens_it_anew() -> None:
    """Nothing passes before; then one probe, whose outcome decides."""
    clock = Clock()
    circuit = breaker(clock)
    ask(circuit, *[False] * 4)
    clock.now += 4.5
    assert (circuit.allow(), circuit.wait_s()) == (False, 0.5)
    clock.now += 0.5
    assert (circuit.state, circuit.wait_s()) == (HALF_OPEN, 0.0)
    ask(circuit, False)
    assert (circuit.state, circuit.allow(), circuit.wait_s()) == (OPEN, False, 5.0)
    clock.now += 5
    ask(circuit, True)
    assert circuit.state is CLOSED
    ask(circuit, False, False, False)
    assert circuit.state is CLOSED, "what failed before it opened no longer counts"


def test_all_probes_must_succeed() -> None:
    """With three probes no fourth passes, and only the third success closes."""
    clock = Clock()
    circuit = breaker(clock, probes=3)
    ask(circuit, *[False] * 4)
    clock.now += 5
    assert [circuit.allow() for _ in range(4)] == [True, True, True, False]
    circuit.record(success=True)
    circuit.record(success=True)
    assert circuit.state is HALF_OPEN
    circuit.record(success=True)
    assert circuit.state is CLOSED


def test_a_lost_probe_blocks_nobody_for_good() -> None:
    """A probe without an outcome is forgotten after the open duration, and another passes."""
    clock = Clock()
    circuit = breaker(clock)
    ask(circuit, *[False] * 4)
    clock.now += 5
    assert circuit.allow()
    assert (circuit.allow(), circuit.wait_s()) == (False, 5.0)
    clock.now += 5
    assert (circuit.wait_s(), circuit.allow(), circuit.allow()) == (0.0, True, False)


def test_a_late_outcome_changes_nothing_while_open() -> None:
    """Requests under way when it opened neither close it nor keep it open for longer."""
    clock = Clock()
    circuit = breaker(clock)
    ask(circuit, *[False] * 4)
    clock.now += 2
    circuit.record(success=True)
    circuit.record(success=False)
    assert (circuit.state, circuit.wait_s(), circuit.times_opened) == (OPEN, 3.0, 1)


def test_switched_off_everything_passes() -> None:
    """However much fails."""
    circuit = breaker(Clock(), enabled=False)
    ask(circuit, *[False] * 100)
    assert (circuit.state, circuit.wait_s(), circuit.times_opened) == (CLOSED, 0.0, 0)


@pytest.mark.parametrize("wrong", [{"failure_ratio": 0}, {"failure_ratio": 1.1}, {"probes": 0}, {"window": "0s"}])
def test_impossible_rules_are_refused(wrong: dict[str, object]) -> None:
    """Before anything runs."""
    with pytest.raises(ValidationError):
        CircuitBreakerSettings.model_validate(wrong)


def test_threads_get_no_more_probes_than_there_are() -> None:
    """Eight threads asking a half-open breaker at once: exactly the probes pass."""
    clock = Clock()
    circuit = breaker(clock, probes=5)
    ask(circuit, *[False] * 4)
    clock.now += 5
    passed: list[bool] = []
    threads = [threading.Thread(target=lambda: passed.extend(circuit.allow() for _ in range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(passed), len(passed)) == (5, 400)


class Histories(RuleBasedStateMachine):
    """Compares the breaker with a model that keeps every outcome and recomputes its state from them."""

    @initialize(
        ratio=st.sampled_from([0.1, 0.5, 1.0]),
        least=st.integers(1, 5),
        probes=st.integers(1, 3),
        open_s=st.integers(1, 9),
    )
    def begin(self, ratio: float, least: int, probes: int, open_s: int) -> None:
        self.clock = Clock()
        self.ratio, self.least, self.probes, self.open_s = ratio, least, probes, open_s
        self.circuit = breaker(
            self.clock, open_s=open_s, failure_ratio=ratio, min_requests=least, probes=probes
        )  # slots of one second
        self.history: list[tuple[int, bool]] = []  # since it last closed
        self.opened_s: float | None = None
        self.half_open_s: float | None = None
        self.granted = self.succeeded = 0  # probes of this half-open phase
        self.flying = 0

    def expected(self) -> CircuitState:
        if self.opened_s is None:
            return CLOSED
        if self.half_open_s is None and self.clock.now < self.opened_s + self.open_s:
            return OPEN
        if self.half_open_s is None or self.clock.now >= self.half_open_s + self.open_s:
            self.half_open_s, self.granted, self.succeeded = self.clock.now, 0, 0
        return HALF_OPEN

    @rule(quarters=st.integers(0, 60))
    def time_passes(self, quarters: int) -> None:
        self.clock.now += quarters / 4

    @rule()
    def asks(self) -> None:
        state = self.expected()
        passes = state is CLOSED or (state is HALF_OPEN and self.granted < self.probes)
        assert self.circuit.allow() is passes
        self.flying += passes
        self.granted += passes

    @precondition(lambda self: self.flying)
    @rule(success=st.booleans())
    def reports(self, success: bool) -> None:
        state = self.expected()
        self.flying -= 1
        self.circuit.record(success)
        if state is CLOSED:
            second = int(self.clock.now)
            self.history.append((second, success))
            recent = [ok for at, ok in self.history if at > second - 10]
            if len(recent) >= self.least and recent.count(False) >= self.ratio * len(recent):
                self._opens()
        elif state is HALF_OPEN and not success:
            self._opens()
        elif state is HALF_OPEN:
            # An outcome from before the breaker opened counts like a probe's: the destination has answered.
            self.succeeded += 1
            if self.succeeded == self.probes:
                self.opened_s = self.half_open_s = None

    def _opens(self) -> None:
        self.opened_s, self.half_open_s, self.history = self.clock.now, None, []

    @invariant()
    def the_states_agree(self) -> None:
        if hasattr(self, "circuit"):
            assert self.circuit.state is self.expected()
            probe_left = self.expected() is HALF_OPEN and self.granted < self.probes
            assert (self.circuit.wait_s() == 0) is (self.expected() is CLOSED or probe_left)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "60")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
