"""The generator as a source of a dataflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from typing_extensions import override

from connectors.generator.batches import generate_batch
from connectors.generator.settings import GeneratorSettings
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch

__all__ = ["GeneratorSource"]

_CATCH_UP = timedelta(seconds=1)
"""A source that was held up longer than this does not make up for it."""


def _now() -> datetime:
    return datetime.now(UTC)


class GeneratorSource(FixedPartitionedSource[TelemetryBatch, tuple[int, int]]):
    """Made-up batches at the rate of the settings; a resumed one goes on where it stopped."""

    def __init__(
        self,
        settings: GeneratorSettings | None = None,
        *,
        ledger: Ledger = LEDGER,
        now: Callable[[], datetime] = _now,
        now_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        """Describe the source.

        Args:
            settings: What to make; the defaults when not given.
            ledger: Where records are counted as received.
            now: The clock of the rate.
            now_unix_nano: The clock of the start time.
        """
        self.settings = settings or GeneratorSettings()
        self.ledger = ledger
        self.now = now
        self._now_unix_nano = now_unix_nano
        self._stopped = False

    def stop(self) -> None:
        """End the source at its next batch. Safe in a signal handler."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        """True when `stop` was called."""
        return self._stopped

    @override
    def list_parts(self) -> list[str]:
        return ["generator"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: tuple[int, int] | None) -> _GeneratorPartition:
        start = self.settings.start_time_unix_nano
        state = resume_state or (0, self._now_unix_nano() if start is None else start)
        return _GeneratorPartition(self, step_id, state)


class _GeneratorPartition(StatefulSourcePartition[TelemetryBatch, tuple[int, int]]):
    def __init__(self, source: GeneratorSource, component: str, state: tuple[int, int]) -> None:
        self._source = source
        self._settings = source.settings
        self._component = component
        self._number, self._start_time_unix_nano = state
        self._due = source.now()

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        if self._source.stopped:
            raise StopIteration
        if self._settings.records_per_s and self._source.now() < self._due:
            return []
        batch = generate_batch(self._settings, self._number, self._start_time_unix_nano)
        if not batch.num_rows:
            raise StopIteration
        self._number += 1
        if self._settings.records_per_s:
            late = max(self._due, self._source.now() - _CATCH_UP)
            self._due = late + timedelta(seconds=batch.num_rows / self._settings.records_per_s)
        self._source.ledger.add_batch(Outcome.RECEIVED, batch, component=self._component)
        return [batch]

    @override
    def next_awake(self) -> datetime | None:
        return self._due if self._settings.records_per_s else None

    @override
    def snapshot(self) -> tuple[int, int]:
        return self._number, self._start_time_unix_nano
