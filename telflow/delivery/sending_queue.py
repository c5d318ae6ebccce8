"""The sending queue: between a dataflow that must not wait and a destination that may be slow, or gone.

The dataflow puts batches in and goes on; threads encode and send them. One queue belongs to one destination, so that
its retries, its threads and its disk are nobody else's (a bulkhead). The rules:

* **Delivered before the next snapshot: no disk.** A batch is encoded once, sent, and forgotten.
* **Undelivered at the snapshot: on disk.** `snapshot` appends what is still here to the queue's partition of a log, all
  in one commit, and returns the position of the last. So whatever was put in before a snapshot is delivered or in
  the log at or below the snapshot's position. On resume, what lies beyond that position is forgotten: the source of the
  data brings it again. A crash can make records arrive twice, never not at all.
* **Bounded.** Beyond its memory the queue goes to the disk at once; beyond its disk `put` waits (or drops and counts,
  where the owner prefers that).
* **Nobody waits for another.** Owners take turns. A request that fails stands aside until its time has come, and
  the others go on. A destination that fails as a whole is left alone by the circuit breaker.
* **Every record ends its way once**: delivered, or dropped with a reason. What is refused for good is also handed to
  the dead letters. What a restart finds in the log counts as derived (``restored``) in the new process's ledger.

Without a log (`store` is None) `snapshot` waits until everything is delivered, or dropped when retries have ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from telflow.accounting import LEDGER, Ledger, count_by_tenant, split_by_tenant
from telflow.batch import TelemetryBatch
from telflow.codec import Encoding
from telflow.delivery.circuit_breaker import CircuitState
from telflow.delivery.clock import Clock, SystemClock
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.endings import Endings
from telflow.delivery.log import LogError, LogFull
from telflow.delivery.parcel import Packer, Parcel
from telflow.delivery.queue_contents import QueueContents
from telflow.delivery.queue_settings import DeliverySettings
from telflow.delivery.queue_store import QueueStore
from telflow.delivery.senders import Senders
from telflow.delivery.transport import Router, Transport
from telflow.memory_budget import MEMORY, MemoryBudget

__all__ = ["QueueStats", "SendingQueue"]

_LOG = logging.getLogger(__name__)
_POLL_S = 0.25
"""How soon a waiting dataflow notices that it is to stop, which a signal handler cannot notify it of."""
_PATIENCE_S = 0.2
"""How long a dataflow waits in each epoch for a destination that is well: less than compressing and syncing costs."""
_PACE_SHARE = 4
"""Share of the memory (one fourth) that may wait before the dataflow is paced by a destination that is well."""
_FULL_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What a queue holds now.

    Attributes:
        parcels: Undelivered batches, or requests of an earlier run.
        held_bytes: Memory they take.
        stored_bytes: Disk they take, compressed.
        aside: Batches that failed and wait for their next try.
        sending: Batches that a thread is at work on.
        circuit: Whether the destination is asked.
    """

    parcels: int
    held_bytes: int
    stored_bytes: int
    aside: int
    sending: int
    circuit: CircuitState


class SendingQueue:
    """The queue of one destination. `put`, `snapshot` and `close` are called by one thread, the dataflow's."""

    def __init__(
        self,
        transport: Transport | Router,
        encoding: Encoding,
        max_request_bytes: int,
        settings: DeliverySettings,
        *,
        component: str,
        store: QueueStore | None = None,
        resume: int | None = None,
        dead_letters: DeadLetters | None = None,
        ledger: Ledger = LEDGER,
        clock: Clock | None = None,
        in_order: bool = False,
        now_unix_nano: Callable[[], int] = time.time_ns,
        memory: MemoryBudget = MEMORY,
    ) -> None:
        """Open the queue; what an earlier run left in the store is sent at once.

        Args:
            transport: Carries the requests; closed with the queue.
            encoding: How requests are written.
            max_request_bytes: Their size at most, before compression.
            settings: Limits and retries.
            component: The destination's name in the ledger and in log lines.
            store: Where undelivered requests survive; None: in memory only.
            resume: What `snapshot` returned in the epoch that is resumed; None: there is none.
            dead_letters: Keeps what is dropped; None: it is only counted.
            ledger: Where outcomes are counted.
            clock: What retries and waits are timed by.
            in_order: Whether the destination wants requests one after the other, in the order of their records: one is
                on its way at a time, and one that failed holds up those behind it.
            now_unix_nano: The time of day, noted on what is kept.
            memory: That of the process; near it the queue holds an eighth of what it may.

        Raises:
            LogError: The store cannot be used.
        """
        self._transport = transport
        self._routed = isinstance(transport, Router)
        self._limits = settings.sending_queue
        self._memory = memory
        self._shutdown_s = settings.shutdown_timeout.total_seconds()
        self._component = component
        self._store = store if settings.sending_queue.enabled else None
        self._clock = clock or SystemClock()
        self._now_unix_nano = now_unix_nano
        self._patience_s = _PATIENCE_S
        self._stop_at_s: float | None = None
        self._contents = QueueContents(in_order=in_order)
        endings = Endings(component, ledger, dead_letters)
        self._senders = Senders(
            self._contents,
            transport,
            Packer(encoding, max_bytes=max_request_bytes, routing=getattr(transport, "split", None)),
            settings,
            component=component,
            store=self._store,
            endings=endings,
            clock=self._clock,
            stopping=self._stopping,
            in_order=in_order,
            memory=memory,
        )
        if self._store is not None:
            for parcel in self._store.recover(resume):
                endings.restored(parcel)
                self._contents.add(parcel)
            if self._contents.parcels:
                self._senders.start()

    def put(self, batch: TelemetryBatch) -> None:
        """Take a batch over. Waits only when the queue is full, or for moments when the destination is about to.

        Raises:
            LogError: The queue's memory is full, the data cannot be kept, and the time to stop has come.
            LogFull: Likewise.
        """
        if not batch.num_rows:
            return
        arrival_unix_nano = self._now_unix_nano()
        for owner, part in self._owned(batch):
            self._contents.add(Parcel(owner, part, arrival_unix_nano))
            self._senders.start()
        pace_bytes = self._memory.share_of(self._limits.memory_size) // _PACE_SHARE
        if self._contents.held_bytes > pace_bytes:
            self._wait_patiently(lambda: self._contents.held_bytes <= pace_bytes)
            self._make_room()

    def snapshot(self) -> int | None:
        """Make everything that was put in safe; return the position to resume with, None without a store.

        Raises:
            LogError: It is neither delivered nor can it be kept, and the time to stop has come.
            LogFull: Likewise.
        """
        if self._store is None:
            self._wait_delivered()
            return None
        self._wait_patiently(lambda: not self._contents.unstored)
        self._patience_s = _PATIENCE_S
        self._keep(self._store)
        return self._store.last_position

    def stop(self) -> None:
        """Limit what is still waited for to `shutdown_timeout`. Takes no lock: safe in a signal handler."""
        if self._stop_at_s is None:
            self._stop_at_s = self._clock.now_s() + self._shutdown_s

    def close(self) -> None:
        """Deliver what the time allows, keep the rest for the next run, end the threads, close the transport.

        Raises:
            LogError: What is left cannot be kept.
            LogFull: Likewise.
        """
        try:
            if self._store is None:
                self._wait_delivered()
            else:
                self._keep(self._store)
                self._wait_while_well()
        finally:
            self._senders.end()
            self._transport.close()

    def stats(self) -> QueueStats:
        """Return what the queue holds now; may be called by any thread."""
        contents = self._contents
        with contents.work:
            return QueueStats(
                parcels=len(contents.parcels),
                held_bytes=contents.held_bytes,
                stored_bytes=self._store.stored_bytes if self._store else 0,
                aside=contents.order.aside,
                sending=contents.sending,
                circuit=self._senders.breaker.state,
            )

    def _owned(self, batch: TelemetryBatch) -> list[tuple[str, TelemetryBatch]]:
        """Return (owner, records): what is kept, or sent by different ways, is of one owner each."""
        if self._store is not None or self._routed or len(count_by_tenant(batch)) == 1:
            return split_by_tenant(batch)
        return [("", batch)]

    def _wait_patiently(self, done: Callable[[], bool]) -> None:
        """Wait for a destination that is well, as long as this epoch's patience lasts."""
        with self._contents.progress:
            started_s = self._clock.now_s()
            until_s = started_s + self._patience_s
            while not done() and self._well() and self._clock.now_s() < until_s:
                self._clock.wait(self._contents.progress, until_s)
            self._patience_s -= min(self._patience_s, self._clock.now_s() - started_s)

    def _well(self) -> bool:
        return self._senders.breaker.state is CircuitState.CLOSED and not self._contents.order.aside

    def _stopping(self) -> bool:
        return self._stop_at_s is not None and self._clock.now_s() >= self._stop_at_s

    def _wait_delivered(self) -> None:
        """Wait until nothing is left; drop what is left when the time to stop has come."""
        contents = self._contents
        with contents.progress:
            while contents.parcels and not self._stopping():
                self._clock.wait(contents.progress, self._stop_at_s, poll_s=_POLL_S)
            left = contents.order.drain() if contents.parcels else []
        for parcel in left:
            self._senders.give_up(parcel)
        with contents.progress:
            while contents.sending:  # what is on its way has the transport's timeout
                self._clock.wait(contents.progress, None, poll_s=_POLL_S)

    def _wait_while_well(self) -> None:
        """Everything is kept: go on delivering while that is quick, leave the rest to the next run."""
        self.stop()
        with self._contents.progress:
            while self._contents.parcels and self._well() and not self._stopping():
                self._clock.wait(self._contents.progress, self._stop_at_s, poll_s=_POLL_S)

    def _make_room(self) -> None:
        """Bring the queue below its memory: onto the disk, or by waiting."""
        contents, limit_bytes = self._contents, self._memory.share_of(self._limits.memory_size)
        if contents.held_bytes <= limit_bytes:
            return
        if self._store is not None:
            self._keep(self._store)
            contents.release(limit_bytes // 2)
            return
        with contents.progress:
            while contents.held_bytes > limit_bytes and len(contents.parcels) > 1 and not self._stopping():
                self._clock.wait(contents.progress, self._stop_at_s, poll_s=_POLL_S)

    def _keep(self, store: QueueStore) -> None:
        """Append what is in memory only to the log; where there is no room, wait for it, or for the delivery."""
        contents = self._contents
        reported = False
        while True:
            with contents.work:
                parcels = list(contents.unstored)
            if not parcels:
                return
            for parcel in parcels:
                self._senders.pack(parcel)
            with contents.work:
                requests = [r for parcel in parcels for r in parcel.requests if r.open and r.stored is None]
            try:
                contents.kept(parcels, requests, store.append(requests))
            except (LogError, LogFull) as error:
                if isinstance(error, LogFull) and not self._limits.block_on_overflow:
                    self._drop_for_lack_of_room(parcels)
                    continue
                if not reported:
                    _LOG.error("%s: undelivered data cannot be kept, the flow waits: %s", self._component, error)
                    reported = True
                if self._stopping():
                    raise
                with contents.progress:
                    if contents.unstored:
                        self._clock.wait(contents.progress, self._clock.now_s() + _FULL_WAIT_S, poll_s=_POLL_S)

    def _drop_for_lack_of_room(self, parcels: list[Parcel]) -> None:
        contents = self._contents
        with contents.progress:
            waiting = contents.order.remove(set(parcels))
            if not waiting and contents.unstored:  # threads are at work on all of them
                self._clock.wait(contents.progress, None, poll_s=_POLL_S)
        for parcel in waiting:
            self._senders.give_up(parcel, "queue full")
