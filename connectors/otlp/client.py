"""The OTLP client: batches to one destination, from any number of threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from connectors.otlp.client_settings import OtlpClientSettings
from connectors.otlp.shipment import Delivered, Shipment, UndeliveredError
from connectors.otlp.transport import connect
from telflow.batch import TelemetryBatch
from telflow.delivery.circuit_breaker import CircuitBreaker, CircuitState
from telflow.delivery.retry import Backoff
from telflow.delivery.transport import Answer, Transport, Verdict
from telflow.errors import DeliveryError
from telflow.schema import Signal

__all__ = ["OtlpClient"]

_LOG = logging.getLogger(__name__)
_PAUSE_STEP_S = 0.05  # how soon a waiting retry notices that the client stops
_CANCEL_S = 5.0  # for requests to notice that their connection was closed


class OtlpClient:
    """Sends batches over OTLP, with retries and a circuit breaker.

    >>> from connectors.otlp import NullOtlpServer
    >>> with NullOtlpServer(http=None) as server:
    ...     with OtlpClient(OtlpClientSettings.grpc(f"127.0.0.1:{server.grpc_port}")) as client:
    ...         client.send(TelemetryBatch.empty(Signal.LOGS)).accepted
    0
    """

    def __init__(
        self,
        settings: OtlpClientSettings,
        *,
        connect: Callable[[OtlpClientSettings], Transport] = connect,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare the client; it connects with the first batch.

        Args:
            settings: Destination, limits, and how often to try.
            connect: Makes the transport.
            now_s: A monotonic clock, which retries are timed by.
            sleep: Waits so many seconds on that clock.

        Raises:
            ConfigError: A certificate cannot be read.
        """
        self._settings = settings
        self._now_s = now_s
        self._sleep = sleep
        self._transport = connect(settings)
        self._breaker = CircuitBreaker(settings.circuit_breaker, now_s)
        self._in_flight = threading.BoundedSemaphore(settings.concurrency)
        self._slots = threading.BoundedSemaphore(settings.concurrency)
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="otlp-client")
        self._changed = threading.Condition()
        self._under_way = 0  # batches in `send` or submitted
        self._submitted = 0  # of these, the ones submitted
        self._since_flush = Delivered()
        self._closed = False
        self._deadline_s: float | None = None

    @property
    def circuit(self) -> CircuitState:
        """Whether requests pass to the destination now."""
        return self._breaker.state

    def send(self, batch: TelemetryBatch) -> Delivered:
        """Deliver a batch, in as many requests as its size needs, and wait until that is done.

        Returns:
            How many records the destination accepted, and how many it rejected of requests it accepted.

        Raises:
            UndeliveredError: The destination refused a request, or could not be reached in the time that the retry
                settings allow; holds the records concerned.
            DeliveryError: The client is closed.
        """
        with self._counted():
            return self._deliver(batch)

    def submit(self, batch: TelemetryBatch) -> Future[Delivered]:
        """Deliver a batch in the background; waits while `concurrency` batches are under way.

        Returns:
            What `send` would return or raise. What nobody asks it is still in the sum that `flush` returns.

        Raises:
            DeliveryError: The client is closed.
        """
        self._slots.acquire()
        try:
            self._enter(submitted=1)
        except DeliveryError:
            self._slots.release()
            raise
        try:
            future = self._pool.submit(self._deliver, batch)
        except RuntimeError:  # closed in between, without time to wait for this one
            future = Future()
            future.set_exception(self._closed_error())
        future.add_done_callback(lambda done: self._settle(done, batch))
        return future

    def flush(self, timeout_s: float | None = None) -> Delivered:
        """Wait until everything submitted is delivered or given up.

        Returns:
            What became of all that was submitted since the last flush.

        Raises:
            DeliveryError: Some of it is still under way after `timeout_s` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._submitted, timeout_s):
                raise DeliveryError(
                    f"{self._settings.endpoint}: {self._submitted} batches still under way after {timeout_s:g} s",
                    retryable=True,
                )
            flushed, self._since_flush = self._since_flush, Delivered()
        return flushed

    def stop(self) -> None:
        """Give retries no more than `shutdown_timeout` from now on. Safe in a signal handler."""
        self._stop_within(self._settings.shutdown_timeout.total_seconds())

    def close(self, timeout_s: float | None = None) -> None:
        """Take nothing more, let what is under way be delivered, then close the connection.

        What is not delivered when the time is up is given up: its `send` or future raises `UndeliveredError`.

        Args:
            timeout_s: Seconds to wait; `shutdown_timeout` when not given.
        """
        limit_s = self._settings.shutdown_timeout.total_seconds() if timeout_s is None else timeout_s
        with self._changed:
            first, self._closed = not self._closed, True
            self._stop_within(limit_s)
            idle = self._changed.wait_for(lambda: not self._under_way, limit_s)
        if not first:
            return
        self._transport.close()  # what is still in flight is cancelled by it
        if not idle:
            with self._changed:
                idle = self._changed.wait_for(lambda: not self._under_way, _CANCEL_S)
        self._pool.shutdown(wait=idle)
        lost = self._since_flush.undelivered
        if lost:
            _LOG.warning("%s: %d submitted records were not delivered", self._settings.endpoint, lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self, *, submitted: int = 0) -> None:
        with self._changed:
            if self._closed:
                raise self._closed_error()
            self._under_way += 1
            self._submitted += submitted

    def _leave(self, submitted: Delivered | None = None) -> None:
        with self._changed:
            self._under_way -= 1
            if submitted is not None:
                self._submitted -= 1
                self._since_flush += submitted
            self._changed.notify_all()

    def _settle(self, done: Future[Delivered], batch: TelemetryBatch) -> None:
        """Count what became of a submitted batch."""
        error = done.exception()
        if error is None:
            became = done.result()
        else:
            became = error.delivered if isinstance(error, UndeliveredError) else Delivered(undelivered=batch.num_rows)
        self._leave(became)
        self._slots.release()

    def _closed_error(self) -> DeliveryError:
        return DeliveryError(f"{self._settings.endpoint}: the client is closed")

    def _deliver(self, batch: TelemetryBatch) -> Delivered:
        shipment = Shipment(batch, self._settings)
        while (request := shipment.next_request()) is not None:
            part, body = request
            shipment.settle(part, self._try(batch.signal, body))
        return shipment.result()

    def _try(self, signal: Signal, body: bytes) -> Answer:
        """Send a request until there is a final answer, or until it is to be given up."""
        backoff = Backoff(self._settings.retry, started_s=self._now_s())
        while True:
            answer = self._ask(signal, body)
            if answer.verdict is not Verdict.RETRYABLE:
                return answer
            wait_s = backoff.next_wait_s(now_s=self._now_s(), retry_after_s=answer.retry_after_s)
            if wait_s is None or not self._pause(wait_s):
                return answer

    def _ask(self, signal: Signal, body: bytes) -> Answer:
        with self._in_flight:
            if not self._breaker.allow():
                return Answer(Verdict.RETRYABLE, "circuit open", retry_after_s=self._breaker.wait_s())
            answer = self._transport.send(signal, body)
            self._breaker.record(answer.verdict is not Verdict.RETRYABLE)
            return answer

    def _stop_within(self, seconds: float) -> None:
        deadline_s = self._now_s() + seconds
        self._deadline_s = deadline_s if self._deadline_s is None else min(self._deadline_s, deadline_s)

    def _pause(self, wait_s: float) -> bool:
        """Wait before another try; False when the client's time is up and there shall be none."""
        until_s = self._now_s() + wait_s
        while (now_s := self._now_s()) < until_s:
            if self._deadline_s is not None and now_s >= self._deadline_s:
                return False
            # In steps, and without a lock that a signal handler would have to take: see `stop`.
            self._sleep(min(until_s - now_s, _PAUSE_STEP_S))
        return self._deadline_s is None or self._now_s() < self._deadline_s
