"""The dataflow of `telflow replay`: in this process, or in each worker of a cluster, which finds its options here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.replay import ReplaySettings, build

if TYPE_CHECKING:
    from bytewax.dataflow import Dataflow
    from bytewax.outputs import FixedPartitionedSink

    from connectors.archive import ReplayProgress
    from telflow.batch import TelemetryBatch

__all__ = ["FLOW_ID", "ReplayOrder", "flow"]

FLOW_ID = "replay"
"""Name of the dataflow."""
_VARIABLE = "TELFLOW_REPLAY"


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """What to replay, and where to.

    Attributes:
        settings: What of the archive.
        to: Destination, as the command takes it.
        recovery_dir: Where an interrupted replay is kept; None: nowhere.
    """

    settings: ReplaySettings
    to: str
    recovery_dir: Path | None = None

    def build(self, on_progress: Callable[[ReplayProgress], None] | None = None) -> Dataflow:
        """Return the dataflow.

        Raises:
            ArchiveError: There is no archive, or it is damaged.
            ConfigError: The destination is none.
        """
        return build(self.settings, self._sink(), on_progress=on_progress, flow_id=FLOW_ID)

    def check(self) -> None:
        """Raise what `build` would."""
        self.build()

    def leave_to_workers(self) -> None:
        """Put it where workers that this process starts find it."""
        options = {"settings": self.settings.model_dump(mode="json"), "to": self.to}
        kept = None if self.recovery_dir is None else str(self.recovery_dir)
        os.environ[_VARIABLE] = json.dumps({**options, "recovery_dir": kept})

    @classmethod
    def left(cls) -> ReplayOrder:
        """Return what the process that started this one has left."""
        left: dict[str, Any] = json.loads(os.environ[_VARIABLE])
        settings = ReplaySettings.model_validate_json(json.dumps(left["settings"]))
        return cls(settings, left["to"], Path(left["recovery_dir"]) if left["recovery_dir"] else None)

    def _sink(self) -> FixedPartitionedSink[TelemetryBatch, Any]:
        from connectors.archive import ArchiveSettings, ArchiveSink
        from connectors.console import ConsoleSink
        from connectors.otlp import OtlpSink

        if self.to == "console":
            return ConsoleSink()
        partitions = self.settings.partitions
        if self.to.startswith("archive:"):
            path = Path(self.to.removeprefix("archive:"))
            return ArchiveSink(ArchiveSettings(path=path, partitions=partitions, recovery_dir=self.recovery_dir))
        from control.endpoint import exporter_settings

        return OtlpSink(exporter_settings(self.to), partitions=partitions)


def flow() -> Dataflow:
    """Return the dataflow of a worker."""
    return ReplayOrder.left().build()
