"""When to try a delivery again: exponential backoff with jitter, bounded in time."""

from __future__ import annotations

import random
from datetime import timedelta

from pydantic import Field, model_validator

from telflow.settings import Duration, Settings

__all__ = ["Backoff", "RetrySettings"]

_MAX_ELAPSED_S = 300.0


class RetrySettings(Settings):
    """How a delivery is repeated that the destination may accept later."""

    enabled: bool = True
    """Off: every delivery is tried once."""

    initial_interval: Duration = Field(default=timedelta(seconds=5), gt=timedelta())
    """Wait before the first repetition."""

    max_interval: Duration = Field(default=timedelta(seconds=30), gt=timedelta())
    """Longest wait between two tries; a longer one that the destination asks for is honoured."""

    multiplier: float = Field(default=1.5, ge=1)
    """By how much each wait is longer than the one before."""

    jitter: float = Field(default=0.5, ge=0, lt=1)
    """Share by which a wait varies at random, so that many senders do not come back at the same moment."""

    max_elapsed_time: Duration | None = None
    """Give up so long after the first try; 0 never gives up. By default 5 minutes, as in the Collector, where
    undelivered data lives in memory; never, where it is kept on disk: nothing is lost because a backend is down."""

    @model_validator(mode="after")
    def _check(self) -> RetrySettings:
        if self.max_interval < self.initial_interval:
            raise ValueError(
                f"expected max_interval to be at least initial_interval ({self.initial_interval.total_seconds():g}s), "
                f"got {self.max_interval.total_seconds():g}s"
            )
        return self


class Backoff:
    """The waits of one delivery.

    >>> backoff = Backoff(RetrySettings(jitter=0), started_s=0.0)
    >>> [backoff.next_wait_s(now_s=t) for t in (0.0, 5.0, 12.5)]
    [5.0, 7.5, 11.25]
    >>> backoff.next_wait_s(now_s=299.0) is None
    True
    """

    def __init__(
        self, settings: RetrySettings, *, started_s: float, kept: bool = False, rng: random.Random | None = None
    ) -> None:
        """Begin.

        Args:
            settings: The rules.
            started_s: When the first try began, on the clock that `next_wait_s` is asked with.
            kept: The data is kept on disk, so that without a `max_elapsed_time` trying never ends.
            rng: Source of the jitter.
        """
        self._settings = settings
        elapsed = settings.max_elapsed_time
        default_s = 0.0 if kept else _MAX_ELAPSED_S
        self._max_elapsed_s = default_s if elapsed is None else elapsed.total_seconds()
        self._started_s = started_s
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._interval_s = settings.initial_interval.total_seconds()

    def next_wait_s(self, *, now_s: float, retry_after_s: float | None = None) -> float | None:
        """Return how many seconds to wait before the next try, or None to give up.

        Args:
            now_s: The time now.
            retry_after_s: What the destination asked for; it replaces the interval (OTLP specification, "Throttling").
        """
        if not self._settings.enabled:
            return None
        jitter = self._settings.jitter
        wait_s = self._interval_s * self._rng.uniform(1 - jitter, 1 + jitter)
        self._interval_s = min(
            self._interval_s * self._settings.multiplier, self._settings.max_interval.total_seconds()
        )
        if retry_after_s is not None:
            wait_s = retry_after_s
        if self._max_elapsed_s and now_s + wait_s - self._started_s > self._max_elapsed_s:
            return None
        return wait_s
