"""The slow, obvious conversions: point by point, in dictionaries. And random points for them."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.metric_points import Exponential, Histogram, Point

__all__ = ["add", "random_cuts", "random_point", "random_points", "to_cumulative", "to_delta"]

Outcome = Point | str
BOUNDS = ((1.0, 2.0), (1.0, 5.0), (), (1.0, 2.0, 3.0))


def to_cumulative(points: Sequence[Point], *, stale: int, gap: str, now: int, max_size: int) -> list[Outcome]:
    """For each point what `delta_to_cumulative` makes of it, or why it is dropped."""
    streams: dict[Any, tuple[int, int | None, Any]] = {}  # last, start, total
    out: list[Outcome] = []
    high = -(2**62)
    for p in points:
        if p.gauge or p.temporality != 1 or not p.monotonic:
            out.append(p)
            continue
        if p.flags & 1 or p.value is None or (isinstance(p.value, float) and math.isnan(p.value)):
            out.append("no recorded value")
            continue
        horizon, high = high - stale, max(high, min(p.time, now))
        start = None if p.start is None or p.start >= p.time else p.start
        known = streams.get(p.stream)
        if known is not None and known[0] < horizon:
            known = None
        if known is not None:
            last, begun, total = known
            if p.time <= last:
                out.append("duplicate" if p.time == last else "out of order")
                continue
            if start is not None and start < last:
                out.append("overlapping")
                continue
            if gap == "reset" and start is not None and start > last:
                known = None
        if known is None:
            begun, total = start, fitted(p.value, max_size)
        else:
            total = add(total, p.value, max_size)
        streams[p.stream] = (p.time, begun, total)
        out.append(replace(p, start=begun, value=total, temporality=2))
    return out


def to_delta(points: Sequence[Point], *, stale: int, initial: str, now: int) -> list[Outcome]:
    """For each point what `cumulative_to_delta` makes of it, or why it is dropped."""
    streams: dict[Any, dict[str, Any]] = {}
    out: list[Outcome] = []
    high = -(2**62)
    since: int | None = None
    for p in points:
        if p.gauge or p.temporality != 2 or not p.monotonic:
            out.append(p)
            continue
        if p.flags & 1 or p.value is None or (isinstance(p.value, float) and math.isnan(p.value)):
            out.append("no recorded value")
            continue
        since = min(p.time, now) if since is None else since
        horizon, high = high - stale, max(high, min(p.time, now))
        start = None if p.start is None or p.start > p.time else p.start
        known = streams.get(p.stream)
        if known is not None and known["last"] < horizon:
            known = None
        if known is None:
            streams[p.stream] = {"last": p.time, "until": p.time, "start": start, "value": p.value}
            fresh = start is not None and start < p.time and start >= max(since, horizon)
            kept = initial == "keep" or (initial == "auto" and fresh)
            out.append(replace(p, start=start, temporality=1) if kept else "initial value")
            continue
        if p.time <= known["last"]:
            out.append("duplicate" if p.time == known["last"] else "out of order")
            continue
        known["last"] = p.time
        newest = known["start"]
        if start is not None and newest is not None and start < newest:
            out.append("overlapping")
            continue
        begun = known["until"]
        difference = subtract(p.value, known["value"])
        if start is not None and newest is not None and start > newest:
            begun, difference = max(begun, start), None
        if start is not None:
            known["start"] = start if newest is None else max(start, newest)
        known["until"], known["value"] = p.time, p.value
        out.append(replace(p, start=begun, value=p.value if difference is None else difference, temporality=1))
    return out


def add(a: Any, b: Any, max_size: int) -> Any:
    """The sum of two values of a kind."""
    if isinstance(a, Histogram):
        counts = tuple(x + y for x, y in zip(a.counts, b.counts, strict=True))
        return Histogram(
            a.bounds, counts, _both(a.sum, b.sum, float.__add__), _both(a.low, b.low, min), _both(a.high, b.high, max)
        )
    if isinstance(a, Exponential):
        scale, threshold = min(a.scale, b.scale), max(a.threshold, b.threshold)
        positive = _cells(a.positive, a.scale, b.positive, b.scale)
        negative = _cells(a.negative, a.scale, b.negative, b.scale)
        found = Exponential(scale, positive, negative, a.zero + b.zero, threshold, _both(a.sum, b.sum, float.__add__))
        return fitted(found, max_size)
    return a + b


def fitted(value: Any, max_size: int) -> Any:
    """An exponential histogram at the finest scale at which it fits."""
    if not isinstance(value, Exponential):
        return value
    while any(side and max(side)[0] - min(side)[0] >= max_size for side in (value.positive, value.negative)):
        value = coarser(value)
    return value


def coarser(value: Exponential) -> Exponential:
    return replace(
        value,
        scale=value.scale - 1,
        positive=_cells(value.positive, 1, (), 0),
        negative=_cells(value.negative, 1, (), 0),
    )


def subtract(a: Any, b: Any) -> Any:
    """The difference of two values of a kind; None: one has fallen."""
    if isinstance(a, Histogram):
        counts = tuple(x - y for x, y in zip(a.counts, b.counts, strict=True))
        return None if min(counts) < 0 else Histogram(a.bounds, counts, _both(a.sum, b.sum, float.__sub__))
    if isinstance(a, Exponential):
        scale = min(a.scale, b.scale)
        while a.scale > scale:
            a = coarser(a)
        while b.scale > scale:
            b = coarser(b)
        sides = []
        for mine, theirs in ((a.positive, b.positive), (a.negative, b.negative)):
            cells = dict(mine)
            for bucket, count in theirs:
                cells[bucket] = cells.get(bucket, 0) - count
            sides.append(tuple(sorted((bucket, count) for bucket, count in cells.items() if count)))
        if a.zero < b.zero or any(count < 0 for side in sides for _, count in side):
            return None
        zero, total = a.zero - b.zero, _both(a.sum, b.sum, float.__sub__)
        return Exponential(scale, sides[0], sides[1], zero, a.threshold, total)
    return None if a < b else a - b


def _both(a: float | None, b: float | None, function: Any) -> float | None:
    return None if a is None or b is None else function(a, b)


def _cells(a: Any, scale_a: int, b: Any, scale_b: int) -> tuple[tuple[int, int], ...]:
    scale = min(scale_a, scale_b)
    cells: dict[int, int] = {}
    for side, own in ((a, scale_a), (b, scale_b)):
        for bucket, count in side:
            place = bucket >> (own - scale)
            cells[place] = cells.get(place, 0) + count
    return tuple(sorted(cells.items()))


def random_points(rng: random.Random, temporality: int) -> list[Point]:
    """Points of few streams: most in order, some not, with starts that fit, leave gaps, overlap or are unknown."""
    found: list[Point] = []
    few = rng.randint(1, 5)
    for n in range(rng.randint(0, 30)):
        point = random_point(rng, 10_000 * n, temporality)
        if n >= few:  # go on with a stream there is
            like = rng.choice(found)
            value: Any = point.value
            if isinstance(value, Histogram) and isinstance(like.value, Histogram):
                value = replace(value, bounds=like.value.bounds, counts=(value.counts * 4)[: len(like.value.counts)])
            elif type(value) is not type(like.value) or rng.random() < 0.7:
                value = _grown(like.value, rng.randint(0, 3))
            start = rng.choice([point.start, like.time, like.time, like.start])
            point = replace(like, time=point.time, value=value, start=start, flags=point.flags)
        found.append(point)
    return found


def random_point(rng: random.Random, at: int, temporality: int) -> Point:
    time, value = at + 1000 * rng.randint(-3, 12), _value(rng)
    return Point(
        time=time,
        value=value,
        start=rng.choice([None, time - 10_000, time - 10_000, time, at - 10_000, at, 0, 5000, time + 1]),
        name=rng.choice("mn"),
        attributes=rng.choice([{}, {"a": "x", "b": 1}, {"b": 1, "a": "x"}, {"a": 1}, {"a": "1"}]),
        temporality=temporality if rng.random() < 0.9 else 3 - temporality,
        monotonic=isinstance(value, (Histogram, Exponential)) or rng.random() < 0.9,
        service=rng.choice(["shop", "shop", "cart"]),
        flags=int(rng.random() < 0.05),
    )


def _value(rng: random.Random) -> Any:
    kind = rng.randrange(9)
    total = rng.choice([None, rng.randint(0, 8) / 4])
    if kind < 2:
        return rng.randint(0, 5)
    if kind < 4:
        return rng.random() * 10
    if kind < 6:
        bounds = rng.choice(BOUNDS)
        counts = tuple(rng.randint(0, 4) for _ in range(len(bounds) + 1))
        return Histogram(bounds, counts, total, rng.choice([None, rng.random()]), rng.choice([None, rng.random()]))
    if kind < 8:
        sides = [
            tuple(sorted({rng.randint(-9, 9): rng.randint(1, 4) for _ in range(rng.randrange(4))}.items()))
            for _ in "+-"
        ]
        return Exponential(rng.randint(-1, 2), sides[0], sides[1], zero=rng.randrange(3), sum=total)
    return rng.choice([None, math.nan])


def _grown(value: Any, more: int) -> Any:
    """A value of the kind of another, somewhat larger."""
    match value:
        case Histogram():
            return replace(value, counts=tuple(n + more for n in value.counts))
        case Exponential():
            return replace(value, zero=value.zero + more, positive=tuple((b, n + more) for b, n in value.positive))
        case None:
            return None
        case _:
            return value + more


def random_cuts(rng: random.Random, count: int) -> list[tuple[int, int]]:
    """Where a list of points is cut into batches."""
    edges = sorted({0, count, *(rng.randrange(count + 1) for _ in range(rng.randrange(5)))})
    return list(itertools.pairwise(edges))
