"""The threads of a sending queue: they encode, send, and decide what becomes of a request that failed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from telflow.batch import TelemetryBatch
from telflow.delivery.circuit_breaker import CircuitBreaker
from telflow.delivery.clock import Clock
from telflow.delivery.endings import Endings
from telflow.delivery.log import LogError
from telflow.delivery.parcel import Packer, Parcel, Request
from telflow.delivery.queue_contents import QueueContents
from telflow.delivery.queue_settings import DeliverySettings
from telflow.delivery.queue_store import QueueStore
from telflow.delivery.retry import Backoff
from telflow.delivery.transport import Answer, Router, Transport, Verdict
from telflow.errors import EncodeError, describe_fault
from telflow.memory_budget import MemoryBudget
from telflow.schema import Signal

__all__ = ["Senders"]

_LOG = logging.getLogger(__name__)
_QUOTA = {"RESOURCE_EXHAUSTED", "HTTP 429"}
"""Refusals of one sender's data that say nothing about the destination's health."""
_UNREADABLE_WAIT_S = 5.0
_PRESSED_PART = 4
_PRESSED_WAIT_S = 0.05
"""While memory is short, a fourth of the threads have a request in it; the others look that often."""


class Senders:
    """Up to `num_consumers` threads, started as they are needed."""

    def __init__(
        self,
        contents: QueueContents,
        transport: Transport | Router,
        packer: Packer,
        settings: DeliverySettings,
        *,
        component: str,
        store: QueueStore | None,
        endings: Endings,
        clock: Clock,
        stopping: Callable[[], bool],
        memory: MemoryBudget,
        in_order: bool = False,
    ) -> None:
        """Describe the threads; `start` starts them.

        Args:
            contents: What is to be sent.
            transport: Carries the requests.
            packer: Makes them.
            settings: Limits and retries.
            component: The destination's name in log lines.
            store: Where requests are whose bodies are not in memory.
            endings: Takes down what became of them.
            clock: What retries are timed by.
            stopping: Whether the time to stop has come, and nothing shall be tried again.
            memory: That of the process.
            in_order: Whether no request may overtake another.
        """
        self.breaker = CircuitBreaker(settings.circuit_breaker, clock.now_s)
        self._contents = contents
        self._send_to = _way(transport)
        self._router = transport if isinstance(transport, Router) else None
        self._packer = packer
        self._retry = settings.retry_on_failure
        self._in_order = in_order
        self._most = 1 if in_order else settings.sending_queue.num_consumers
        self._memory_bytes = settings.sending_queue.memory_size
        self._memory = memory
        self._component = component
        self._store = store
        self._endings = endings
        self._clock = clock
        self._stopping = stopping
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._ended = False

    def start(self) -> None:
        """Have somebody look for work: one that is idle, or a new thread if there may be one more."""
        with self._contents.work:
            if self._idle:
                self._contents.work.notify()
            elif len(self._threads) < self._most and not self._ended:
                name = f"{self._component} {len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def end(self) -> None:
        """End the threads; what one of them is sending is finished first."""
        with self._contents.work:
            self._ended = True
            self._contents.work.notify_all()
        for thread in self._threads:
            thread.join()
        self.remove()

    def pack(self, parcel: Parcel) -> None:
        """Encode a parcel's batch unless somebody has; what cannot be encoded is dropped."""
        with parcel.lock:
            batch = parcel.batch
            if batch is None:
                return
            reason = "not encodable"
            try:
                self._contents.packed(parcel, self._packer.pack(batch))
            except EncodeError:
                pass
            except Exception as error:  # noqa: BLE001 - one batch must not take the worker down
                _LOG.error("%s: internal error %s", self._component, describe_fault(error))
                reason = "internal error"
            else:
                return
            self._drop_batch(parcel, batch, reason)

    def give_up(self, parcel: Parcel, reason: str = "") -> None:
        """Drop what is left of a parcel."""
        if not reason:
            reason = f"retries exhausted ({parcel.status})" if parcel.status else "not sent before the stop"
        with parcel.lock:
            if parcel.batch is not None:
                self._drop_batch(parcel, parcel.batch, reason)
        for request in list(parcel.requests):
            self._drop(parcel, request, reason)

    def remove(self) -> None:
        """Forget in the store what has ended its way."""
        positions = self._contents.removals()
        if positions and self._store is not None:
            self._store.remove(positions)

    def _run(self) -> None:
        while (parcel := self._take()) is not None:
            try:
                self._deliver(parcel)
            except LogError as error:
                _LOG.error("%s: %s", self._component, error)
                self._put_aside(parcel, Answer(Verdict.RETRYABLE, "log not readable", retry_after_s=_UNREADABLE_WAIT_S))
            except Exception as error:  # noqa: BLE001 - one batch must not end the deliveries
                _LOG.error("%s: internal error %s", self._component, describe_fault(error))
                self.give_up(parcel, "internal error")
            if self._contents.done_with_one():
                self.remove()

    def _take(self) -> Parcel | None:
        """Wait for something to do; None when the threads are to end."""
        contents = self._contents
        with contents.work:
            self._idle += 1
            try:
                while not self._ended:
                    now_s = self._clock.now_s()
                    due_s = contents.order.due_s(now_s=now_s)
                    open_s = now_s + self.breaker.wait_s()
                    if self._memory.pressed and contents.sending >= max(self._most // _PRESSED_PART, 1):
                        self._clock.wait(contents.work, now_s + _PRESSED_WAIT_S)
                        continue
                    if due_s is not None and max(due_s, open_s) <= now_s:
                        parcel = contents.take(now_s)
                        self._idle -= 1
                        if contents.order.ready:
                            self.start()
                        self._idle += 1
                        return parcel
                    self._clock.wait(contents.work, None if due_s is None else max(due_s, open_s))
                return None
            finally:
                self._idle -= 1

    def _deliver(self, parcel: Parcel) -> None:
        """Send a parcel's requests; what may be accepted later stands aside."""
        self.pack(parcel)
        failure: Answer | None = None
        for request in list(parcel.requests):
            for part in self._ready(parcel, request):
                if not self.breaker.allow():
                    self._put_back(parcel, failure)
                    return
                answer = self._send(part)
                if answer.verdict is Verdict.RETRYABLE:
                    failure = answer
                    if self._in_order:
                        break
                elif answer.verdict is Verdict.REFUSED:
                    self._drop(parcel, part, f"refused ({answer.status})")
                else:
                    self._endings.delivered(part, answer)
                    self._contents.ended(parcel, part)
            if failure is not None and (self._in_order or not request.route):
                break  # the same destination would say the same of the others, or must not have them before
        if failure is not None:
            self._put_aside(parcel, failure)

    def _send(self, request: Request) -> Answer:
        assert request.body is not None  # noqa: S101 - it is ready
        answer = None
        try:
            answer = self._send_to(request.route, request.signal, request.body)
        finally:
            well = answer is not None and (answer.verdict is not Verdict.RETRYABLE or answer.status in _QUOTA)
            self.breaker.record(success=well or (self._router is not None and self._router.well))
        return answer

    def _ready(self, parcel: Parcel, request: Request) -> Sequence[Request]:
        """Return the requests to send for this one: itself, with its body, or others where its way is gone."""
        if request.body is None:
            assert self._store is not None  # noqa: S101 - what has no body is in the store
            if not self._store.load(request):
                self._drop(parcel, request, "lost from the queue's log")
                return ()
            self._contents.loaded(parcel)
        written_so = request.encoding == self._packer.encoding
        if written_so and (self._router is None or self._router.leads(request.route)):
            return (request,)
        again = self._packer.pack_again(request)
        self._contents.replaced(parcel, request, again)
        return again

    def _put_aside(self, parcel: Parcel, failure: Answer) -> None:
        now_s = self._clock.now_s()
        if parcel.backoff is None:
            parcel.backoff = Backoff(self._retry, started_s=now_s, kept=self._store is not None)
        parcel.status = failure.status
        wait_s = parcel.backoff.next_wait_s(now_s=now_s, retry_after_s=failure.retry_after_s)
        if wait_s is None or (self._store is None and self._stopping()):
            self.give_up(parcel)
            return
        self._contents.put_aside(parcel, now_s + wait_s)
        if self._store is not None:
            self._contents.release(self._memory.share_of(self._memory_bytes) // 2)

    def _put_back(self, parcel: Parcel, failure: Answer | None) -> None:
        if failure is not None:
            self._put_aside(parcel, failure)
        else:
            self._contents.put_back(parcel)

    def _drop(self, parcel: Parcel, request: Request, reason: str) -> None:
        if request.body is None and request.stored is not None and self._store is not None:
            try:
                self._store.load(request)
            except LogError as error:
                _LOG.error("%s: %s", self._component, error)
        self._endings.dropped(request, reason)
        self._contents.ended(parcel, request)

    def _drop_batch(self, parcel: Parcel, batch: TelemetryBatch, reason: str) -> None:
        self._endings.dropped_batch(batch, parcel.arrival_time_unix_nano, reason)
        self._contents.ended_batch(parcel)


def _way(transport: Transport | Router) -> Callable[[str, Signal, bytes], Answer]:
    if isinstance(transport, Router):
        return transport.send_to
    send = transport.send
    return lambda _route, signal, body: send(signal, body)
