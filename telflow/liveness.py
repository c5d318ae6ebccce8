"""Tells a worker that works or waits on purpose from one that hangs.

The engine calls into Python on one thread per worker. As long as its calls return, the worker lives; a call that lasts
too long is a hang, unless the code inside says that it waits on purpose (a sink that holds the flow back until its
queue has room). Measured from outside: a side thread looks at the worker's thread, so that nothing is paid per batch.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

__all__ = ["LIVENESS", "Liveness", "Look"]


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of a worker's thread at one moment.

    Attributes:
        progress_age_s: Seconds since the dataflow last asked its heartbeat source, or code said that it waits; None
            before it ran.
        call_s: Seconds that the same call from the engine into Python has been seen to last, purposeful waiting
            excluded; 0 outside of calls.
        where: Where in Python the thread was, `file.py:12 in name`; empty outside of calls.
    """

    progress_age_s: float | None
    call_s: float
    where: str


class Liveness:
    """The life signs of this process's worker thread.

    >>> now = 100.0
    >>> liveness = Liveness(lambda: now)
    >>> liveness.look().progress_age_s is None
    True
    >>> liveness.progressed()
    >>> now = 103.0
    >>> liveness.look().progress_age_s
    3.0
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Build one that has seen nothing.

        Args:
            now_s: A clock that never goes back.
        """
        self._now_s = now_s
        self._thread: int | None = None
        self._progress_s: float | None = None
        self._call: FrameType | None = None
        self._call_since_s = 0.0

    def progressed(self) -> None:
        """Say, on the worker's thread, that the dataflow goes round."""
        self._thread = threading.get_ident()
        self._progress_s = self._now_s()

    def waiting(self) -> None:
        """Say, from time to time, that the calling code waits on purpose; of no effect on other threads."""
        if self._thread == threading.get_ident():
            self._progress_s = self._now_s()

    def resumed(self) -> None:
        """Say, on any thread, that the whole process was stopped until now, or its machine: that is nobody's fault."""
        if self._progress_s is not None:
            self._progress_s = self._now_s()

    def look(self) -> Look:
        """Look at the worker's thread, from another one; how long calls last is as exact as this is called often."""
        now_s, progress_s = self._now_s(), self._progress_s
        if progress_s is None:
            return Look(None, 0.0, "")
        frame = sys._current_frames().get(self._thread or 0)  # noqa: SLF001 - documented, and no other way
        if frame is None:  # the thread is in the engine
            self._call = None
            return Look(now_s - progress_s, 0.0, "")
        call = frame
        while call.f_back is not None:
            call = call.f_back
        if call is not self._call:
            self._call, self._call_since_s = call, now_s
        since_s = max(self._call_since_s, progress_s)
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
        return Look(now_s - progress_s, now_s - since_s, place)


LIVENESS = Liveness()
"""Of the worker in this process."""
