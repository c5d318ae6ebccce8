"""Where the engine keeps the state of keys, and who has which place."""

from __future__ import annotations

import itertools

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import cluster_main

from telflow.placement import ALONE, Placement, key_at, places_of, worker_of


class _Once(StatelessSourcePartition[tuple[str, None]]):
    def __init__(self, keys: list[str]) -> None:
        self._keys = keys

    def next_batch(self) -> list[tuple[str, None]]:
        if not self._keys:
            raise StopIteration
        keys, self._keys = self._keys, []
        return [(key, None) for key in keys]


class _Keys(DynamicSource[tuple[str, None]]):
    def __init__(self, keys: list[str]) -> None:
        self._keys = keys

    def build(self, _step_id: str, worker_index: int, _worker_count: int) -> _Once:
        return _Once(self._keys if worker_index == 0 else [])


class _Note(StatelessSinkPartition[tuple[str, None]]):
    def __init__(self, found: dict[str, int], worker: int) -> None:
        self._found, self._worker = found, worker

    def write_batch(self, items: list[tuple[str, None]]) -> None:
        self._found.update((key, self._worker) for key, _ in items)


class _Notes(DynamicSink[tuple[str, None]]):
    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def build(self, _step_id: str, worker_index: int, _worker_count: int) -> _Note:
        return _Note(self.found, worker_index)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_engine_keeps_the_state_of_a_key_where_we_say(workers: int) -> None:
    """Keys of all lengths, also beyond ASCII; a new engine that does otherwise would make workers exchange data."""
    keys = [f"{'é' * (n % 3)}{'traces' * (n % 4)}{n}" for n in range(100)]
    keys += [key_at("traces", worker, workers) for worker in range(workers)]
    notes = _Notes()
    flow = Dataflow("keys")
    kept = op.stateful_map("keep", op.input("keys", flow, _Keys(keys)), lambda state, value: (state, value))
    op.output("out", kept, notes)
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    assert notes.found == {key: worker_of(key, workers) for key in keys}
    assert [notes.found[key_at("traces", worker, workers)] for worker in range(workers)] == list(range(workers))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_every_place_belongs_to_one_worker_and_each_worker_has_its_own(workers: int) -> None:
    """Whatever was used before, on one host or several."""
    for counts in ({"local": 5}, {"a": 5, "b": 7}):
        shares = [places_of(counts, host, number, workers) for host in counts for number in range(workers)]
        every = shares[0][0]
        assert len(set(every)) == sum(counts.values())
        assert all(all_places == every for all_places, _ in shares)
        assert sorted(itertools.chain.from_iterable(here for _, here in shares)) == sorted(every)
        assert len({here[0] for _, here in shares}) == len(shares)


def test_partitions_of_one_process_have_the_names_they_always_had() -> None:
    """A gateway that was alone and becomes the first worker of a cluster goes on with its state."""
    every, here = places_of({"local": 2}, "local", 0, 2)
    cluster = Placement(every, here, 0, 2)
    assert cluster.named("intake", cluster.own) == ALONE.named("intake", ALONE.own) == "intake"
    assert ALONE.alone
    assert not cluster.alone
