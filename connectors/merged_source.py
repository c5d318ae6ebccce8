"""Several sources as one, for a dataflow that reads from more than one place.

Bytewax ends the epochs of each input step by that step's own clock, and a source that has ended an epoch gets nothing
to do until all others have ended theirs: the engine spins, and what the source could have read waits. With every epoch
the clocks drift further apart, up to a whole epoch (measured: 60 % of a core with nothing to do, and as long a delay).
The partitions of one step share one clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from typing_extensions import override

from connectors.intake_source import IntakeSource
from telflow.batch import TelemetryBatch

__all__ = ["MergedSource"]

_NEVER = datetime(9999, 1, 1, tzinfo=UTC)


@runtime_checkable
class _Telling(Protocol):
    """A source that says how it is doing."""

    name: str

    def stats(self) -> Any: ...


class MergedSource(FixedPartitionedSource[TelemetryBatch, Any]):
    """An intake and other sources under one step, whose epochs end together.

    The intake waits for data inside its poll. Here it waits no longer than until another source wants to be asked, and
    not at all while one of them has data; a source that rests tells so by its `next_awake`.
    """

    def __init__(
        self,
        intake: IntakeSource,
        *others: FixedPartitionedSource[TelemetryBatch, Any],
        retired: Collection[str] = (),
    ) -> None:
        """Put sources together.

        Args:
            intake: The one that waits.
            others: Sources that return at once. No two sources may have partitions of one name.
            retired: Partitions of earlier runs. Those that no source has any more keep their state and bring nothing:
                recovery does not allow them to be gone, and their source may be switched on again.
        """
        self.intake = intake
        self.others = others
        self._retired = retired
        self._owners: dict[str, FixedPartitionedSource[TelemetryBatch, Any]] = {}
        self._open: dict[str, _Part] = {}

    @property
    def sources(self) -> Iterator[FixedPartitionedSource[TelemetryBatch, Any]]:
        """The sources it is made of."""
        yield self.intake
        yield from self.others

    @override
    def list_parts(self) -> list[str]:
        self._owners = {name: source for source in self.sources for name in source.list_parts()}
        return [*self._owners, *(name for name in self._retired if name not in self._owners)]

    @override
    def build_part(
        self, step_id: str, for_part: str, resume_state: Any
    ) -> StatefulSourcePartition[TelemetryBatch, Any]:
        source = self._owners.get(for_part)
        if source is None:
            return _RetiredPart(resume_state)
        part = _Part(self, for_part, source.build_part(step_id, for_part, resume_state), waits=source is self.intake)
        self._open[for_part] = part
        return part

    def stop(self) -> None:
        """Tell the sources that can be told that the flow is being drained. Safe in a signal handler."""
        for source in self.sources:
            stop = getattr(source, "stop", None)
            if callable(stop):
                stop()

    def close(self) -> None:
        """Close the sources that have something to do when the run has ended."""
        for source in self.sources:
            close = getattr(source, "close", None)
            if callable(close):
                close()

    def stats(self) -> dict[str, Any]:
        """Return how the sources are doing that can say it, by their names."""
        return {str(source.name): source.stats() for source in self.others if isinstance(source, _Telling)}

    def patience_s(self) -> float:
        """Return for how long none of the partitions that do not wait wants to be asked."""
        due = min((part.due for part in self._open.values() if not part.waits), default=_NEVER)
        return max(0.0, (due - datetime.now(UTC)).total_seconds())

    def forget(self, name: str) -> None:
        """Take note that a partition has ended."""
        self._open.pop(name, None)


class _Part(StatefulSourcePartition[TelemetryBatch, Any]):
    def __init__(
        self, merged: MergedSource, name: str, part: StatefulSourcePartition[TelemetryBatch, Any], *, waits: bool
    ) -> None:
        self._merged = merged
        self._name = name
        self._part = part
        self.waits = waits
        self.due = part.next_awake() or datetime.now(UTC)

    @override
    def next_batch(self) -> Iterable[TelemetryBatch]:
        if self.waits:
            self._merged.intake.patience_s = self._merged.patience_s()
        try:
            return self._part.next_batch()
        except StopIteration:
            self._merged.forget(self._name)
            raise

    @override
    def next_awake(self) -> datetime | None:
        awake = self._part.next_awake()
        self.due = awake or datetime.now(UTC)
        return awake

    @override
    def snapshot(self) -> Any:
        return self._part.snapshot()

    @override
    def close(self) -> None:
        self._part.close()


class _RetiredPart(StatefulSourcePartition[TelemetryBatch, Any]):
    """A partition whose source is switched off: it ends at once, and its last state is the one it had."""

    def __init__(self, state: Any) -> None:
        self._state = state

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        raise StopIteration

    @override
    def snapshot(self) -> Any:
        return self._state
