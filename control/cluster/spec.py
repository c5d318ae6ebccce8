"""What a worker is told when it starts, as JSON on its command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["WorkerSpec"]


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker of a generation.

    Attributes:
        index: Its number in the cluster.
        host: Name of its host.
        local_index: Its number on its host.
        local_workers: How many workers its host has.
        addresses: Where all workers listen for each other, by number; empty for a single one.
        target: The flow's file or module, or the gateway's settings; None for the usual settings.
        recovery_dir: Folder of the state; None keeps none.
        backup_interval_s: How long old state is kept.
        places: All places of the cluster, for a gateway (`telflow.placement`).
        here: Those that are this worker's.
        parent: Process id of the supervisor.
        channel: File descriptor of the socket to it.
    """

    index: int
    host: str
    local_index: int
    local_workers: int
    addresses: tuple[str, ...]
    target: str | None
    recovery_dir: Path
    backup_interval_s: float = 0.0
    places: tuple[str, ...] = ()
    here: tuple[str, ...] = ()
    parent: int = 0
    channel: int = -1

    def to_json(self) -> str:
        """Write it."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> WorkerSpec:
        """Read what `to_json` wrote.

        >>> spec = WorkerSpec(0, "local", 0, 2, ("127.0.0.1:1", "127.0.0.1:2"), "flow.py", Path("r"))
        >>> WorkerSpec.from_json(spec.to_json()) == spec
        True
        """
        data: dict[str, Any] = json.loads(text)
        lists = {name: tuple(data[name]) for name in ("addresses", "places", "here")}
        return cls(**{**data, **lists, "recovery_dir": Path(data["recovery_dir"])})
