"""What a sending queue holds: a parcel for each batch, in it the requests that are to carry it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from telflow.accounting import count_by_tenant
from telflow.batch import TelemetryBatch
from telflow.codec import Encoding, decode, encode
from telflow.delivery.retry import Backoff
from telflow.schema import Signal

__all__ = ["Packer", "Parcel", "Request", "Routing", "Stored", "split_batch"]

Routing = Callable[[TelemetryBatch], Sequence[tuple[str, TelemetryBatch]]]
"""Splits a batch by where its records are to go: (route, records) of each place."""

_SPLIT_MARGIN = 1.1  # records differ in size; a little smaller parts save encoding some of them twice


@dataclass(slots=True)
class Stored:
    """An entry of the log, and how many requests still need it."""

    position: int
    requests: int = 1


@dataclass(slots=True, eq=False)
class Request:
    """One request to a destination.

    Attributes:
        signal: What its records are.
        tenants: How many records of whom; an unknown owner is the empty string.
        size: Bytes of the body.
        body: The Export*ServiceRequest, uncompressed; None while it is in the log only.
        encoding: How it is written.
        arrival_time_unix_nano: When the queue got it.
        route: To which of several endpoints; empty when any will do.
        stored: The log's entry that holds it; None while it is in memory only.
        open: False once it has ended its way.
    """

    signal: Signal
    tenants: dict[str, int]
    size: int
    body: bytes | None
    encoding: Encoding
    arrival_time_unix_nano: int = 0
    route: str = ""
    stored: Stored | None = None
    open: bool = True

    @property
    def records(self) -> int:
        """How many records it carries."""
        return sum(self.tenants.values())

    @property
    def tenant(self) -> str | None:
        """Whose the records are; None when that is unknown or they are of several."""
        return next(iter(self.tenants)) or None if len(self.tenants) == 1 else None


@dataclass(slots=True, eq=False)
class Parcel:
    """A batch on its way to a destination.

    Attributes:
        owner: Whose turn it is when it is sent.
        batch: The records, until they are encoded.
        arrival_time_unix_nano: When the queue got them.
        requests: What carries them, once they are encoded; those that ended their way are removed.
        held_bytes: Memory it is charged for.
        backoff: The waits between its tries; None before the first failure.
        status: The last answer's status.
        sending: A thread is at work on it.
        lock: Held while it is being encoded.
    """

    owner: str
    batch: TelemetryBatch | None = None
    arrival_time_unix_nano: int = 0
    requests: list[Request] = field(default_factory=list)
    held_bytes: int = 0
    backoff: Backoff | None = None
    status: str = ""
    sending: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def tenants(self) -> dict[str, int]:
        """How many records of whom are undelivered."""
        if self.batch is not None:
            return count_by_tenant(self.batch)
        sums: dict[str, int] = {}
        for request in self.requests:
            for tenant, count in request.tenants.items():
                sums[tenant] = sums.get(tenant, 0) + count
        return sums

    @property
    def signal(self) -> Signal:
        """What the records are."""
        return self.requests[0].signal if self.batch is None else self.batch.signal


class Packer:
    """Makes requests of batches, as large as the destination takes them and no larger.

    >>> packer = Packer("protobuf", max_bytes=4 << 20)
    >>> [request.size for request in packer.pack(TelemetryBatch.empty(Signal.LOGS))]
    [0]
    """

    def __init__(self, encoding: Encoding, *, max_bytes: int, routing: Routing | None = None) -> None:
        """Describe the requests.

        Args:
            encoding: How they are written.
            max_bytes: Their size at most. A single record over it is sent all the same: the destination may take it.
            routing: Splits batches by where their records are to go.
        """
        self.encoding: Encoding = encoding
        self._max_bytes = max_bytes
        self._routing = routing

    def pack(self, batch: TelemetryBatch) -> list[Request]:
        """Return the requests that carry `batch`.

        Raises:
            EncodeError: A record cannot be written.
        """
        requests: list[Request] = []
        todo = [("", batch)] if self._routing is None else list(self._routing(batch))
        todo.reverse()
        while todo:
            route, part = todo.pop()
            body = encode(part, self.encoding)
            if len(body) > self._max_bytes and part.num_rows > 1:
                todo.extend((route, smaller) for smaller in reversed(split_batch(part, len(body), self._max_bytes)))
                continue
            requests.append(Request(part.signal, count_by_tenant(part), len(body), body, self.encoding, route=route))
        return requests

    def pack_again(self, request: Request) -> list[Request]:
        """Return requests with the records of one that was written otherwise, or for an endpoint that is gone.

        Raises:
            DecodeError: Its body is damaged.
        """
        assert request.body is not None  # noqa: S101 - the caller has loaded it
        return self.pack(decode(request.body, request.signal, request.encoding, tenant=request.tenant))


def split_batch(batch: TelemetryBatch, size: int, limit: int) -> list[TelemetryBatch]:
    """Cut a batch that encodes to `size` bytes into parts of equally many records, likely to fit into `limit`."""
    parts = min(batch.num_rows, math.ceil(size / limit * _SPLIT_MARGIN))
    rows = math.ceil(batch.num_rows / parts)
    return [batch.slice(start, rows) for start in range(0, batch.num_rows, rows)]
