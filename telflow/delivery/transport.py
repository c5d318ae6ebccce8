"""The contract between a sending queue and whatever carries its requests: one request, one honest answer."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from telflow.batch import TelemetryBatch
from telflow.schema import Signal

__all__ = ["Answer", "Router", "Transport", "Verdict"]


class Verdict(enum.Enum):
    """What became of a request."""

    ACCEPTED = "accepted"
    """The destination has it, save for the records it says it rejected."""

    REFUSED = "refused"
    """The destination will never take it."""

    RETRYABLE = "retryable"
    """The destination may take it later."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a destination answered.

    Attributes:
        verdict: What became of the request.
        status: The answer's status in a word: ``OK``, ``UNAVAILABLE``, ``HTTP 503``, ``no answer``.
        message: The destination's own words, cut to a bearable length; it may quote data, so it is not for logs.
        rejected: Records the destination did not take of an accepted request.
        retry_after_s: Seconds it asks to wait; None when it does not say.
    """

    verdict: Verdict
    status: str
    message: str = ""
    rejected: int = 0
    retry_after_s: float | None = None


class Transport(Protocol):
    """A connection to one destination; may be used by several threads at once."""

    def send(self, signal: Signal, body: bytes) -> Answer:
        """Send one Export*ServiceRequest and wait for its answer; never raises for what the network does."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@runtime_checkable
class Router(Protocol):
    """Connections to several endpoints, of which each record has its own; may be used by several threads at once."""

    @property
    def well(self) -> bool:
        """Whether any endpoint is well; while one is, a failure is not one of the whole destination."""
        ...

    def split(self, batch: TelemetryBatch) -> Sequence[tuple[str, TelemetryBatch]]:
        """Return (route, records) for each endpoint that shall get some of a batch now."""
        ...

    def leads(self, route: str) -> bool:
        """Return whether a route leads to an endpoint that is well; otherwise its records are to be split anew."""
        ...

    def send_to(self, route: str, signal: Signal, body: bytes) -> Answer:
        """Like `Transport.send`, to the endpoint of `route`."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
