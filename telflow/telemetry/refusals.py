"""Counts of requests that were refused at the door: they are nobody's records yet, so the ledger knows nothing of them.

A sender that repeats a refused request is counted again with each try, as a Collector does it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

__all__ = ["RefusalRow", "Refusals"]


@dataclass(frozen=True, slots=True, order=True)
class RefusalRow:
    """One count.

    Attributes:
        receiver: Which receiver refused.
        transport: `grpc` or `http`.
        signal: What the requests were to carry; empty where that was unknown, as with a wrong path.
        reason: Why, in a fixed word or two.
        requests: How many requests.
        records: How many records they had, as far as their payload was there to be counted.
    """

    receiver: str
    transport: str
    signal: str
    reason: str
    requests: int
    records: int


class Refusals:
    """Thread-safe counts of refused requests.

    >>> refusals = Refusals()
    >>> refusals.add("otlp", "grpc", "logs", "overloaded", records=3)
    >>> refusals.add("otlp", "grpc", "logs", "overloaded", records=4)
    >>> [(row.reason, row.requests, row.records) for row in refusals.rows()]
    [('overloaded', 2, 7)]
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str, str, str], tuple[int, int]] = {}

    def add(self, receiver: str, transport: str, signal: str, reason: str, *, records: int = 0) -> None:
        """Count a request."""
        key = (receiver, transport, signal, reason)
        with self._lock:
            requests, before = self._counts.get(key, (0, 0))
            self._counts[key] = (requests + 1, before + records)

    def rows(self) -> tuple[RefusalRow, ...]:
        """Return all counts, in a stable order."""
        with self._lock:
            counts = list(self._counts.items())
        return tuple(sorted(RefusalRow(*key, *count) for key, count in counts))
