"""Keeps requests that cannot be decoded, for whoever has to find out which sender writes them, and why."""

from __future__ import annotations

import time
from collections.abc import Callable

from connectors.otlp.protocol import ExportHandler, ExportRequest, Refusal
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Entry

__all__ = ["KeepUndecodable"]

_REASON = "undecodable"


class KeepUndecodable:
    """An `ExportHandler` around another one: the sender is told the same, and the payload is a dead letter."""

    def __init__(
        self,
        handler: ExportHandler,
        dead_letters: DeadLetters,
        *,
        tenant: str | None = None,
        component: str = "otlp",
        now_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        """Set up.

        Args:
            handler: Decodes requests.
            dead_letters: Keeps those it could not decode.
            tenant: Whose data it is when a request does not say.
            component: The receiver's name, the letters' origin.
            now_unix_nano: The clock of arrival times.
        """
        self._handler = handler
        self._dead_letters = dead_letters
        self._tenant = tenant
        self._component = component
        self._now_unix_nano = now_unix_nano

    def admit(self, payload_bytes: int) -> None:
        """See `ExportHandler.admit`."""
        self._handler.admit(payload_bytes)

    def handle(self, request: ExportRequest) -> bytes:
        """See `ExportHandler.handle`."""
        try:
            return self._handler.handle(request)
        except Refusal as refusal:
            if refusal.violations:  # it says where the payload is wrong, so the payload is
                tenant = self._tenant if request.tenant is None else request.tenant
                entry = Entry(request.signal, request.payload, 0, tenant, request.encoding, self._now_unix_nano())
                self._dead_letters.add(entry, origin=self._component, reason=_REASON)
            raise
