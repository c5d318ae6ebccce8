"""A sink of several places: items go to the place they name, and what is at other places here is looked after."""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import TestingSource, run_main

from connectors.placed_sink import PlacedSink
from telflow.delivery.committed_here import CommittedHere
from telflow.placement import Placement

HERE = Placement(("0", "1", "2", "10"), ("1", "10"), worker=1, workers=2)


class _Part(StatefulSinkPartition[Any, int]):
    def __init__(self, sink: Counting, name: str, count: int) -> None:
        self._sink, self._name, self._count = sink, name, count

    def write_batch(self, values: list[Any]) -> None:
        self._count += len(values)
        self._sink.written.setdefault(self._name, []).extend(values)

    def snapshot(self) -> int:
        return self._count

    def close(self) -> None:
        self._sink.closed.append(self._name)


class Counting(FixedPartitionedSink[Any, int]):
    """A sink that keeps what it gets; its state is how many."""

    def __init__(self, parts: list[str]) -> None:
        self.parts = parts
        self.written: dict[str, list[Any]] = {}
        self.closed: list[str] = []
        self.stopped = self.finished = False

    def list_parts(self) -> list[str]:
        return self.parts

    def part_fn(self, item_key: str) -> int:
        return len(item_key)

    def build_part(self, _step_id: str, for_part: str, resume_state: int | None) -> _Part:
        return _Part(self, for_part, resume_state or 0)

    def stop(self) -> None:
        self.stopped = True

    def finish(self) -> None:
        self.finished = True

    def stats(self) -> dict[str, int]:
        return {part: len(values) for part, values in self.written.items()}


def test_a_worker_lists_its_own_places_and_the_key_finds_any() -> None:
    """The index is that among all partitions of the cluster in the engine's order, which is by name."""
    sink: Any = PlacedSink(HERE, {"1": Counting(["out-0"]), "10": Counting(["out-0"])}, CommittedHere())
    assert sink.list_parts() == ["out-0@1", "out-0@10"]
    every = sorted(["out-0", "out-0@1", "out-0@2", "out-0@10"])
    assert [every[sink.part_fn(place)] for place in ("0", "1", "2", "10")] == [
        "out-0",
        "out-0@1",
        "out-0@2",
        "out-0@10",
    ]


def test_a_sink_of_several_partitions_chooses_one_of_the_place() -> None:
    """Its own function says which."""
    sink: Any = PlacedSink(HERE, {place: Counting(["a", "b"]) for place in HERE.here}, CommittedHere())
    every = sorted(f"{part}{suffix}" for part in "ab" for suffix in ("", "@1", "@2", "@10"))
    assert every[sink.part_fn("1")] == "b@1"
    assert every[sink.part_fn("10")] == "a@10"


def test_items_reach_the_sink_of_the_place_in_a_flow() -> None:
    """By the engine's own routing; each partition is flushed and closed."""
    placement = Placement(("0", "1"), ("0", "1"))
    sinks = {"0": Counting(["p"]), "1": Counting(["p"])}
    sink: Any = PlacedSink(placement, sinks, CommittedHere())
    flow = Dataflow("placed")
    op.output("out", op.input("in", flow, TestingSource([("0", "x"), ("1", "y"), ("0", "z")])), sink)
    run_main(flow)
    assert {place: inner.written for place, inner in sinks.items()} == {"0": {"p": ["x", "z"]}, "1": {"p": ["y"]}}
    assert sink.stats() == {"p": 2, "p@1": 1}
    assert [inner.closed for inner in sinks.values()] == [["p"], ["p"]]


def test_a_partition_resumes_at_its_place_and_tells_what_it_has_saved() -> None:
    """A state that was resumed from is committed; a new one when the source says so."""
    committed = CommittedHere()
    sink: Any = PlacedSink(HERE, {place: Counting(["p"]) for place in HERE.here}, committed)
    part = sink.build_part("out", "p@10", 7)
    part.write_batch(["x"])
    assert committed.at("10").get("out", "p") == 7
    assert part.snapshot() == 8
    committed.commit()
    assert committed.at("10").get("out", "p") == 8


def test_all_sinks_are_stopped_and_finished() -> None:
    """Those of workers that are no more, too."""
    sinks = {place: Counting(["p"]) for place in HERE.here}
    sink: Any = PlacedSink(HERE, sinks, CommittedHere())
    sink.stop()
    sink.finish()
    assert all(inner.stopped and inner.finished for inner in sinks.values())
    assert sink.sinks == sinks
