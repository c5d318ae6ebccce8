"""The memory budget of this process: what it may take, and who has to hold back when it takes too much.

Queues and intakes count the data they hold. But what a process takes is more: data on its way through the flow, what
allocators keep for reuse, libraries. So beside those counts there is one look at the whole, resident memory:

* **pressed** (the soft limit): what can wait on the disk goes there instead of into memory, sources that fetch their
  data (Kafka, an archive) fetch less, and free memory is given back to the operating system.
* **spent** (the hard limit): receivers refuse with the answer that tells senders to come back, as long as anything of
  what they took is waiting. So a budget that is spent on other things slows a flow down and does not stop it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from telflow import _native
from telflow.errors import ConfigError
from telflow.memory import give_back, use_small_pages
from telflow.settings import Settings

__all__ = ["MEMORY", "MemoryBudget", "MemorySettings", "available_bytes"]

_LOOK_EVERY_S = 0.02
_PRESSED_PART = 8
_HARD_SHARE = 15 / 16  # what was let in before the limit needs room, too
_GIVE_BACK_EVERY_S = 0.5
_LEAST_ROOM_BYTES = 32 << 20
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class MemorySettings(Settings):
    """Memory of a whole process, each worker of a cluster by itself."""

    max_bytes: int | None = Field(default=None, ge=64 << 20)
    """Resident memory to stay below: a little earlier (fifteen sixteenths) receivers refuse data and tell senders to
    come back. By default nine tenths of what the container, or else the machine, has."""

    soft_share: float = Field(default=0.8, gt=0, le=1)
    """Share of it from which on undelivered data is moved to the disk and sources fetch less."""


class MemoryBudget:
    """Compares a process's resident memory with its budget; safe in any thread, and cheap enough to ask per request.

    Attributes:
        limit_bytes: What to stay below; None: there is no limit.
        taken_bytes: What the process took when it was looked at last, at most 20 ms before anybody asked.

    >>> budget = MemoryBudget(resident_bytes=lambda: 230, now_s=lambda: 0.0)
    >>> budget.pressed, budget.spent
    (False, False)
    >>> budget.set_limit(256, soft_share=0.8)
    >>> budget.pressed, budget.spent
    (True, False)
    """

    def __init__(
        self,
        *,
        resident_bytes: Callable[[], int] | None = None,
        now_s: Callable[[], float] = time.monotonic,
        relief: Callable[[], object] | None = None,
    ) -> None:
        """Begin without a limit.

        Args:
            resident_bytes: What the process takes.
            now_s: When it was looked at last.
            relief: Called from time to time while the budget is pressed: gives free memory back.
        """
        self._resident_bytes = resident_bytes or _resident_bytes
        self._now_s = now_s
        self._relief = relief or _give_back_all
        self._looking = threading.Lock()
        self._next_look_s = -float("inf")
        self._next_relief_s = -float("inf")
        self.taken_bytes = 0
        self.limit_bytes: int | None = None
        self._soft_bytes = self._hard_bytes = 0.0

    def set_limit(self, limit_bytes: int | None, *, soft_share: float = 0.8) -> None:
        """Set the memory to stay below, and the soft limit as a share of it; None: no limit."""
        with self._looking:
            self.limit_bytes, self._soft_bytes = limit_bytes, soft_share * (limit_bytes or 0)
            self._hard_bytes = _HARD_SHARE * (limit_bytes or 0)
            self._next_look_s = -float("inf")

    def apply(self, settings: MemorySettings) -> None:
        """Set the limits that settings say.

        Raises:
            ConfigError: The process takes more already, or leaves too little room for data.
        """
        limit_bytes = settings.max_bytes or available_bytes() * 9 // 10
        taken_bytes = self._resident_bytes()
        if taken_bytes + _LEAST_ROOM_BYTES > limit_bytes:
            raise ConfigError(
                f"memory.max_bytes: expected {_mib(taken_bytes + _LEAST_ROOM_BYTES)} or more, as the process takes"
                f" {_mib(taken_bytes)} before any data comes, got {_mib(limit_bytes)}"
            )
        if settings.max_bytes is not None:
            use_small_pages()
        # Below what it takes at rest nothing would ever be anything but pressed.
        share = max(settings.soft_share, (taken_bytes + _LEAST_ROOM_BYTES / 2) / limit_bytes)
        self.set_limit(limit_bytes, soft_share=share)

    @property
    def pressed(self) -> bool:
        """True from the soft limit on."""
        return self.limit_bytes is not None and self._look() >= self._soft_bytes

    @property
    def spent(self) -> bool:
        """True from the hard limit on."""
        return self.limit_bytes is not None and self._look() >= self._hard_bytes

    def share_of(self, max_bytes: int) -> int:
        """Return what a store that may hold `max_bytes` is to hold at most now: an eighth while pressed."""
        return max_bytes // _PRESSED_PART if self.pressed else max_bytes

    def _look(self) -> int:
        now_s = self._now_s()
        if now_s >= self._next_look_s and self._looking.acquire(blocking=False):
            try:
                self.taken_bytes = self._resident_bytes()
                self._next_look_s = now_s + _LOOK_EVERY_S
                relieve = self.taken_bytes >= self._soft_bytes and now_s >= self._next_relief_s
                if relieve:
                    self._next_relief_s = now_s + _GIVE_BACK_EVERY_S
            finally:
                self._looking.release()
            if relieve:
                self._relief()
        return self.taken_bytes


def _resident_bytes() -> int:
    """Return the resident memory of this process; 0 where there is no /proc to say it."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - asked often
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


def available_bytes() -> int:
    """Return the memory that this process may have at most: its control group's, or else the machine's."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUPS:
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return min(found)


def _give_back_all() -> None:
    pa.default_memory_pool().release_unused()
    _native.give_back()
    give_back()


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / (1 << 20):.0f} MiB"


MEMORY = MemoryBudget()
"""That of this process."""
