"""The circuit breaker of a destination: stop asking one that fails, ask again carefully after a while.

Closed, requests pass and their outcomes are counted over a sliding window; when too large a share of enough of them
failed, it opens. Open, nothing passes. After `open_duration` it is half-open: a few probes pass, all of which must
succeed to close it again; one failure opens it anew. (M. Nygard, "Release It!", "Circuit Breaker".)
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from pydantic import Field

from telflow.settings import Duration, Settings

__all__ = ["CircuitBreaker", "CircuitBreakerSettings", "CircuitState"]

_SLOTS = 10  # the window slides by tenths, so that its memory does not grow with the rate of requests


class CircuitBreakerSettings(Settings):
    """When a destination that fails is left alone, and how it is tried again."""

    enabled: bool = True
    """Off: every request passes, however many failed."""

    failure_ratio: float = Field(default=0.5, gt=0, le=1)
    """Stop asking when at least this share of the requests in `window` failed."""

    min_requests: int = Field(default=10, ge=1)
    """Fewer requests than this in `window` are too few to judge by."""

    window: Duration = Field(default=timedelta(seconds=30), gt=timedelta())
    """How far back requests count; it slides by tenths."""

    open_duration: Duration = Field(default=timedelta(seconds=5), gt=timedelta())
    """How long nothing is sent before the first probe."""

    probes: int = Field(default=1, ge=1)
    """Requests let through to find out whether the destination is well; all of them must succeed."""


class CircuitState(enum.StrEnum):
    """Whether requests pass."""

    CLOSED = "closed"
    """All of them."""

    OPEN = "open"
    """None."""

    HALF_OPEN = "half-open"
    """A few, as probes."""


@dataclass(slots=True)
class _Slot:
    """Outcomes of a tenth of the window."""

    number: int
    requests: int = 0
    failures: int = 0


class CircuitBreaker:
    """Decides request by request; may be used by several threads at once.

    Every `allow` that returned True is followed by one `record`. A probe whose outcome is never recorded is forgotten
    after `open_duration`, so a caller that died in between blocks nobody for good.

    >>> now = 0.0
    >>> breaker = CircuitBreaker(CircuitBreakerSettings(min_requests=2), lambda: now)
    >>> for _ in range(2):
    ...     if breaker.allow():
    ...         breaker.record(success=False)
    >>> breaker.state, breaker.allow(), breaker.wait_s()
    (<CircuitState.OPEN: 'open'>, False, 5.0)
    >>> now = 5.0
    >>> breaker.allow(), breaker.allow()
    (True, False)
    >>> breaker.record(success=True)
    >>> breaker.state
    <CircuitState.CLOSED: 'closed'>
    """

    def __init__(self, settings: CircuitBreakerSettings, now_s: Callable[[], float] = time.monotonic) -> None:
        """Begin closed.

        Args:
            settings: The rules.
            now_s: A monotonic clock, in seconds.
        """
        self._settings = settings
        self._now_s = now_s
        self._lock = threading.Lock()
        self._slot_s = settings.window.total_seconds() / _SLOTS
        self._open_s = settings.open_duration.total_seconds()
        self._slots: deque[_Slot] = deque()
        self._state = CircuitState.CLOSED
        self._until_s = 0.0  # open: when probes may go; half-open: when probes without an outcome are forgotten
        self._probes_left = 0
        self._successes = 0
        self._times_opened = 0

    @property
    def state(self) -> CircuitState:
        """The state now; half-open as soon as the next request would pass as a probe."""
        with self._lock:
            return self._advance(self._now_s())

    @property
    def times_opened(self) -> int:
        """How often it has opened, probes that failed included."""
        return self._times_opened

    def allow(self) -> bool:
        """Return whether a request may be sent now; the caller reports what became of it with `record`."""
        if not self._settings.enabled:
            return True
        with self._lock:
            state = self._advance(self._now_s())
            if state is CircuitState.HALF_OPEN and self._probes_left:
                self._probes_left -= 1
                return True
            return state is CircuitState.CLOSED

    def record(self, success: bool) -> None:
        """Report the outcome of a request that was allowed.

        A destination that refuses data for good is well: that is a success here. An outcome that arrives while the
        breaker is open belongs to a request from before and changes nothing.
        """
        if not self._settings.enabled:
            return
        with self._lock:
            now_s = self._now_s()
            state = self._advance(now_s)
            if state is CircuitState.CLOSED:
                self._count(now_s, success)
            elif state is CircuitState.HALF_OPEN:
                self._judge_probe(now_s, success)

    def wait_s(self) -> float:
        """Return how many seconds to wait before asking `allow` again is of use; 0 when it is now."""
        if not self._settings.enabled:
            return 0.0
        with self._lock:
            now_s = self._now_s()
            state = self._advance(now_s)
            passes = state is CircuitState.CLOSED or (state is CircuitState.HALF_OPEN and self._probes_left > 0)
            return 0.0 if passes else max(0.0, self._until_s - now_s)

    def _advance(self, now_s: float) -> CircuitState:
        """Do what time alone does: open becomes half-open, and probes nobody reports on are forgotten."""
        if self._state is not CircuitState.CLOSED and now_s >= self._until_s:
            self._state = CircuitState.HALF_OPEN
            self._until_s = now_s + self._open_s
            self._probes_left = self._settings.probes
            self._successes = 0
        return self._state

    def _count(self, now_s: float, success: bool) -> None:
        number = int(now_s // self._slot_s)
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
        while self._slots[0].number <= number - _SLOTS:
            self._slots.popleft()
        self._slots[-1].requests += 1
        self._slots[-1].failures += not success
        requests = sum(slot.requests for slot in self._slots)
        failures = sum(slot.failures for slot in self._slots)
        if requests >= self._settings.min_requests and failures >= self._settings.failure_ratio * requests:
            self._open(now_s)

    def _judge_probe(self, now_s: float, success: bool) -> None:
        if not success:
            self._open(now_s)
            return
        self._successes += 1
        if self._successes >= self._settings.probes:
            self._state = CircuitState.CLOSED
            self._slots.clear()

    def _open(self, now_s: float) -> None:
        self._state = CircuitState.OPEN
        self._until_s = now_s + self._open_s
        self._times_opened += 1
        self._slots.clear()
