"""The source of a dataflow whose data receivers put into an `Intake`."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from typing_extensions import override

from telflow.batch import TelemetryBatch
from telflow.delivery.intake import Intake
from telflow.delivery.log_intake import ResumableIntake

__all__ = ["IntakeSource"]

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


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
        max_bytes_per_poll: int = 8 << 20,
        epoch_budget_bytes: int | None = None,
    ) -> None:
        """Describe the source.

        Args:
            intake: What receivers fill.
            partition: Name of its one partition: stable over restarts, its own in each process of a cluster.
            wait_s: How long a call may wait for data; 0.005 at most beside peers, whose progress it holds up.
            max_bytes_per_poll: Arrow bytes handed to the dataflow at a time.
            epoch_budget_bytes: Arrow bytes per epoch. A cluster has backpressure only at the edges of epochs, so
                each source there must limit itself. None: no limit, right for a single worker.
        """
        self.intake = intake
        self.partition = partition
        self.wait_s = wait_s
        self.max_bytes_per_poll = max_bytes_per_poll
        self.epoch_budget_bytes = epoch_budget_bytes
        self.patience_s = math.inf
        """For how long others on this worker can do without it; `MergedSource` says so before each poll."""

    @override
    def list_parts(self) -> list[str]:
        return [self.partition]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _IntakePartition:
        if isinstance(self.intake, ResumableIntake):
            self.intake.resume(resume_state)
        return _IntakePartition(self, resume_state or 0)


class _IntakePartition(StatefulSourcePartition[TelemetryBatch, int]):
    def __init__(self, source: IntakeSource, position: int) -> None:
        self._source = source
        self._intake = source.intake
        self._epoch_budget_bytes = source.epoch_budget_bytes
        self._epoch_bytes = 0
        self._position = position
        self._resumable = self._intake if isinstance(self._intake, ResumableIntake) else None
        self._snapshotted: int | None = None

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        if self._resumable is not None and self._snapshotted is not None:
            # The engine begins no epoch before the one before it is committed (tests/telflow/delivery/test_committed).
            self._resumable.commit(self._snapshotted)
            self._snapshotted = None
        if self._epoch_budget_bytes is not None and self._epoch_bytes >= self._epoch_budget_bytes:
            return []
        source = self._source
        wait_s = min(source.wait_s, source.patience_s)
        batches = self._intake.take(timeout_s=wait_s, max_bytes=source.max_bytes_per_poll)
        if not batches and self._intake.drained:
            raise StopIteration
        if self._epoch_budget_bytes is not None:
            self._epoch_bytes += sum(batch.num_bytes for batch in batches)
        if self._resumable is not None:
            self._position = self._resumable.position
        return batches

    @override
    def next_awake(self) -> datetime | None:
        if self._epoch_budget_bytes is not None and self._epoch_bytes >= self._epoch_budget_bytes:
            return None  # the engine's cooldown, until the epoch ends
        # Compared with a clock read before next_batch: "now" would wait once more for as long as next_batch did.
        return _LONG_AGO

    @override
    def snapshot(self) -> int:
        self._epoch_bytes = 0
        self._snapshotted = self._position
        return self._position
