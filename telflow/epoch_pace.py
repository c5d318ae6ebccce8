"""How a source keeps quiet while it waits for others to end their epochs.

Bytewax ends the epochs of each input by a clock of its own, and asks a source for nothing in a new epoch until all
inputs of all workers have ended the one before, and it is committed. Meanwhile the engine goes round without a pause
when the source wanted to be asked long ago: with nothing to do, two workers were measured to take 20 to 40 % of a core
each, and three on two cores kept each other from ending an epoch for seconds. The wait is about the same in every
epoch, so a source can tell beforehand for how long it need not be asked.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["EpochPace"]

_WAITS = 3
_SHARE = 0.9  # of a wait is slept through: one that becomes shorter is seen to be
_IDLE_SHARE = 0.25  # of an epoch, at most, for which an idle source sleeps that could be asked sooner
_AT_ONCE_S = 0.002  # the engine looks once a millisecond: asked that soon after the pause, the wait was over before


class EpochPace:
    """Says for how long one source need not be asked.

    Its epoch ends with the first call after `interval_s`; from then on it waits for the others.

    >>> now = 0.0
    >>> pace = EpochPace(1.0, now_s=lambda: now)
    >>> pace.asked()
    >>> pace.pause_s(idle=False)
    0.0
    >>> now = 1.0
    >>> pace.asked()
    >>> pace.pause_s(idle=False), pace.ended()
    (0.0, None)
    >>> now = 1.05  # the others have ended theirs
    >>> pace.asked()
    >>> now = 2.0
    >>> pace.asked()
    >>> round(pace.pause_s(idle=False), 4)
    0.045
    """

    def __init__(
        self, interval_s: float, *, first_s: float | None = None, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Set up.

        Args:
            interval_s: Length of an epoch.
            first_s: What is taken for the wait before one is known.
            now_s: A clock that never goes back.
        """
        self._interval_s = interval_s
        self._now_s = now_s
        self._asked_s = self._begun_s = now_s()
        self._ended_s: float | None = None
        self._pause_s = 0.0
        self._waits_s: deque[float] = deque(() if first_s is None else (first_s,), maxlen=_WAITS)

    def asked(self) -> None:
        """Say that the engine has asked for data, before anything else is done."""
        self._asked_s = self._now_s()
        if self._ended_s is not None:
            waited_s = self._asked_s - self._ended_s
            # How long it was when it was over before the pause was is not known: look sooner next time.
            self._waits_s.append(waited_s if waited_s > self._pause_s + _AT_ONCE_S else waited_s / 2)
            self._ended_s = None

    def ended(self) -> None:
        """Say that an epoch has ended (`snapshot`)."""
        self._begun_s = self._asked_s
        self._ended_s = self._now_s()

    def pause_s(self, *, idle: bool) -> float:
        """Return how long after this call the source need not be asked: mostly 0, at most an epoch.

        Args:
            idle: The source has nothing to give. Then what comes next may as well wait a moment longer.
        """
        ends = self._asked_s >= self._begun_s + self._interval_s  # the epoch, when this call returns
        if not ends or not self._waits_s:
            return 0.0
        # Never longer than an epoch: others that were slow for a while are no reason to be deaf for as long.
        pause_s = min(min(self._waits_s) * _SHARE, self._interval_s)
        if idle:
            pause_s = max(pause_s, min(max(self._waits_s) * _SHARE, self._interval_s * _IDLE_SHARE))
        self._pause_s = pause_s
        return pause_s
