"""Whether the disk has room, asked often and looked up seldom."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["DiskRoom"]

_LOOK_S = 0.25


class DiskRoom:
    """The free bytes of the disk under a folder, beyond those that are to stay free.

    Attributes:
        short: True when the last look found too few.
    """

    def __init__(self, folder: Path, min_free_bytes: int) -> None:
        """Set up; the disk is looked at when it is first asked for.

        Args:
            folder: A folder on the disk.
            min_free_bytes: What is to stay free.
        """
        self.short = False
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._look_s = 0.0
        self._spare_bytes = 0

    def has(self, size: int) -> bool:
        """Return whether `size` bytes may be written.

        Raises:
            OSError: The folder is gone.
        """
        now_s = time.monotonic()
        self._spare_bytes -= size
        if now_s >= self._look_s or self._spare_bytes < 0:
            found = os.statvfs(self._folder)
            spare = found.f_bavail * found.f_frsize - self._min_free_bytes
            self.short = spare < size
            # Others write to the disk too; so look again before all of it is used.
            self._spare_bytes = spare // 2
            self._look_s = now_s + _LOOK_S
        return not self.short
