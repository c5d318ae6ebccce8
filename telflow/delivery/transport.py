"""The contract between a sending queue and whatever carries its requests: one request, one honest answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from telflow.schema import Signal

__all__ = ["Answer", "Transport", "Verdict"]


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
