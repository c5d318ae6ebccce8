"""How the way of a record to a destination ends: delivered or dropped, counted once, and kept when it was refused."""

from __future__ import annotations

import logging

from telflow.accounting import Ledger, Outcome, share_out
from telflow.batch import TelemetryBatch
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Entry
from telflow.delivery.parcel import Parcel, Request
from telflow.delivery.transport import Answer

__all__ = ["Endings"]

_LOG = logging.getLogger(__name__)


class Endings:
    """Takes down what became of the records of one destination; may be used by several threads at once."""

    def __init__(self, component: str, ledger: Ledger, dead_letters: DeadLetters | None) -> None:
        """Describe the destination.

        Args:
            component: Its name in the ledger and in log lines.
            ledger: Where outcomes are counted.
            dead_letters: Keeps what is dropped; None: it is only counted.
        """
        self._component = component
        self._ledger = ledger
        self._dead_letters = dead_letters

    def restored(self, parcel: Parcel) -> None:
        """Count the records of an earlier run, which this one's ledger has not seen come in."""
        for tenant, count in parcel.tenants.items():
            self._ledger.add(
                Outcome.DERIVED, parcel.signal, tenant, count, component=self._component, reason="restored"
            )

    def delivered(self, request: Request, answer: Answer) -> None:
        """The destination has the request, save for the records it says it rejected."""
        rejected = share_out(request.tenants, answer.rejected)
        add = self._ledger.add
        for tenant, count in request.tenants.items():
            lost = rejected[tenant]
            add(Outcome.DELIVERED, request.signal, tenant, count - lost, component=self._component)
            add(Outcome.DROPPED, request.signal, tenant, lost, component=self._component, reason="rejected in part")
        if answer.rejected:
            _LOG.warning(
                "%s: the destination rejected %d of %d %s records",
                self._component,
                answer.rejected,
                request.records,
                request.signal,
            )

    def dropped(self, request: Request, reason: str) -> None:
        """The destination will not get the request."""
        self._say(request.records, request.signal, reason)
        if request.body is not None:
            arrival_unix_nano = request.arrival_time_unix_nano
            entry = Entry(
                request.signal, request.body, request.records, request.tenant, request.encoding, arrival_unix_nano
            )
            self._bury(entry, reason)
        for tenant, count in request.tenants.items():
            self._ledger.add(Outcome.DROPPED, request.signal, tenant, count, component=self._component, reason=reason)

    def dropped_batch(self, batch: TelemetryBatch, arrival_time_unix_nano: int, reason: str) -> None:
        """The destination will not get records of which no request could be made."""
        self._say(batch.num_rows, batch.signal, reason)
        tenants = batch.resources["tenant"].unique()
        tenant = tenants[0].as_py() if len(tenants) == 1 else None
        if self._dead_letters is not None:
            payload = batch.to_ipc_bytes()
            self._bury(Entry(batch.signal, payload, batch.num_rows, tenant, "arrow", arrival_time_unix_nano), reason)
        self._ledger.add_batch(Outcome.DROPPED, batch, component=self._component, reason=reason)

    def _say(self, records: int, signal: str, reason: str) -> None:
        _LOG.warning("%s: dropped %d %s records: %s", self._component, records, signal, reason)

    def _bury(self, entry: Entry, reason: str) -> None:
        if self._dead_letters is not None:
            self._dead_letters.add(entry, origin=self._component, reason=reason)
