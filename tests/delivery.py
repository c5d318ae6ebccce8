"""A clock that tests move, a destination that answers as it is told, and a queue to it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.delivery.clock import Clock
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Log
from telflow.delivery.queue_settings import DeliverySettings
from telflow.delivery.queue_store import QueueStore
from telflow.delivery.sending_queue import SendingQueue
from telflow.delivery.transport import Answer, Transport, Verdict
from telflow.memory_budget import MEMORY, MemoryBudget
from telflow.schema import Signal

ACCEPTED = Answer(Verdict.ACCEPTED, "OK")
BUSY = Answer(Verdict.RETRYABLE, "UNAVAILABLE")
WRONG = Answer(Verdict.REFUSED, "INVALID_ARGUMENT")


class FakeClock:
    """Time that passes only when everybody waits: then it goes on to the first moment somebody waits for.

    A thread that works is nobody who waits: `busy` counts those in a request, `idle` knows of the others.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.busy = 0
        self.idle: Callable[[], bool] = lambda: True
        self.on_advance: Callable[[], None] = lambda: None
        self._waits: dict[int, float] = {}

    def now_s(self) -> float:
        return self.now

    def wait(self, condition: threading.Condition, until_s: float | None, *, poll_s: float | None = None) -> None:
        del poll_s
        me = threading.get_ident()
        self._waits[me] = math.inf if until_s is None else until_s
        notified = condition.wait(0.002)
        first = min(self._waits.values())
        if not notified and not self.busy and self.now < first < math.inf and self.idle():
            self.now = first
            self.on_advance()
        del self._waits[me]

    def around(self, transport: Transport) -> Transport:
        """Note when the transport is at work."""
        return _Busy(transport, self)


class _Busy:
    def __init__(self, transport: Transport, clock: FakeClock) -> None:
        self._transport = transport
        self._clock = clock
        self._lock = threading.Lock()

    def send(self, signal: Signal, body: bytes) -> Answer:
        with self._lock:
            self._clock.busy += 1
        try:
            return self._transport.send(signal, body)
        finally:
            with self._lock:
                self._clock.busy -= 1

    def close(self) -> None:
        self._transport.close()


class Destination:
    """Takes requests and answers them; what it accepts is kept."""

    def __init__(self, answer: Callable[[Signal, bytes], Answer] = lambda _signal, _body: ACCEPTED) -> None:
        self.answer = answer
        self.accepted: list[tuple[Signal, bytes]] = []
        self.tries = 0
        self.closed = False
        self._lock = threading.Lock()

    def send(self, signal: Signal, body: bytes) -> Answer:
        with self._lock:
            self.tries += 1
        answer = self.answer(signal, body)
        if answer.verdict is Verdict.ACCEPTED:
            with self._lock:
                self.accepted.append((signal, body))
        return answer

    def close(self) -> None:
        self.closed = True

    @property
    def records(self) -> int:
        """Records accepted."""
        return sum(decode(body, signal).num_rows for signal, body in list(self.accepted))


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does soon."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def outcomes(ledger: Ledger) -> dict[tuple[str, str, str], int]:
    return {(row.outcome.value, row.tenant, row.reason): row.count for row in ledger.rows()}


def queue_to(
    destination: Transport,
    *,
    log: Log | None = None,
    ledger: Ledger | None = None,
    resume: int | None = None,
    clock: Clock | None = None,
    dead_letters: DeadLetters | None = None,
    max_request_bytes: int = 4 << 20,
    memory: MemoryBudget = MEMORY,
    in_order: bool = False,
    **settings: Any,
) -> SendingQueue:
    if isinstance(clock, FakeClock):
        destination = clock.around(destination)
    limits = DeliverySettings.model_validate(settings)
    max_bytes = limits.sending_queue.queue_size
    queue = SendingQueue(
        destination,
        "protobuf",
        max_request_bytes,
        limits,
        component="export",
        store=QueueStore(log, "export/0", max_bytes=max_bytes) if log is not None else None,
        resume=resume,
        dead_letters=dead_letters,
        ledger=ledger or Ledger(),
        clock=clock,
        now_unix_nano=lambda: 1_700_000_000_000_000_000,
        memory=memory,
        in_order=in_order,
    )
    if isinstance(clock, FakeClock):
        clock.idle = _idle(queue, clock)
    return queue


def _idle(queue: SendingQueue, clock: FakeClock) -> Callable[[], bool]:
    """Whether no thread of a queue has anything to do now."""
    contents, breaker = queue._contents, queue._senders.breaker

    def idle() -> bool:
        due_s = contents.order.due_s(now_s=clock.now)
        return not contents.sending and (due_s is None or due_s > clock.now or breaker.wait_s() > 0)

    return idle


def in_background(work: Callable[[], object], done: threading.Event) -> None:
    """Run something in a thread, which says when it is done."""

    def run() -> None:
        work()
        done.set()

    threading.Thread(target=run, daemon=True).start()


def memory_at(share: float) -> MemoryBudget:
    """A budget of which so much is taken; the soft limit is at 0.8."""
    budget = MemoryBudget(resident_bytes=lambda: int(share * 1000), relief=lambda: None)
    budget.set_limit(1000, soft_share=0.8)
    return budget


def dead() -> Destination:
    return Destination(lambda _signal, _body: BUSY)


def logs(count: int, *, tenant: str | None = None, first: int = 0) -> TelemetryBatch:
    """Numbered log records: the number stands in `time_unix_nano`."""
    one = decode(_ONE_LOG, Signal.LOGS, tenant=tenant)
    many = one.take(np.zeros(count, dtype=np.int64))
    numbers = pa.array(np.arange(first + 1, first + count + 1, dtype=np.uint64))
    return many.with_column("time_unix_nano", numbers)


_ONE_LOG = ExportLogsServiceRequest(
    resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord(body=AnyValue(string_value="hello"))])])]
).SerializeToString()
