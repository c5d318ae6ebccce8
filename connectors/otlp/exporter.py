"""The OTLP sink: batches out to one destination, several requests in flight, every record accounted for."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from connectors.otlp.settings import OtlpExporterSettings
from connectors.otlp.transport import connect
from telflow.accounting import LEDGER, Ledger, Outcome, count_by_tenant
from telflow.batch import TelemetryBatch
from telflow.codec import Encoding, encode
from telflow.delivery.retry import Backoff
from telflow.delivery.transport import Answer, Transport, Verdict
from telflow.errors import EncodeError, describe_fault

__all__ = ["OtlpSink"]

_LOG = logging.getLogger(__name__)
_PAUSE_STEP_S = 0.05  # how soon a waiting retry notices that the worker stops
_SPLIT_MARGIN = 1.1  # records differ in size; a little smaller parts save encoding some of them twice


class OtlpSink(FixedPartitionedSink[TelemetryBatch, int]):
    """Exports batches over OTLP.

    When `snapshot` has returned, every record written before is delivered, or dropped and counted with the reason:
    an epoch is committed only when nothing of it waits in memory. A destination that is down therefore holds the
    dataflow up, which in the end makes the receivers refuse data with a hint to retry.
    """

    def __init__(
        self,
        settings: OtlpExporterSettings,
        *,
        partitions: int = 1,
        ledger: Ledger = LEDGER,
        connect: Callable[[OtlpExporterSettings], Transport] = connect,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Describe the sink.

        Args:
            settings: Destination and limits.
            partitions: How many partitions share the work in a cluster; never fewer than in an earlier run.
            ledger: Where delivered and dropped records are counted.
            connect: Makes the transport.
            now_s: A monotonic clock, which retries are timed by.
            sleep: Waits so many seconds on that clock.
        """
        self.settings = settings
        self._partitions = partitions
        self.ledger = ledger
        self.connect = connect
        self.now_s = now_s
        self.pause = _Pause(settings.shutdown_timeout.total_seconds(), now_s, sleep)

    def stop(self) -> None:
        """Make repetitions end within `shutdown_timeout`: the dataflow is being drained. Safe in a signal handler."""
        self.pause.stop()

    @override
    def list_parts(self) -> list[str]:
        return [f"otlp-{number}" for number in range(self._partitions)]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _OtlpPartition:
        delivery = _Delivery(self, step_id)
        return _OtlpPartition(delivery, self.settings.concurrency, resume_state or 0)


class _OtlpPartition(StatefulSinkPartition[TelemetryBatch, int]):
    """Hands batches to a pool of threads; its state is the number of batches seen, for the curious."""

    def __init__(self, delivery: _Delivery, concurrency: int, seen: int) -> None:
        self._delivery = delivery
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="otlp-export")
        self._free = threading.BoundedSemaphore(concurrency)
        self._in_flight: set[Future[None]] = set()
        self._seen = seen

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        for batch in values:
            self._seen += 1
            if not batch.num_rows:
                continue
            self._free.acquire()  # the bound on what is in flight; waiting here is the dataflow's backpressure
            future = self._pool.submit(self._delivery.deliver, batch)
            self._in_flight.add(future)
            future.add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        self._in_flight.discard(future)
        self._free.release()

    @override
    def snapshot(self) -> int:
        self._flush()
        return self._seen

    @override
    def close(self) -> None:
        self._flush()
        self._pool.shutdown()
        self._delivery.close()

    def _flush(self) -> None:
        for future in tuple(self._in_flight):
            future.result()


class _Delivery:
    """Delivers one batch at a time, in as many threads as call it."""

    def __init__(self, sink: OtlpSink, component: str) -> None:
        self._settings = sink.settings
        self._transport = sink.connect(sink.settings)
        self._ledger = sink.ledger
        self._component = component
        self._now_s = sink.now_s
        self._pause = sink.pause

    def deliver(self, batch: TelemetryBatch) -> None:
        """Send `batch` in as many requests as its size needs and account for every record.

        Whatever goes wrong here concerns this batch only: it is counted as dropped, and the worker goes on.
        """
        encoding: Encoding = "json" if self._settings.protocol == "http/json" else "protobuf"
        todo = [batch]
        while todo:
            part = todo.pop()
            try:
                body = encode(part, encoding)
                if len(body) > self._settings.request_bytes and part.num_rows > 1:
                    # A single record over the limit is sent all the same: the destination may take it.
                    todo.extend(reversed(_split(part, len(body), self._settings.request_bytes)))
                    continue
                answer = self._send(part, body)
            except EncodeError:
                self._drop(part, "not encodable")
            except Exception as error:  # noqa: BLE001 - one batch must not take the worker down
                _LOG.error("%s: internal error %s", self._component, describe_fault(error))
                self._drop(part, "internal error")
            else:
                self._account(part, answer)

    def close(self) -> None:
        self._transport.close()

    def _send(self, batch: TelemetryBatch, body: bytes) -> Answer:
        backoff = Backoff(self._settings.retry, started_s=self._now_s())
        while True:
            answer = self._transport.send(batch.signal, body)
            if answer.verdict is not Verdict.RETRYABLE:
                return answer
            wait_s = backoff.next_wait_s(now_s=self._now_s(), retry_after_s=answer.retry_after_s)
            if wait_s is None or not self._pause.wait(wait_s):
                return answer

    def _account(self, batch: TelemetryBatch, answer: Answer) -> None:
        if answer.verdict is Verdict.RETRYABLE:
            self._drop(batch, f"retries exhausted ({answer.status})")
        elif answer.verdict is Verdict.REFUSED:
            self._drop(batch, f"refused ({answer.status})")
        else:
            owned = count_by_tenant(batch)
            rejected = _shares(owned, answer.rejected)
            for tenant, count in owned.items():
                lost = rejected[tenant]
                add = self._ledger.add
                add(Outcome.DELIVERED, batch.signal, tenant, count - lost, component=self._component)
                add(Outcome.DROPPED, batch.signal, tenant, lost, component=self._component, reason="rejected in part")
            if answer.rejected:
                _LOG.warning(
                    "%s: the destination rejected %d of %d %s records",
                    self._component,
                    answer.rejected,
                    batch.num_rows,
                    batch.signal,
                )

    def _drop(self, batch: TelemetryBatch, reason: str) -> None:
        _LOG.warning("%s: dropped %d %s records: %s", self._component, batch.num_rows, batch.signal, reason)
        self._ledger.add_batch(Outcome.DROPPED, batch, component=self._component, reason=reason)


class _Pause:
    """The waits between tries, cut short when the worker stops."""

    def __init__(self, shutdown_timeout_s: float, now_s: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._shutdown_timeout_s = shutdown_timeout_s
        self._now_s = now_s
        self._sleep = sleep
        self._deadline_s: float | None = None

    def stop(self) -> None:
        if self._deadline_s is None:
            self._deadline_s = self._now_s() + self._shutdown_timeout_s

    def wait(self, wait_s: float) -> bool:
        """Wait; False when the worker's time is up and there shall be no further try."""
        until_s = self._now_s() + wait_s
        if self._deadline_s is not None and self._now_s() >= self._deadline_s:
            return False
        while (now_s := self._now_s()) < (until_s if self._deadline_s is None else min(until_s, self._deadline_s)):
            self._sleep(min(until_s - now_s, _PAUSE_STEP_S))
        return True


def _split(batch: TelemetryBatch, size: int, limit: int) -> list[TelemetryBatch]:
    """Cut a batch that encodes to `size` bytes into parts of equally many records, likely to fit into `limit`."""
    parts = min(batch.num_rows, math.ceil(size / limit * _SPLIT_MARGIN))
    rows = math.ceil(batch.num_rows / parts)
    return [batch.slice(start, rows) for start in range(0, batch.num_rows, rows)]


def _shares(owned: dict[str, int], rejected: int) -> dict[str, int]:
    """Spread a number of rejected records over the tenants of a request, by their share of it.

    A partial success does not say whose records were rejected. The sum is exact; with one tenant, so is its share.

    >>> _shares({"acme": 90, "beta": 10}, 5)
    {'acme': 5, 'beta': 0}
    """
    total = sum(owned.values())
    left = min(rejected, total)
    shares: dict[str, int] = {}
    for tenant, count in owned.items():
        shares[tenant] = min(left, math.ceil(left * count / total)) if total else 0
        left -= shares[tenant]
        total -= count
    return shares
