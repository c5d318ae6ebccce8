"""The archive's sink partition with a log: batches are appended to it, and committed to the tables later."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from bytewax.outputs import StatefulSinkPartition
from typing_extensions import override

from connectors.archive.committer import ArchiveCommitter
from telflow.accounting import split_by_tenant
from telflow.batch import TelemetryBatch
from telflow.delivery.clock import Clock
from telflow.delivery.log import Entry, Log, LogFull

__all__ = ["QueuedPartition", "resumed_position"]

_LOG = logging.getLogger(__name__)
_FORMAT = 2
_TOGETHER_BYTES = 8 << 20
_FULL_WAIT_S = 0.25


def resumed_position(state: object, identity: str) -> int | None:
    """Return the position a state speaks of; None when there is none, or it is one of another log.

    >>> resumed_position({"format": 2, "log": "a", "position": 7}, "a")
    7
    >>> resumed_position({"format": 2, "log": "a", "position": 7}, "b")
    """
    if not isinstance(state, dict) or state.get("format") != _FORMAT or state.get("log") != identity:
        return None
    return int(state["position"])


class QueuedPartition(StatefulSinkPartition[TelemetryBatch, dict[str, Any]]):
    """Appends batches together; what `snapshot` covers is in the log, at or below the position it returns."""

    def __init__(
        self,
        log: Log,
        partition: str,
        identity: str,
        committer: ArchiveCommitter,
        *,
        max_bytes: int,
        clock: Clock,
        stopping: Callable[[], bool],
    ) -> None:
        self._log = log
        self._partition = partition
        self._identity = identity
        self._committer = committer
        self._max_bytes = max_bytes
        self._clock = clock
        self._stopping = stopping
        self._batches: list[tuple[str, TelemetryBatch]] = []
        self._bytes = 0
        self._failed = False

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        self._check_committer()
        for batch in values:
            self._batches += split_by_tenant(batch)
            self._bytes += batch.num_bytes
            if self._bytes >= _TOGETHER_BYTES:
                self._append()

    @override
    def snapshot(self) -> dict[str, Any]:
        self._check_committer()
        self._append()
        return {"format": _FORMAT, "log": self._identity, "position": self._log.last_position(self._partition)}

    @override
    def close(self) -> None:
        try:
            if not self._failed:
                self._append()
        finally:
            self._committer.end()

    def _append(self) -> None:
        if not self._batches:
            return
        entries = [
            Entry(batch.signal, batch.to_ipc_bytes(), batch.num_rows, tenant or None, "arrow")
            for tenant, batch in self._batches
        ]
        last = self._append_with_patience(entries)
        for position, (_, batch) in enumerate(self._batches, start=last - len(entries) + 1):
            self._committer.add(position, batch)
        self._batches = []
        self._bytes = 0

    def _append_with_patience(self, entries: list[Entry]) -> int:
        """Append; while there is no room the flow waits, and in the end the receivers refuse data."""
        said = False
        while True:
            try:
                self._check_room()
                return self._log.append_many(self._partition, entries)
            except LogFull as error:
                if not said:
                    _LOG.error("%s: the archive's queue has no room, the flow waits: %s", self._partition, error)
                said = True
                if self._stopping():
                    self._failed = True
                    raise
            self._check_committer()
            with (condition := threading.Condition()):
                self._clock.wait(condition, self._clock.now_s() + _FULL_WAIT_S)

    def _check_room(self) -> None:
        held_bytes = self._log.partition_bytes(self._partition)
        if held_bytes >= self._max_bytes:
            raise LogFull(f"the queue holds {held_bytes} of at most {self._max_bytes} bytes")

    def _check_committer(self) -> None:
        if self._committer.error is not None:
            self._failed = True
            raise self._committer.error
