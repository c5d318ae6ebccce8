"""Several endpoints of one destination, and which of them are well.

An endpoint that fails several times in a row is taken out. While any is out, a thread of the pool asks those that are,
with an empty request, which every OTLP server answers with success; one that answers is in again. Meanwhile what is
meant for it goes to the others. When all are out, all are tried: nothing is gained by asking none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta

from pydantic import Field

from telflow.delivery.clock import Clock, SystemClock
from telflow.delivery.transport import Answer, Transport, Verdict
from telflow.schema import Signal
from telflow.settings import Duration, Settings

__all__ = ["Endpoint", "EndpointPool", "HealthCheckSettings", "failed"]

_LOG = logging.getLogger(__name__)
_QUOTA = {"RESOURCE_EXHAUSTED", "HTTP 429"}
_PROBE = Signal.TRACES


class HealthCheckSettings(Settings):
    """When an endpoint is taken out, and how it comes back."""

    interval: Duration = Field(default=timedelta(seconds=5), gt=timedelta())
    """How often one that is out is asked, with an empty request."""

    failures: int = Field(default=3, ge=1)
    """Failures in a row after which an endpoint is out."""


class Endpoint:
    """One of the endpoints.

    Attributes:
        name: What the settings call it.
        well: Whether it is in; another thread may have found out otherwise a moment ago.
        pending: Requests on their way to it.
    """

    def __init__(self, name: str, transport: Transport, pool: EndpointPool) -> None:
        self.name = name
        self.well = True
        self.pending = 0
        self.transport = transport
        self.failures = 0
        self._pool = pool

    def send(self, signal: Signal, body: bytes) -> Answer:
        """Send a request, and draw conclusions from the answer."""
        self._pool.began(self)
        answer = None
        try:
            answer = self.transport.send(signal, body)
        finally:
            self._pool.ended(self, answer)
        return answer

    def probe(self) -> bool:
        """Ask whether anybody is there: an answer of any kind says so, unless it is that of a proxy before nobody."""
        return failed(self.transport.send(_PROBE, b"")) is False


def failed(answer: Answer | None) -> bool:
    """Return whether an answer, or none, says that the endpoint is not well; a quota says nothing about it."""
    return answer is None or (answer.verdict is Verdict.RETRYABLE and answer.status not in _QUOTA)


class EndpointPool:
    """The endpoints in the order of the settings; may be used by several threads at once."""

    def __init__(
        self,
        transports: Sequence[tuple[str, Transport]],
        settings: HealthCheckSettings,
        *,
        name: str = "endpoints",
        clock: Clock | None = None,
    ) -> None:
        """Begin with all endpoints in.

        Args:
            transports: Name and connection of each.
            settings: When they are taken out.
            name: What log lines call them together.
            clock: What the health check is timed by.
        """
        self._settings = settings
        self._name = name
        self._clock = clock or SystemClock()
        self._changed = threading.Condition()
        self._checker: threading.Thread | None = None
        self._closed = False
        self.endpoints = tuple(Endpoint(each, transport, self) for each, transport in transports)

    @property
    def well(self) -> tuple[Endpoint, ...]:
        """The endpoints that are in; all when none is."""
        return tuple(endpoint for endpoint in self.endpoints if endpoint.well) or self.endpoints

    @property
    def any_well(self) -> bool:
        """Whether an endpoint is in."""
        return any(endpoint.well for endpoint in self.endpoints)

    def began(self, endpoint: Endpoint) -> None:
        """A request is on its way."""
        with self._changed:
            endpoint.pending += 1

    def ended(self, endpoint: Endpoint, answer: Answer | None) -> None:
        """It has been answered, or not."""
        with self._changed:
            endpoint.pending -= 1
            if not failed(answer):
                self._set_well(endpoint)
                return
            endpoint.failures += 1
            if endpoint.well and endpoint.failures >= self._settings.failures:
                endpoint.well = False
                _LOG.warning("%s: endpoint %s is out: %s", self._name, endpoint.name, answer and answer.status)
                self._start_checker()

    def close(self) -> None:
        """End the health check and close the connections."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            checker = self._checker
        if checker is not None:
            checker.join()
        for endpoint in self.endpoints:
            endpoint.transport.close()

    def _set_well(self, endpoint: Endpoint) -> None:
        endpoint.failures = 0
        if not endpoint.well:
            endpoint.well = True
            _LOG.warning("%s: endpoint %s is in again", self._name, endpoint.name)

    def _start_checker(self) -> None:
        if self._checker is None and not self._closed:
            self._checker = threading.Thread(target=self._check, name=f"{self._name} health", daemon=True)
            self._checker.start()

    def _check(self) -> None:
        while True:
            with self._changed:
                due_s = self._clock.now_s() + self._settings.interval.total_seconds()
                while not self._closed and self._clock.now_s() < due_s:
                    self._clock.wait(self._changed, due_s)
                out = [endpoint for endpoint in self.endpoints if not endpoint.well]
                if self._closed or not out:
                    self._checker = None
                    return
            for endpoint in out:
                if endpoint.probe():
                    with self._changed:
                        self._set_well(endpoint)
