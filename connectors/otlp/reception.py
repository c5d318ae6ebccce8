"""What a receiver does with requests: hand over, count, and say what went wrong in the words of the protocol."""

from __future__ import annotations

import time
from collections.abc import Callable

from connectors.otlp.protocol import ExportRequest, Refusal, resolve_tenant
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.delivery.intake import Intake, Overloaded, RequestMeta
from telflow.errors import DecodeError

__all__ = ["Reception"]


class Reception:
    """The `ExportHandler` of a receiver: a request is accepted when it is valid and the intake has taken it over."""

    def __init__(
        self,
        intake: Intake,
        *,
        tenant: str | None = None,
        component: str = "otlp",
        ledger: Ledger = LEDGER,
        now_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        """Set up.

        Args:
            intake: Where decoded requests go.
            tenant: Whose data it is when a request does not say.
            component: The receiver's name in the ledger.
            ledger: Where received records are counted.
            now_unix_nano: The clock of arrival times.
        """
        self._intake = intake
        self._tenant = tenant
        self._component = component
        self._ledger = ledger
        self._now_unix_nano = now_unix_nano

    def admit(self, payload_bytes: int) -> None:
        """See `ExportHandler.admit`."""
        try:
            self._intake.admit(payload_bytes)
        except Overloaded as error:
            raise Refusal.overloaded(error) from None

    def handle(self, request: ExportRequest) -> bytes:
        """See `ExportHandler.handle`."""
        tenant = resolve_tenant(request.tenant, self._tenant)
        arrival = self._now_unix_nano()
        meta = RequestMeta(tenant, request.signal, request.encoding, arrival, request.peer, request.payload)
        try:
            records = self._intake.accept(meta)
        except DecodeError as error:
            raise Refusal.undecodable(error) from None
        except Overloaded as error:
            raise Refusal.overloaded(error) from None
        if records:
            self._ledger.add(Outcome.RECEIVED, request.signal, tenant or "", records, component=self._component)
        return b""
