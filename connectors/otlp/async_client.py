"""The OTLP client for asyncio: the same behaviour, on the event loop that uses it.

Requests travel over `grpc.aio` or aiohttp. Only work for a processor, encoding and compressing large batches, is
handed to a thread, so that it holds up nobody else on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from connectors.otlp.client_settings import OtlpClientSettings
from connectors.otlp.shipment import Delivered, Shipment, UndeliveredError
from connectors.otlp.transport import AsyncTransport, connect_async
from telflow.batch import TelemetryBatch
from telflow.delivery.circuit_breaker import CircuitBreaker, CircuitState
from telflow.delivery.retry import Backoff
from telflow.delivery.transport import Answer, Verdict
from telflow.errors import DeliveryError
from telflow.schema import Signal

__all__ = ["AsyncOtlpClient"]

_LOG = logging.getLogger(__name__)
_LONG_TO_ENCODE = 1000  # records; fewer take less time than handing them to a thread is worth
_CANCEL_S = 5.0  # for requests to notice that their connection was closed


class AsyncOtlpClient:
    """Sends batches over OTLP from the tasks of one event loop, with retries and a circuit breaker.

    >>> async def example() -> int:
    ...     settings = OtlpClientSettings.http("http://127.0.0.1:4318").without_retry()
    ...     async with AsyncOtlpClient(settings) as client:
    ...         return (await client.send(TelemetryBatch.empty(Signal.LOGS))).accepted
    >>> asyncio.run(example())
    0
    """

    def __init__(
        self,
        settings: OtlpClientSettings,
        *,
        connect: Callable[[OtlpClientSettings], AsyncTransport] = connect_async,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the client; entering it, or the first batch, prepares the connection.

        Args:
            settings: Destination, limits, and how often to try.
            connect: Makes the transport, in the event loop that uses it.
            now_s: A monotonic clock, which the circuit breaker and the end of retries are timed by.
        """
        self._settings = settings
        self._connect = connect
        self._now_s = now_s
        self._transport: AsyncTransport | None = None
        self._breaker = CircuitBreaker(settings.circuit_breaker, now_s)
        self._in_flight = asyncio.Semaphore(settings.concurrency)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._tasks: set[asyncio.Task[Delivered]] = set()
        self._changed = asyncio.Condition()
        self._under_way = 0
        self._since_flush = Delivered()
        self._closed = False
        self._given_up = asyncio.Event()

    @property
    def circuit(self) -> CircuitState:
        """Whether requests pass to the destination now."""
        return self._breaker.state

    async def send(self, batch: TelemetryBatch) -> Delivered:
        """Deliver a batch, in as many requests as its size needs, and wait until that is done.

        Returns:
            How many records the destination accepted, and how many it rejected of requests it accepted.

        Raises:
            UndeliveredError: The destination refused a request, or could not be reached in the time that the retry
                settings allow; holds the records concerned.
            ConfigError: A certificate cannot be read.
            DeliveryError: The client is closed.
        """
        async with self._counted():
            return await self._deliver(batch)

    async def submit(self, batch: TelemetryBatch) -> asyncio.Task[Delivered]:
        """Deliver a batch in a task of its own; waits while `concurrency` batches are under way.

        Returns:
            The task; it returns or raises what `send` would. What nobody asks it is still in the sum of `flush`.

        Raises:
            ConfigError: A certificate cannot be read.
            DeliveryError: The client is closed.
        """
        await self._slots.acquire()
        try:
            self._open()
        except BaseException:
            self._slots.release()
            raise
        self._under_way += 1
        task = asyncio.get_running_loop().create_task(self._deliver_submitted(batch))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def flush(self, timeout_s: float | None = None) -> Delivered:
        """Wait until everything submitted is delivered or given up.

        Returns:
            What became of all that was submitted since the last flush.

        Raises:
            DeliveryError: Some of it is still under way after `timeout_s` seconds.
        """
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=timeout_s)
            if left:
                raise DeliveryError(
                    f"{self._settings.endpoint}: {len(left)} batches still under way after {timeout_s:g} s",
                    retryable=True,
                )
        flushed, self._since_flush = self._since_flush, Delivered()
        return flushed

    async def close(self, timeout_s: float | None = None) -> None:
        """Take nothing more, let what is under way be delivered, then close the connection.

        What is not delivered when the time is up is given up: its `send` or task raises `UndeliveredError`.

        Args:
            timeout_s: Seconds to wait; `shutdown_timeout` when not given.
        """
        first, self._closed = not self._closed, True
        limit_s = self._settings.shutdown_timeout.total_seconds() if timeout_s is None else timeout_s
        await self._wait_for_all(limit_s)
        self._given_up.set()
        if not first:
            return
        if self._transport is not None:
            await self._transport.close()  # what is still in flight is cancelled by it
        await self._wait_for_all(_CANCEL_S)
        lost = self._since_flush.undelivered
        if lost:
            _LOG.warning("%s: %d submitted records were not delivered", self._settings.endpoint, lost)

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> AsyncTransport:
        if self._closed:
            raise DeliveryError(f"{self._settings.endpoint}: the client is closed")
        if self._transport is None:
            self._transport = self._connect(self._settings)
        return self._transport

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self._open()
        self._under_way += 1
        try:
            yield
        finally:
            await self._leave()

    async def _leave(self) -> None:
        self._under_way -= 1
        async with self._changed:
            self._changed.notify_all()

    async def _wait_for_all(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: not self._under_way)

    def _done(self, task: asyncio.Task[Delivered]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled():
            task.exception()  # told by `flush`, so asyncio need not complain that nobody asked

    async def _deliver_submitted(self, batch: TelemetryBatch) -> Delivered:
        became = Delivered(undelivered=batch.num_rows)
        try:
            became = await self._deliver(batch)
        except UndeliveredError as error:
            became = error.delivered
            raise
        else:
            return became
        finally:
            self._since_flush += became
            await self._leave()

    async def _deliver(self, batch: TelemetryBatch) -> Delivered:
        transport = self._open() if self._transport is None else self._transport
        shipment = Shipment(batch, self._settings)
        large = batch.num_rows > _LONG_TO_ENCODE
        while True:
            request = await asyncio.to_thread(shipment.next_request) if large else shipment.next_request()
            if request is None:
                return shipment.result()
            part, body = request
            shipment.settle(part, await self._try(transport, batch.signal, body))

    async def _try(self, transport: AsyncTransport, signal: Signal, body: bytes) -> Answer:
        """Send a request until there is a final answer, or until it is to be given up."""
        backoff = Backoff(self._settings.retry, started_s=self._now_s())
        while True:
            answer = await self._ask(transport, signal, body)
            if answer.verdict is not Verdict.RETRYABLE:
                return answer
            wait_s = backoff.next_wait_s(now_s=self._now_s(), retry_after_s=answer.retry_after_s)
            if wait_s is None or not await self._pause(wait_s):
                return answer

    async def _ask(self, transport: AsyncTransport, signal: Signal, body: bytes) -> Answer:
        async with self._in_flight:
            if not self._breaker.allow():
                return Answer(Verdict.RETRYABLE, "circuit open", retry_after_s=self._breaker.wait_s())
            answer = await transport.send(signal, body)
            self._breaker.record(answer.verdict is not Verdict.RETRYABLE)
            return answer

    async def _pause(self, wait_s: float) -> bool:
        """Wait before another try; False when the client's time is up and there shall be none."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._given_up.wait()
        return not self._given_up.is_set()
