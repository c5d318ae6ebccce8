"""The thread that keeps a log in order beside those who use it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from telflow.delivery.log_file import LogError, LogFull

__all__ = ["Keeper"]

_LOG = logging.getLogger(__name__)
_FULL_WAIT_S = 1.0


class Keeper:
    """Calls `work` whenever it is woken, and every `look_s` seconds, until it is stopped; idle it takes no time."""

    def __init__(self, name: str, work: Callable[[], None], look_s: float | None = None) -> None:
        """Start the thread, which works at once.

        Args:
            name: The thread's name.
            work: What to do; `LogFull` means that it is to be tried again.
            look_s: Work that often even if nobody asks for it; None: only when woken.
        """
        self.stopping = False
        self._work = work
        self._look_s = look_s
        self._awake = threading.Event()
        self._awake.set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have the work done soon."""
        self._awake.set()

    def stop(self) -> None:
        """Let the work under way end, and no other begin."""
        self.stopping = True
        self._awake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._awake.wait(self._look_s)
            self._awake.clear()
            if self.stopping:
                return
            try:
                self._work()
            except LogFull:
                # Forgetting takes a little room too; it is there once a checkpoint or somebody else has made some.
                time.sleep(_FULL_WAIT_S)
                self._awake.set()
            except LogError as error:
                _LOG.error("%s", error)
