"""A sink that sends straight through the client: no queue on disk, so for load and tools, not for a gateway."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future

from bytewax.outputs import DynamicSink, StatelessSinkPartition
from typing_extensions import override

from connectors.otlp.client import OtlpClient
from connectors.otlp.client_settings import OtlpClientSettings
from connectors.otlp.shipment import Delivered, UndeliveredError
from telflow.accounting import LEDGER, Ledger, Outcome, count_by_tenant, share_out
from telflow.batch import TelemetryBatch
from telflow.errors import describe_fault

__all__ = ["OtlpClientSink"]

_LOG = logging.getLogger(__name__)


class OtlpClientSink(DynamicSink[TelemetryBatch]):
    """Exports batches over OTLP and accounts for every record; `write_batch` waits while `concurrency` are under way.

    What is under way when the process dies is gone, so a dataflow with recovery uses `OtlpSink`.
    """

    def __init__(
        self,
        settings: OtlpClientSettings,
        *,
        ledger: Ledger = LEDGER,
        make_client: Callable[[OtlpClientSettings], OtlpClient] = OtlpClient,
    ) -> None:
        """Describe the sink.

        Args:
            settings: Destination and limits.
            ledger: Where delivered and dropped records are counted.
            make_client: Makes the client of each worker.
        """
        self.settings = settings
        self.ledger = ledger
        self._make_client = make_client
        self._clients: list[OtlpClient] = []

    def stop(self) -> None:
        """Make repetitions end within `shutdown_timeout`: the dataflow is being drained. Safe in a signal handler."""
        for client in self._clients:
            client.stop()

    @override
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _OtlpClientPartition:
        client = self._make_client(self.settings)
        self._clients.append(client)
        return _OtlpClientPartition(client, self.ledger, step_id)


class _OtlpClientPartition(StatelessSinkPartition[TelemetryBatch]):
    def __init__(self, client: OtlpClient, ledger: Ledger, component: str) -> None:
        self._client = client
        self._ledger = ledger
        self._component = component

    @override
    def write_batch(self, items: list[TelemetryBatch]) -> None:
        for batch in items:
            if batch.num_rows:
                self._client.submit(batch).add_done_callback(_Accounting(self._ledger, self._component, batch))

    @override
    def close(self) -> None:
        self._client.flush()
        self._client.close()


class _Accounting:
    """Counts what became of a batch."""

    def __init__(self, ledger: Ledger, component: str, batch: TelemetryBatch) -> None:
        self._ledger = ledger
        self._component = component
        self._batch = batch

    def __call__(self, future: Future[Delivered]) -> None:
        owned = Counter(count_by_tenant(self._batch))
        try:
            delivered = future.result()
        except UndeliveredError as error:
            delivered = error.delivered
            for batch, why in ((error.refused, "refused"), (error.unsent, "retries exhausted")):
                owned -= Counter(count_by_tenant(batch))
                self._drop(batch, f"{why} ({error.status})")
        except Exception as error:  # noqa: BLE001 - one batch must not take the worker down
            _LOG.error("%s: internal error %s", self._component, describe_fault(error))
            self._drop(self._batch, "internal error")
            return
        lost = share_out(owned, delivered.rejected)
        for tenant, count in owned.items():
            add, rejected = self._ledger.add, lost[tenant]
            add(Outcome.DELIVERED, self._batch.signal, tenant, count - rejected, component=self._component)
            reason = "rejected in part"
            add(Outcome.DROPPED, self._batch.signal, tenant, rejected, component=self._component, reason=reason)

    def _drop(self, batch: TelemetryBatch, reason: str) -> None:
        if batch.num_rows:
            _LOG.warning("%s: dropped %d %s records: %s", self._component, batch.num_rows, batch.signal, reason)
            self._ledger.add_batch(Outcome.DROPPED, batch, component=self._component, reason=reason)
