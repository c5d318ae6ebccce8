"""A sink whose data stays on the worker that made it, and that empties what other workers have left behind.

A partition of a sink usually takes the items whose keys fall to it, wherever they were made. Here each worker has
partitions of its own, and the key of an item names the place (`telflow.placement`) whose partition it is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from telflow.batch import TelemetryBatch
from telflow.delivery.committed_here import CommittedHere
from telflow.placement import Placement

__all__ = ["PlacedSink"]

Sink = FixedPartitionedSink[TelemetryBatch, Any]


class PlacedSink(FixedPartitionedSink[TelemetryBatch, Any]):
    """The same sink at each place of this worker; items are keyed by place."""

    def __init__(self, placement: Placement, sinks: Mapping[str, Sink], committed: CommittedHere) -> None:
        """Describe the sink.

        Args:
            placement: The places.
            sinks: The sink of each place of this worker.
            committed: Is told what their partitions snapshot.
        """
        self._placement = placement
        self._sinks = dict(sinks)
        self._committed = committed
        self._parts = self._sinks[placement.own].list_parts()
        names = sorted(placement.named(part, place) for place in placement.all for part in self._parts)
        self._index = {name: number for number, name in enumerate(names)}

    @property
    def sinks(self) -> Mapping[str, Sink]:
        """The sink of each place."""
        return self._sinks

    def stop(self) -> None:
        """Tell the sinks that the dataflow is being drained; safe in a signal handler."""
        self._call("stop")

    def finish(self) -> None:
        """Let the sinks do what they do when the run has ended."""
        self._call("finish")

    def stats(self) -> dict[str, Any]:
        """Return what the sinks say of themselves, by the name that a partition has at its place."""
        found: dict[str, Any] = {}
        for place, sink in self._sinks.items():
            ask = getattr(sink, "stats", None)
            said = ask() if callable(ask) else {}
            parts = said if isinstance(said, Mapping) else {self._parts[0]: said}
            found |= {self._placement.named(part, place): stats for part, stats in parts.items()}
        return found

    @override
    def list_parts(self) -> list[str]:
        return [name for name, _, _ in self._here()]

    @override
    def part_fn(self, item_key: str) -> int:
        parts = self._parts
        part = parts[0] if len(parts) == 1 else parts[self._sinks[item_key].part_fn(item_key) % len(parts)]
        return self._index[self._placement.named(part, item_key)]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: Any | None) -> _PlacedPartition:
        place, part = next((place, part) for name, place, part in self._here() if name == for_part)
        if resume_state is not None:
            self._committed.resumed(step_id, for_part, resume_state)
        inner = self._sinks[place].build_part(step_id, part, resume_state)
        return _PlacedPartition(inner, self._committed, step_id, for_part)

    def _here(self) -> Iterator[tuple[str, str, str]]:
        """Yield (name, place, its name there) of each partition of this worker."""
        for place in self._placement.here:
            for part in self._parts:
                yield self._placement.named(part, place), place, part

    def _call(self, method: str) -> None:
        for sink in self._sinks.values():
            function = getattr(sink, method, None)
            if callable(function):
                function()


class _PlacedPartition(StatefulSinkPartition[TelemetryBatch, Any]):
    def __init__(
        self, inner: StatefulSinkPartition[TelemetryBatch, Any], committed: CommittedHere, step_id: str, name: str
    ) -> None:
        self._inner = inner
        self._committed = committed
        self._step_id = step_id
        self._name = name

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        self._inner.write_batch(values)

    @override
    def snapshot(self) -> Any:
        state = self._inner.snapshot()
        self._committed.snapshotted(self._step_id, self._name, state)
        return state

    @override
    def close(self) -> None:
        self._inner.close()
