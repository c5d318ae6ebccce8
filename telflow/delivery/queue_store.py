"""The part of a sending queue that survives the process: one partition of a log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from telflow.codec import Encoding
from telflow.delivery.log import Entry, Log, LogError, LogFull
from telflow.delivery.parcel import Parcel, Request, Stored
from telflow.schema import Signal

__all__ = ["QueueStore"]

_LOG = logging.getLogger(__name__)


class QueueStore:
    """Keeps requests in a log's partition; every method may be called from any thread.

    What is delivered is removed entry by entry, not only from the front, so that one request nobody wants to take does
    not keep the disk full of delivered ones behind it.
    """

    def __init__(self, log: Log, partition: str, *, max_bytes: int = 2 << 30) -> None:
        """Describe the store.

        Args:
            log: Where requests are kept.
            partition: The queue's own part of it; no other queue has that name.
            max_bytes: Compressed bytes after which it takes no more.
        """
        self._max_bytes = max_bytes
        self._log = log
        self._partition = partition

    @property
    def last_position(self) -> int:
        """Position of the newest request ever kept; 0 when there never was one."""
        return self._log.last_position(self._partition)

    @property
    def stored_bytes(self) -> int:
        """Compressed bytes the queue takes on the disk."""
        return self._log.partition_bytes(self._partition)

    def recover(self, through: int | None) -> list[Parcel]:
        """Return what an earlier run left undelivered, each request as a parcel without its body.

        Args:
            through: Position that the resumed snapshot holds; what is beyond it is forgotten, because the source of the
                data brings it again. None: there is no snapshot, everything is kept.

        Raises:
            LogError: The log cannot be used.
        """
        if through is not None:
            self._log.truncate(self._partition, through)
            if through > self.last_position:  # another log than the snapshot knew: no position of it may come again
                self._log.skip_to(self._partition, through)
        return [
            Parcel(
                owner=entry.tenant or "",
                requests=[
                    Request(
                        Signal(entry.signal),
                        {entry.tenant or "": entry.records},
                        entry.stored_bytes,
                        None,
                        cast(Encoding, entry.encoding),
                        arrival_time_unix_nano=entry.arrival_time_unix_nano,
                        stored=Stored(entry.position),
                    )
                ],
            )
            for entry in self._log.index(self._partition)
        ]

    def append(self, requests: Sequence[Request]) -> range:
        """Keep requests, all or none; return their positions.

        Raises:
            LogFull: There is no room.
            LogError: The log cannot be used.
        """
        if self.stored_bytes >= self._max_bytes:
            raise LogFull(f"{self._partition}: the queue holds {self.stored_bytes} of at most {self._max_bytes} bytes")
        entries = [
            Entry(
                request.signal,
                request.body or b"",
                request.records,
                request.tenant,
                request.encoding,
                request.arrival_time_unix_nano,
            )
            for request in requests
        ]
        last = self._log.append_many(self._partition, entries)
        return range(last - len(requests) + 1, last + 1)

    def load(self, request: Request) -> bool:
        """Bring a request's body into memory; False when the log does not have it any more.

        Raises:
            LogError: The log cannot be read.
        """
        assert request.stored is not None  # noqa: S101 - the caller asks only for what was kept
        position = request.stored.position
        entries = self._log.read(self._partition, after=position - 1, max_bytes=0)
        if not entries or entries[0].position != position:
            return False
        request.body = entries[0].payload
        request.size = len(entries[0].payload)
        request.encoding = cast(Encoding, entries[0].encoding)
        return True

    def remove(self, positions: Sequence[int]) -> None:
        """Forget requests that have ended their way. An error is logged: they would be sent again after a restart."""
        try:
            self._log.remove(self._partition, positions)
        except (LogError, LogFull) as error:
            _LOG.error("%s: delivered requests stay in the log: %s", self._partition, error)
