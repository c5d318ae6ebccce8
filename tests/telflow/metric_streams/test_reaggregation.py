"""Re-aggregation, the kernel: as a slow reference has it, however points are cut into batches."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.errors import BatchError
from telflow.metric_streams import GroupSelector, ReaggregateSettings, Reaggregation, split_by_group
from tests.metric_points import Histogram, Point, metrics_batch_of, points_of
from tests.reaggregation_reference import merge, mixed_points
from tests.spans import EPOCH, SECOND
from tests.strategies import thorough
from tests.stream_reference import random_cuts

NOW = EPOCH + 3600 * SECOND


def settings_of(**options: Any) -> ReaggregateSettings:
    base: dict[str, Any] = {"interval": "5ms", "lateness": "3ms", "idle_timeout": "10s"}
    if "keep" not in options:
        base |= {"remove": ["a"]}
    return ReaggregateSettings.model_validate({**base, **options})


def run(
    settings: ReaggregateSettings, points: list[Point], edges: list[tuple[int, int]], now: int = NOW
) -> tuple[list[Point], Counter[str]]:
    """What comes out and what is refused, the state going through a snapshot after each batch."""
    out: list[Point] = []
    refused = Counter[str]()
    selector = GroupSelector(settings)

    def take(update: Any) -> None:
        out.extend(points_of(update.metrics))
        for one in update.refused:
            refused[one.reason] += one.count

    kernel = Reaggregation(settings)
    for begin, end in edges:
        _, parts = split_by_group(metrics_batch_of(points[begin:end]), settings, selector)
        for _, part in parts:
            take(kernel.add(part, now))
        state = pickle.dumps(kernel.state())
        kernel = Reaggregation(settings)
        kernel.restore(pickle.loads(state))  # noqa: S301 - written above
    take(kernel.flush())
    return out, refused


def lines(points: list[Point]) -> Counter[str]:
    return Counter(repr((p.stream, p.start, p.time, p.value)) for p in points)


@thorough(25)
@given(seed=st.integers(0, 2**32))
def test_merged_points_are_those_of_the_reference(seed: int) -> None:
    """All kinds and both temporalities, resets, disorder and lateness; any batches, a snapshot after each."""
    rng = random.Random(seed)
    points = mixed_points(rng)
    gauge = rng.choice(["last", "min", "max", "mean", "sum"])
    kept: dict[str, Any] = rng.choice([{}, {"keep": []}, {"keep": ["b"]}])
    settings = settings_of(gauge=gauge, max_size=rng.choice([4, 160]), **kept)
    now = rng.choice([NOW, EPOCH + 20_000_000])
    found, refused = run(settings, points, random_cuts(rng, len(points)), now)
    expected, reasons = merge(points, settings, now - EPOCH)
    assert lines(found) == lines(expected)
    assert refused == reasons


def test_a_sum_of_totals_never_falls() -> None:
    """Two streams become one: one starts anew, one goes away; the sum is of all that ever was counted."""
    points = [
        Point(1_000_000, 10, 0, attributes={"a": "x"}, temporality=2),
        Point(1_000_000, 5, 0, attributes={"a": "y"}, temporality=2),
        Point(6_000_000, 2, 5_000_000, attributes={"a": "x"}, temporality=2),
        Point(16_000_000, 4, 5_000_000, attributes={"a": "x"}, temporality=2),
    ]
    out, _ = run(settings_of(), points, [(0, 4)])
    assert [(p.start, p.time, p.value) for p in out] == [
        (0, 5_000_000, 15),
        (0, 10_000_000, 17),
        (0, 20_000_000, 19),
    ]


def test_histograms_of_other_bounds_are_kept_apart() -> None:
    """They cannot be added without inventing where values lay."""
    points = [
        Point(1, Histogram((1.0,), (1, 2)), 0, attributes={"a": "x"}),
        Point(1, Histogram((1.0,), (3, 4)), 0, attributes={"a": "y"}),
        Point(1, Histogram((2.0,), (5, 6)), 0, attributes={"a": "z"}),
    ]
    out, _ = run(settings_of(), points, [(0, 3)])
    assert [p.value.counts for p in out if isinstance(p.value, Histogram)] == [(4, 6), (5, 6)]


def test_streams_are_bounded() -> None:
    """Merged streams beyond the limit are refused, and counted; the others are whole."""
    points = [Point(1, 1, 0, attributes={"a": str(n), "b": n}) for n in range(12)]
    points += [Point(1, 1, gauge=True, temporality=0, monotonic=False, attributes={"b": n}) for n in range(12)]
    out, refused = run(settings_of(max_streams=10), points, [(0, 24)])
    assert len(out) == 20
    assert refused == {"too many streams": 4}


def test_silence_closes_intervals() -> None:
    """By the system clock, after the idle time; points of a closed interval come in the next one."""
    kernel = Reaggregation(settings_of())
    assert kernel.due_unix_nano() is None
    kernel.add(metrics_batch_of([Point(1, 1, 0), Point(600 * SECOND, 1)]), EPOCH + SECOND)
    assert kernel.due_unix_nano() == EPOCH + 11 * SECOND
    kernel.idle_since(EPOCH + 2 * SECOND)
    assert kernel.due_unix_nano() == EPOCH + 12 * SECOND
    assert len(points_of(kernel.advance(EPOCH + 12 * SECOND).metrics)) == 1
    assert kernel.due_unix_nano() is None
    kernel.add(metrics_batch_of([Point(2, 1, 1)]), EPOCH + SECOND)
    assert [(p.start, p.time) for p in points_of(kernel.flush().metrics)] == [(5_000_000, 10_000_000)]
    assert Reaggregation(settings_of(idle_timeout=None)).due_unix_nano() is None


def test_state_of_another_version_is_refused() -> None:
    """With a hint at what to do."""
    with pytest.raises(BatchError, match="expected version 1, got 7"):
        Reaggregation(settings_of()).restore({"version": 7})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ["b"], "remove": ["a"]}, "expected exactly one of keep and remove"),
        ({"interval": "0s"}, "interval: expected at least 1ms"),
        ({"lateness": -1}, "lateness: expected at least 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """Each says what was expected."""
    with pytest.raises(ValueError, match=message):
        settings_of(**options)
