"""Where a flow keeps what it has accepted and not delivered yet, and its own state."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from telflow.settings import Duration, Settings

__all__ = ["StorageSettings", "state_home"]

_MIB = 1 << 20


class StorageSettings(Settings):
    """A folder of the flow's own: the log of what was received, the queues of what is to be sent, the flow's state."""

    dir: Path | None = None
    """The folder, on a local disk; made when missing, readable by its owner only. By default
    ``$XDG_STATE_HOME/telflow/<flow>``, usually ``~/.local/state/telflow/gateway``."""

    durability: Literal["fsync", "os", "memory"] = "fsync"
    """What an acknowledged record survives. ``fsync``: the loss of power; ``os``: the death of the process; ``memory``:
    nothing of the kind, the folder is then used for the flow's state only, and only if `dir` is given."""

    max_bytes: int = Field(default=4096 * _MIB, ge=16 * _MIB)
    """Disk for what was received and is not through the flow yet, compressed (OTLP to about a third); when it is
    spent, senders are told to come back later. The files take up to a quarter more."""

    min_free_bytes: int = Field(default=128 * _MIB, ge=0)
    """Bytes of the disk that are left free: nothing more is accepted before others run out of disk."""

    max_age: Duration | None = Field(default=None, gt=timedelta())
    """Received data that has not entered the flow after this time is dropped and counted; null: never."""

    def folder(self, flow_id: str) -> Path:
        """The folder, whether given or not."""
        return self.dir or state_home() / "telflow" / flow_id

    def recovery_dir(self, flow_id: str) -> Path | None:
        """Where the engine keeps the flow's state; None: nowhere."""
        if self.durability == "memory" and self.dir is None:
            return None
        return self.folder(flow_id) / "recovery"


def state_home() -> Path:
    """Return the folder for state that is to survive restarts (XDG Base Directory Specification).

    >>> state_home().is_absolute()
    True
    """
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    return given if given.is_absolute() else Path.home() / ".local" / "state"
