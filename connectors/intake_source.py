"""The source of a dataflow whose data receivers put into an `Intake`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from typing_extensions import override

from telflow.batch import TelemetryBatch
from telflow.delivery.intake import Intake
from telflow.delivery.log_intake import ResumableIntake
from telflow.epoch_pace import EpochPace
from telflow.liveness import LIVENESS

__all__ = ["IntakeSource"]

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_IDLE_CALLS = 200
_IDLE_WAIT_S = 0.01
"""How long a call waits at least after so many without data: a cluster at rest takes half as much of the processor."""
_FIRST_WAIT = 0.25
"""Share of an epoch that is taken for the wait at its end before one is known: the first after a start are long."""


class IntakeSource(FixedPartitionedSource[TelemetryBatch, int]):
    """Batches from an intake, in order of arrival, until the intake is closed and empty.

    Its state is the position of the last request taken, in an intake that can go back there (`LogIntake`); what lies
    before it is given up for good when the epoch is committed. Beside any other intake the state stays as it is.

    The source waits inside `next_batch` and asks to be called again at once: the engine's own timer would add a
    millisecond to every batch and poll an idle gateway far more often.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        partition: str = "intake",
        wait_s: float = 0.02,
        linger_s: float = 0.0,
        max_bytes_per_poll: int = 8 << 20,
        epoch_budget_bytes: int | None = None,
        others: Mapping[str, Intake] | None = None,
        on_committed: Callable[[], None] | None = None,
        epoch_s: float | None = None,
    ) -> None:
        """Describe the source.

        Args:
            intake: What receivers fill.
            partition: Name of its partition: stable over restarts, its own in each process of a cluster.
            wait_s: How long a call may wait for data; 0.005 at most beside peers, whose progress it holds up.
            linger_s: How long a call may wait for more than the first request. Larger batches cost less; right where
                `coalesce` would have them wait anyway.
            max_bytes_per_poll: Arrow bytes handed to the dataflow at a time.
            epoch_budget_bytes: Arrow bytes per epoch. A cluster has backpressure only at the edges of epochs, so
                each source there must limit itself. None: no limit, right for a single worker.
            others: Further partitions, by name: closed intakes of workers that are no more, to be emptied.
            on_committed: Called when all that sinks of this process have snapshotted is committed.
            epoch_s: Length of an epoch, beside peers, for whose ends of epochs it then waits quietly.
        """
        self.intake = intake
        self.others = dict(others or {})
        self.on_committed = on_committed
        self.partition = partition
        self.wait_s = wait_s
        self.linger_s = linger_s
        self.max_bytes_per_poll = max_bytes_per_poll
        self.epoch_budget_bytes = epoch_budget_bytes
        self.epoch_s = epoch_s
        self.patience_s = math.inf
        """For how long others on this worker can do without it; `MergedSource` says so before each poll."""

    @override
    def list_parts(self) -> list[str]:
        return [self.partition, *self.others]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _IntakePartition:
        left_over = self.others.get(for_part)
        intake = left_over or self.intake
        if isinstance(intake, ResumableIntake):
            intake.resume(resume_state)
        LIVENESS.progressed()
        return _IntakePartition(self, intake, resume_state or 0, left_over=left_over is not None)


class _IntakePartition(StatefulSourcePartition[TelemetryBatch, int]):
    def __init__(self, source: IntakeSource, intake: Intake, position: int, *, left_over: bool) -> None:
        self._source = source
        self._intake = intake
        self._left_over = left_over
        self._epoch_budget_bytes = source.epoch_budget_bytes
        self._epoch_bytes = 0
        self._position = self._committed = position
        self._resumable = intake if isinstance(intake, ResumableIntake) else None
        self._snapshotted: int | None = None
        self._rests = False
        epoch_s = source.epoch_s
        self._pace = None if epoch_s is None else EpochPace(epoch_s, first_s=epoch_s * _FIRST_WAIT)
        self._due = _LONG_AGO
        self._idle_calls = 0

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        LIVENESS.progressed()
        if self._pace is not None:
            self._pace.asked()
        asked = datetime.now(UTC)
        self._rests = False
        if self._snapshotted is not None:
            # The engine begins no epoch before the one before it is committed (tests/telflow/delivery/test_committed).
            self._commit(self._snapshotted)
            self._snapshotted = None
        if self._epoch_budget_bytes is not None and self._epoch_bytes >= self._epoch_budget_bytes:
            self._rests = True
            return []
        source = self._source
        wait_s, linger_s = (0.0, 0.0) if self._left_over else (source.wait_s, source.linger_s)
        if wait_s and self._idle_calls >= _IDLE_CALLS:
            wait_s = max(wait_s, _IDLE_WAIT_S)
        wait_s, linger_s = min(wait_s, source.patience_s), min(linger_s, source.patience_s)
        before_bytes = self._intake.taken_bytes
        batches = self._intake.take(timeout_s=wait_s, max_bytes=source.max_bytes_per_poll, linger_s=linger_s)
        if not batches and self._intake.drained:
            # What nobody will fill again is done with when its last data may be erased, too.
            self._rests = self._left_over and self._position != self._committed
            if not self._rests:
                raise StopIteration
        if self._epoch_budget_bytes is not None:
            self._epoch_bytes += self._intake.taken_bytes - before_bytes
        if self._resumable is not None:
            self._position = self._resumable.position
        self._idle_calls = 0 if batches else self._idle_calls + 1
        # Counted from the call, as the engine counts.
        pause_s = 0.0 if self._pace is None else self._pace.pause_s(idle=not batches)
        self._due = asked + timedelta(seconds=pause_s) if pause_s else _LONG_AGO
        return batches

    @override
    def next_awake(self) -> datetime | None:
        if self._rests:
            return None  # the engine's cooldown, until the epoch ends
        # Compared with a clock read before next_batch: "now" would wait once more for as long as next_batch did.
        return self._due

    @override
    def snapshot(self) -> int:
        self._epoch_bytes = 0
        if self._pace is not None:
            self._pace.ended()
        self._snapshotted = self._position
        return self._position

    def _commit(self, position: int) -> None:
        self._committed = position
        if self._resumable is not None:
            self._resumable.commit(position)
        if self._source.on_committed is not None and not self._left_over:
            self._source.on_committed()
