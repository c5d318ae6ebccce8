"""Delta to cumulative and back, the kernels: as slow references have it, however points are cut into batches."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.errors import BatchError
from telflow.metric_streams import CumulativeToDeltaSettings, DeltaToCumulativeSettings, ToCumulative, ToDelta
from tests.metric_points import Exponential, Histogram, Point, metrics_batch_of, points_of, same
from tests.spans import EPOCH
from tests.strategies import thorough
from tests.stream_reference import random_cuts, random_points, to_cumulative, to_delta

NOW = EPOCH + 10**6


def run(
    make: Any, points: list[Point], edges: list[tuple[int, int]], now: int = NOW
) -> tuple[list[Point], Counter[str]]:
    """What comes out and what is dropped, the state going through a snapshot after each batch."""
    out, dropped = [], Counter[str]()
    kernel = make()
    for begin, end in edges:
        found = kernel.add(metrics_batch_of(points[begin:end]), now)
        out += points_of([found.batch])
        dropped.update({reason: 0 for _, reason in found.dropped})
        for batch, reason in found.dropped:
            dropped[reason] += batch.num_rows
        state = pickle.dumps(kernel.state())
        kernel = make()
        kernel.restore(pickle.loads(state))  # noqa: S301 - written above
    return out, +dropped


def check(found: tuple[list[Point], Counter[str]], expected: list[Point | str]) -> None:
    points = [p for p in expected if isinstance(p, Point)]
    assert len(found[0]) == len(points), (found[0], points)
    for mine, theirs in zip(found[0], points, strict=True):
        assert same(mine, theirs), (mine, theirs)
    assert found[1] == Counter(p for p in expected if isinstance(p, str))


@thorough(40)
@given(seed=st.integers(0, 2**32))
def test_totals_are_those_of_the_reference(seed: int) -> None:
    """All kinds, gaps, overlaps, disorder, silences and unknown starts; any batches, a snapshot after each."""
    rng = random.Random(seed)
    points = random_points(rng, 1)
    gap, stale, max_size = rng.choice(["reset", "continue"]), rng.choice([20, 60, 10**6]), rng.choice([2, 4, 160])
    now = rng.choice([100_000, 10**9])
    settings = DeltaToCumulativeSettings.model_validate({"max_stale": f"{stale}us", "gap": gap, "max_size": max_size})
    found = run(lambda: ToCumulative(settings), points, random_cuts(rng, len(points)), EPOCH + now)
    check(found, to_cumulative(points, stale=stale * 1000, gap=gap, now=now, max_size=max_size))


@thorough(40)
@given(seed=st.integers(0, 2**32))
def test_differences_are_those_of_the_reference(seed: int) -> None:
    """All kinds, resets with and without a start time, replaced writers, disorder, silences; any batches."""
    rng = random.Random(seed)
    points = random_points(rng, 2)
    initial, stale = rng.choice(["auto", "keep", "drop"]), rng.choice([20, 60, 10**6])
    now = rng.choice([100_000, 10**9])
    settings = CumulativeToDeltaSettings.model_validate({"max_stale": f"{stale}us", "initial_value": initial})
    found = run(lambda: ToDelta(settings), points, random_cuts(rng, len(points)), EPOCH + now)
    check(found, to_delta(points, stale=stale * 1000, initial=initial, now=now))


def test_one_stream_many_times_in_a_batch() -> None:
    """A whole history in one batch: the same totals, and differences that give it back."""
    points = [Point(10 * n + 10, 0.1 * n, start=10 * n) for n in range(3000)]
    points += [Point(10 * n + 10, Exponential(3, ((n % 50, 1),)), start=10 * n, name="e") for n in range(300)]
    points += [Point(10 * n + 10, Histogram((1.0,), (n, 1), 1.0, 0.5, 2.0), start=10 * n, name="h") for n in range(300)]
    settings = DeltaToCumulativeSettings()
    totals, dropped = run(lambda: ToCumulative(settings), points, [(0, len(points))])
    assert not dropped
    check((totals, dropped), to_cumulative(points, stale=10**18, gap="reset", now=10**6, max_size=160))
    back, dropped = run(
        lambda: ToDelta(CumulativeToDeltaSettings.model_validate({"initial_value": "keep"})), totals, [(0, len(points))]
    )
    assert not dropped
    assert [p.time for p in back] == [p.time for p in points]
    assert [p.start for p in back] == [p.start for p in points]
    assert [p.value.counts for p in back if isinstance(p.value, Histogram)] == [(n, 1) for n in range(300)]
    assert [p.value.positive for p in back if isinstance(p.value, Exponential)] == [((n % 50, 1),) for n in range(300)]


def test_two_writers_of_one_stream_one_is_believed() -> None:
    """Deltas that overlap are not added twice: those of whoever was first are, without a gap."""
    points = [Point(10 * n + 10 + 5 * (n % 2), 1, start=10 * n - 10 + 5 * (n % 2)) for n in range(1000)]
    out, dropped = run(lambda: ToCumulative(DeltaToCumulativeSettings()), points, [(0, 1000)])
    assert [p.value for p in out] == list(range(1, 501))
    assert dropped == {"overlapping": 500}


def test_a_wider_zero_bucket_takes_up_what_it_reaches_into() -> None:
    """Thresholds that differ: the widest holds, to the upper bound of the last bucket it took up."""
    narrow = Exponential(0, ((-3, 5), (0, 2)), zero=1, threshold=0.0, sum=1.0)
    wide = Exponential(0, ((1, 1),), zero=2, threshold=0.2, sum=1.0)
    points = [Point(10, narrow, start=0), Point(20, wide, start=10), Point(30, narrow, start=20)]
    for edges in ([(0, 3)], [(0, 1), (1, 2), (2, 3)]):
        out, _ = run(lambda: ToCumulative(DeltaToCumulativeSettings()), points, edges)
        totals = [p.value for p in out]
        assert totals[1] == Exponential(0, ((0, 2), (1, 1)), zero=8, threshold=0.25, sum=2.0)
        assert totals[2] == Exponential(0, ((0, 4), (1, 1)), zero=14, threshold=0.25, sum=3.0)
        deltas, _ = run(
            lambda: ToDelta(CumulativeToDeltaSettings.model_validate({"initial_value": "keep"})), out, edges
        )
        assert deltas[1].value == Exponential(0, ((1, 1),), zero=2, threshold=0.25, sum=1.0)


@pytest.mark.parametrize("make", [ToCumulative, ToDelta])
def test_streams_are_bounded_and_forgotten(make: Any) -> None:
    """Points of streams beyond the limit are dropped and counted; silent streams make room."""
    temporality = 1 if make is ToCumulative else 2
    kernel = make(_settings())
    first = [Point(1000, 1, attributes={"n": n}, temporality=temporality) for n in range(12)]
    found = kernel.add(metrics_batch_of(first), NOW)
    assert [(b.num_rows, r) for b, r in found.dropped if r == "too many streams"] == [(2, "too many streams")]
    assert len(kernel) == 10
    later = [Point(2_000_000 + 1000, 1, attributes={"n": n}, temporality=temporality) for n in range(20, 22)]
    kernel.add(metrics_batch_of(later), EPOCH + 10**9)
    kernel.add(
        metrics_batch_of([Point(2_002_000, 1, attributes={"n": 30}, temporality=temporality)]),
        EPOCH + 10**9,
    )
    assert len(kernel) == 1  # the first ten have gone, and the later two found no room before that


def _settings() -> Any:
    class Both(DeltaToCumulativeSettings, CumulativeToDeltaSettings):
        pass

    return Both.model_validate({"max_streams": 10, "max_stale": "1ms", "initial_value": "keep"})


def test_what_is_not_asked_for_passes() -> None:
    """Names left out, kinds left out, gauges, sums that fall: as they came, in their place."""
    points = [
        Point(10, 1, start=0, name="http.requests"),
        Point(10, 1, start=0, name="http.internal"),
        Point(10, 1, start=0, name="rpc"),
        Point(10, Histogram((1.0,), (1, 1)), start=0, name="http.h"),
        Point(10, 1, name="http.g", gauge=True, monotonic=False, temporality=0),
        Point(10, 1, start=0, name="http.size", monotonic=False),
    ]
    settings = DeltaToCumulativeSettings.model_validate(
        {"include": ["http[.].*"], "exclude": [".*internal"], "metric_types": ["sum"]}
    )
    out, dropped = run(lambda: ToCumulative(settings), points, [(0, len(points))])
    assert [p.temporality for p in out] == [2, 1, 1, 1, 0, 1]
    assert [p.name for p in out] == [p.name for p in points]
    assert not dropped


@pytest.mark.parametrize(
    "make", [lambda: ToCumulative(DeltaToCumulativeSettings()), lambda: ToDelta(CumulativeToDeltaSettings())]
)
def test_state_of_another_version_is_refused(make: Any) -> None:
    """With a hint at what to do."""
    with pytest.raises(BatchError, match="expected version 2, got 7"):
        make().restore({"version": 7})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_stale": "0s"}, "max_stale: expected more than 0"),
        ({"include": ["("]}, "expected a regular expression"),
        ({"shards": 5, "max_streams": 4}, "shards: expected at most max_streams"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """Each says what was expected."""
    with pytest.raises(ValueError, match=message):
        DeltaToCumulativeSettings.model_validate(options)
