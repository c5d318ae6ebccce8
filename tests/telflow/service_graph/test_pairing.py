"""Pairing, the kernel: each request as a slow reference finds it, however spans are cut into batches."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.errors import BatchError
from telflow.service_graph import EdgeMetrics, Pairing, ServiceGraphSettings
from telflow.service_graph.halves import halves_of
from tests.service_graph_reference import CLIENT, SERVER, Edge, Half, edges_of, halves_batch, random_halves
from tests.spans import EPOCH, SECOND
from tests.strategies import thorough
from tests.stream_reference import random_cuts

NOW = EPOCH + 3600 * SECOND
SETTINGS: dict[str, Any] = {"wait": "2s", "dimensions": ["zone"], "shards": 1}


def settings_of(**options: Any) -> ServiceGraphSettings:
    return ServiceGraphSettings.model_validate(SETTINGS | options)


def run(
    settings: ServiceGraphSettings, halves: list[Half], edges: list[tuple[int, int]], now: int = NOW
) -> tuple[Counter[Edge], Counter[str]]:
    """Edges and what is left out, the state going through a snapshot after each batch, and flushed in the end."""
    found, left_out = Counter[Edge](), Counter[str]()

    def take(update: Any) -> None:
        for table in update.rows:
            names = [name for name in table.schema.names if name != "virtual_node"]
            for row in table.select(names).to_pylist():
                found[(*list(row.values())[:7], row["end"] - EPOCH, row["client_zone"], row["server_zone"])] += 1
        for one in update.refused:
            left_out[one.reason] += one.count

    kernel = Pairing(settings)
    for begin, end in edges:
        part = halves_of(halves_batch(halves[begin:end]), settings)
        if part.num_rows:
            take(kernel.add(part, now))
        state = pickle.dumps(kernel.state())
        kernel = Pairing(settings)
        kernel.restore(pickle.loads(state))  # noqa: S301 - written above
    take(kernel.flush())
    return found, left_out


@thorough(50)
@given(seed=st.integers(0, 2**32))
def test_edges_are_those_of_the_reference(seed: int) -> None:
    """Whole requests and halves, databases, queues, users, peers; out of order, beyond the wait; any batches."""
    rng = random.Random(seed)
    settings = settings_of(virtual_nodes=rng.random() < 0.8)
    halves = random_halves(rng)
    now = rng.choice([NOW, EPOCH + 3 * SECOND])
    found, left_out = run(settings, halves, random_cuts(rng, len(halves)), now)
    edges, missing = edges_of(halves, settings, now - EPOCH)
    assert found == Counter(edges)
    assert left_out == missing


@thorough(25)
@given(seed=st.integers(0, 2**32))
def test_several_servers_of_one_client_are_paired_in_turn(seed: int) -> None:
    """Ids that repeat: the first with the first, whatever the batches."""
    rng = random.Random(seed)
    settings = settings_of(wait="1h", lateness="1h")
    halves = [
        Half(rng.randint(1, 2), 1, 1, rng.choice([CLIENT, SERVER]), n * SECOND, service=f"s{n}") for n in range(20)
    ]
    found, left_out = run(settings, halves, random_cuts(rng, len(halves)))
    edges, missing = edges_of(halves, settings, NOW - EPOCH)
    assert found == Counter(edges)
    assert left_out == missing


def test_who_waits_too_long_does_not_meet() -> None:
    """The wait is over when other spans are that much further; a virtual node takes the other's place."""
    client = Half(1, 1, None, CLIENT, 0, attributes={"peer.service": "mail"})
    server = Half(1, 2, 1, SERVER, 0, service="pay")
    for later, paired in ((SECOND, True), (2 * SECOND, False)):
        halves = [client, Half(2, 3, 9, SERVER, later), server]
        for cuts in ([(0, 3)], [(0, 1), (1, 2), (2, 3)]):
            found, left_out = run(settings_of(), halves, cuts)
            servers = [edge[2] for edge in found]
            assert servers == (["pay"] if paired else ["mail"])
            assert left_out == {"unpaired": 1 if paired else 2}


def test_the_store_is_bounded() -> None:
    """Beyond `max_items` what came last is left out, and counted."""
    settings = settings_of(max_items=10)
    kernel = Pairing(settings)
    halves = [Half(n + 1, n + 1, None, CLIENT, 0) for n in range(15)]
    update = kernel.add(halves_of(halves_batch(halves), settings), NOW)
    assert [(r.reason, r.count) for r in update.refused] == [("store full", 5)]
    assert len(kernel) == 10
    servers = [replace(half, span=100, parent=half.span, kind=SERVER) for half in halves]
    update = kernel.add(halves_of(halves_batch(servers), settings), NOW)
    assert update.rows[0].num_rows == 10


def test_silence_ends_the_waiting() -> None:
    """By the system clock, after the idle time; a clock that is ahead is not believed."""
    settings = settings_of(idle_timeout="5s", virtual_node_extra_label=True)
    kernel = Pairing(settings)
    assert kernel.due_unix_nano() is None
    halves = [Half(1, 1, None, CLIENT, 0), Half(2, 2, None, CLIENT, 7200 * SECOND)]
    update = kernel.add(halves_of(halves_batch(halves), settings), NOW)
    assert [(r.reason, r.count) for r in update.refused] == [("ahead of clock", 1)]
    assert kernel.due_unix_nano() == NOW + 5 * SECOND
    kernel.idle_since(NOW + SECOND)
    assert kernel.due_unix_nano() == NOW + 6 * SECOND
    (table,) = kernel.advance(NOW + 6 * SECOND).rows
    assert table["virtual_node"].to_pylist() == ["server"]
    assert kernel.due_unix_nano() is None
    assert Pairing(settings_of(idle_timeout=None)).due_unix_nano() is None


@pytest.mark.parametrize("make", [Pairing, EdgeMetrics])
def test_state_of_another_version_is_refused(make: Any) -> None:
    """With a hint at what to do."""
    with pytest.raises(BatchError, match="expected version 1, got 7"):
        make(settings_of()).restore({"version": 7})


def test_other_dimensions_after_a_restart() -> None:
    """What waits goes on without those; windows of before are closed as they were."""
    kernel = Pairing(settings_of())
    kernel.add(halves_of(halves_batch([Half(1, 1, None, CLIENT, 0, zone="a")]), settings_of()), NOW)
    (table,) = kernel.flush().rows
    metrics = EdgeMetrics(settings_of())
    metrics.add(table, NOW)
    later = EdgeMetrics(settings_of(dimensions=["region"]))
    (closed,) = later.restore(metrics.state()).metrics
    assert "client_zone" in str(closed.records["attributes"].to_pylist())
    other = Pairing(settings_of(dimensions=["region"]))
    kernel.add(halves_of(halves_batch([Half(1, 1, None, CLIENT, 0, zone="a")]), settings_of()), NOW)
    other.restore(kernel.state())
    assert other.flush().rows[0]["client_region"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lateness": "1s"}, "lateness: expected at least wait"),
        ({"window": "0s"}, "window: expected at least 1ms"),
        ({"max_ahead": -1}, "max_ahead: expected at least 0"),
        ({"series_expiry": "1s"}, "series_expiry: expected at least one window"),
        ({"buckets": ["2s", "1s"]}, "expected ascending bounds"),
        ({"shards": 5, "max_items": 4}, "shards: expected at most max_items"),
        ({"dimensions": ["a", "a"]}, "dimensions: expected each once"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """Each says what was expected."""
    with pytest.raises(ValueError, match=message):
        settings_of(**options)
