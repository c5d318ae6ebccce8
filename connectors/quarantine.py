"""Where data goes that must not go on: records whose redaction failed, kept as they came, for their owner's eyes only.

Each batch is one file of Arrow IPC in a folder that only telflow's user can read. The folder has a limit; what does
not fit any more is dropped and counted, never passed on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from pydantic import Field
from typing_extensions import override

from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.errors import ConfigError
from telflow.settings import Settings

__all__ = ["QuarantineSettings", "QuarantineSink", "read_quarantine"]

_LOG = logging.getLogger(__name__)
_SUFFIX = ".batch"


class QuarantineSettings(Settings):
    """Keeps what could not be redacted. It is unredacted: treat the folder as you treat the data itself."""

    path: Path = Path("telflow-data/quarantine")
    """Folder of the files; made with access for telflow's user only."""

    max_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Most that the folder may hold; records beyond it are dropped and counted."""


class QuarantineSink(FixedPartitionedSink[TelemetryBatch, int]):
    """Writes each batch to a file of its own; what `snapshot` covers is on stable storage.

    Whoever quarantined the records has counted them. Records that cannot be kept are counted once more, as derived
    and dropped, so that the loss shows and the sums still agree.

    Raises:
        ConfigError: The folder cannot be made or written, or others could read it.
    """

    def __init__(
        self,
        settings: QuarantineSettings,
        *,
        ledger: Ledger = LEDGER,
        now_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        """Make the folder and prove that it can be written.

        Args:
            settings: Where, and how much.
            ledger: Where records that could not be kept are counted.
            now_unix_nano: The clock file names come from.
        """
        _make_private(settings.path)
        self._settings = settings
        self._ledger = ledger
        self._now_unix_nano = now_unix_nano

    @override
    def list_parts(self) -> list[str]:
        return ["quarantine"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _QuarantinePartition:
        return _QuarantinePartition(self._settings, self._ledger, self._now_unix_nano, step_id, resume_state or 0)


class _QuarantinePartition(StatefulSinkPartition[TelemetryBatch, int]):
    def __init__(
        self,
        settings: QuarantineSettings,
        ledger: Ledger,
        now_unix_nano: Callable[[], int],
        component: str,
        written: int,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._now_unix_nano = now_unix_nano
        self._component = component
        self._written = written
        self._bytes = sum(file.stat().st_size for file in _files(settings.path))

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        for batch in values:
            if batch.num_rows:
                self._write(batch)

    @override
    def snapshot(self) -> int:
        return self._written

    def _write(self, batch: TelemetryBatch) -> None:
        payload = batch.to_ipc_bytes()
        if self._bytes + len(payload) > self._settings.max_bytes:
            self._lose(batch, "quarantine full")
            return
        name = f"{self._now_unix_nano():020d}-{os.getpid()}-{self._written:06d}-{batch.signal}{_SUFFIX}"
        try:
            _write_durably(self._settings.path / name, payload)
        except OSError as error:
            _LOG.error("%s: %s cannot be written: %s", self._component, self._settings.path, error.strerror)
            self._lose(batch, "quarantine not writable")
            return
        self._bytes += len(payload)
        self._written += 1

    def _lose(self, batch: TelemetryBatch, reason: str) -> None:
        _LOG.warning("%s: dropped %d %s records: %s", self._component, batch.num_rows, batch.signal, reason)
        for outcome in (Outcome.DERIVED, Outcome.DROPPED):
            self._ledger.add_batch(outcome, batch, component=self._component, reason=reason)


def read_quarantine(path: Path) -> Iterator[TelemetryBatch]:
    """Yield the batches a quarantine folder holds, oldest first.

    Raises:
        BatchError: A file is damaged.
    """
    for file in sorted(_files(path)):
        yield TelemetryBatch.from_ipc_bytes(file.read_bytes())


def _files(path: Path) -> Iterator[Path]:
    return path.glob(f"*{_SUFFIX}")


def _make_private(path: Path) -> None:
    probe = path / f".telflow-write-probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)  # also where it existed, or the umask said otherwise
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"quarantine path {str(path)!r}: expected a directory of telflow's own that it may write to, got: "
            f"{error.strerror}; hint: create it for the user telflow runs as (uid {os.geteuid()}), or change `path`"
        ) from error


def _write_durably(file: Path, payload: bytes) -> None:
    """Write a whole file or none: a name appears only when its content is on stable storage."""
    unfinished = file.with_suffix(".unfinished")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(payload)
            out.flush()
            os.fsync(out.fileno())
        unfinished.rename(file)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
