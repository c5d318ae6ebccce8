"""What is in a sending queue: its parcels, the memory they take, and whose turn it is."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from telflow.delivery.fair_order import FairOrder
from telflow.delivery.in_order import InOrder
from telflow.delivery.parcel import Parcel, Request, Stored

__all__ = ["QueueContents"]


class QueueContents:
    """The state that a queue's dataflow and its senders share. Every method takes the lock.

    Attributes:
        work: Told of something to send; senders wait on it. Its lock guards all attributes, and what parcels and
            requests say of themselves.
        progress: Told of something sent; the dataflow waits on it. It has the same lock.
        order: Parcels nobody is at work on.
        parcels: All undelivered parcels, oldest first.
        unstored: Those of them that are in memory only.
        held_bytes: Memory that bodies and batches take.
        sending: Parcels somebody is at work on.
    """

    def __init__(self, *, in_order: bool = False) -> None:
        """Begin empty.

        Args:
            in_order: Whether no parcel may overtake another.
        """
        lock = threading.RLock()
        self.work = threading.Condition(lock)
        self.progress = threading.Condition(lock)
        self.order: FairOrder[Parcel] | InOrder[Parcel] = InOrder() if in_order else FairOrder()
        self.parcels: dict[Parcel, None] = {}
        self.unstored: dict[Parcel, None] = {}
        self.held_bytes = 0
        self.sending = 0
        self._held: dict[Parcel, None] = {}
        self._removals: list[int] = []

    def add(self, parcel: Parcel) -> None:
        """Take in a parcel, or one of an earlier run."""
        with self.work:
            self.parcels[parcel] = None
            if parcel.batch is not None:
                self.unstored[parcel] = None
            self._charge(parcel, parcel.batch.num_bytes if parcel.batch is not None else 0)
            self.order.add(parcel.owner, parcel)

    def take(self, now_s: float) -> Parcel | None:
        """Return the parcel to send now; None when there is none."""
        with self.work:
            parcel = self.order.take(now_s=now_s)
            if parcel is not None:
                parcel.sending = True
                self.sending += 1
            return parcel

    def done_with_one(self) -> bool:
        """Somebody is not at work on a parcel any more; returns True when nothing else waits."""
        with self.work:
            self.sending -= 1
            self.progress.notify()
            return not self.order.ready

    def put_aside(self, parcel: Parcel, due_s: float) -> None:
        """A parcel is to be sent again, later."""
        with self.work:
            parcel.sending = False
            self.order.put_aside(parcel.owner, parcel, due_s=due_s)

    def put_back(self, parcel: Parcel) -> None:
        """A parcel could not be sent just now."""
        with self.work:
            parcel.sending = False
            self.order.put_back(parcel.owner, parcel)

    def packed(self, parcel: Parcel, requests: list[Request]) -> None:
        """A parcel's batch has been encoded."""
        with self.work:
            parcel.batch, parcel.requests = None, requests
            for request in requests:
                request.arrival_time_unix_nano = parcel.arrival_time_unix_nano
            self._charge_bodies(parcel)

    def replaced(self, parcel: Parcel, request: Request, again: Sequence[Request]) -> None:
        """A request's records go in other requests."""
        with self.work:
            request.open = False
            at = parcel.requests.index(request)
            parcel.requests[at : at + 1] = again
            for part in again:
                part.arrival_time_unix_nano = request.arrival_time_unix_nano
                if request.stored is not None:
                    part.stored = request.stored
                    part.stored.requests += 1
            if request.stored is not None:
                request.stored.requests -= 1
            self._charge_bodies(parcel)

    def loaded(self, parcel: Parcel) -> None:
        """Bodies have been brought back into memory."""
        with self.work:
            self._charge_bodies(parcel)

    def kept(self, parcels: Sequence[Parcel], requests: Sequence[Request], positions: Sequence[int]) -> None:
        """Requests are in the log; some were delivered meanwhile, or packed anew."""
        with self.work:
            for request, position in zip(requests, positions, strict=True):
                if request.open:
                    request.stored = Stored(position)
                else:
                    self._removals.append(position)
            for parcel in parcels:
                if all(request.stored for request in parcel.requests):
                    self.unstored.pop(parcel, None)

    def ended(self, parcel: Parcel, request: Request) -> None:
        """A request has ended its way."""
        with self.work:
            request.open = False
            parcel.requests.remove(request)
            if request.stored is not None:
                request.stored.requests -= 1
                if not request.stored.requests:
                    self._removals.append(request.stored.position)
            self._charge_bodies(parcel)
            if not parcel.requests:
                self._leave(parcel)

    def ended_batch(self, parcel: Parcel) -> None:
        """A parcel that cannot be encoded has ended its way."""
        with self.work:
            parcel.batch = None
            self._charge(parcel, 0)
            self._leave(parcel)

    def release(self, bytes_left: int) -> None:
        """Forget bodies that the log has, the newest first, until no more than so much memory is held."""
        with self.work:
            for parcel in list(reversed(self._held)):
                if self.held_bytes <= bytes_left:
                    return
                if not parcel.sending:
                    self._forget_bodies(parcel)

    def removals(self) -> list[int]:
        """Return, and forget, the positions that the log need not keep any more."""
        with self.work:
            removals, self._removals = self._removals, []
            return removals

    def _forget_bodies(self, parcel: Parcel) -> None:
        if parcel.batch is None and all(request.stored for request in parcel.requests):
            for request in parcel.requests:
                request.body = None
            self._charge(parcel, 0)

    def _leave(self, parcel: Parcel) -> None:
        self.parcels.pop(parcel, None)
        self.unstored.pop(parcel, None)

    def _charge_bodies(self, parcel: Parcel) -> None:
        self._charge(parcel, sum(request.size for request in parcel.requests if request.body is not None))

    def _charge(self, parcel: Parcel, held_bytes: int) -> None:
        self.held_bytes += held_bytes - parcel.held_bytes
        parcel.held_bytes = held_bytes
        if held_bytes:
            self._held[parcel] = None
        else:
            self._held.pop(parcel, None)
