"""The slow, obvious re-aggregation: point by point, in dictionaries. And points for it."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from telflow.metric_streams import ReaggregateSettings
from telflow.metric_streams.settings import nanos
from tests.metric_points import Point
from tests.stream_reference import add, fitted, random_points, to_delta

__all__ = ["merge", "mixed_points"]


def mixed_points(rng: random.Random) -> list[Point]:
    """Deltas, totals and gauges, mixed; times in steps of 2 ms."""
    points = [*random_points(rng, 1), *random_points(rng, 2)]
    gauges = [p for p in random_points(rng, 1) if isinstance(p.value, (int, float))]
    points += [replace(p, gauge=True, temporality=0, monotonic=False, name="g") for p in gauges]
    points.sort(key=lambda p: p.time)
    for _ in range(rng.randrange(6)):
        points.insert(rng.randrange(len(points) + 1), points.pop(rng.randrange(len(points)))) if points else None
    return [replace(p, time=p.time * 200, start=None if p.start is None else p.start * 200) for p in points]


def merge(  # noqa: C901, PLR0912 - all rules in one place, one after the other
    points: Sequence[Point], settings: ReaggregateSettings, now: int
) -> tuple[list[Point], Counter[str]]:
    """One tenant's points merged, all intervals closed in the end, and why others were not; not what passes."""
    length, lateness = nanos(settings.interval), nanos(settings.lateness)
    refused = Counter[str]()
    high = -(2**62)
    places: dict[int, int] = {}
    taken: list[Point] = []
    for p in points:
        if not p.gauge and p.temporality == 2 and not p.monotonic:
            continue
        if p.time > now + nanos(settings.max_ahead):
            refused["ahead of clock"] += 1
            continue
        if p.flags & 1 or p.value is None or (isinstance(p.value, float) and math.isnan(p.value)):
            refused["no recorded value"] += 1
            continue
        high = max(high, min(p.time, now))
        places[len(taken)] = max(p.time // length, (high - lateness) // length) * length
        taken.append(p)
    deltas: list[tuple[int, Point]] = []
    totals = [n for n, p in enumerate(taken) if not p.gauge and p.temporality == 2]
    for n, found in zip(
        totals, to_delta([taken[n] for n in totals], stale=10**18, initial="keep", now=now), strict=True
    ):
        if isinstance(found, str):
            refused[found] += 1
        else:
            deltas.append((places[n], replace(found, temporality=2)))
    deltas += [(places[n], p) for n, p in enumerate(taken) if not p.gauge and p.temporality == 1]
    sums: dict[int, dict[Any, Point]] = defaultdict(dict)
    for place, p in deltas:
        reduced = replace(p, attributes=_reduced(p, settings))
        before = sums[place].get(reduced.stream)
        starts = [s for s in (reduced.start, None if before is None else before.start) if s is not None]
        value = fitted(p.value, settings.max_size) if before is None else add(before.value, p.value, settings.max_size)
        sums[place][reduced.stream] = replace(reduced, value=value, start=min(starts, default=None))
    gauges: dict[int, dict[Any, Point]] = defaultdict(dict)
    for n, p in enumerate(taken):
        if p.gauge:
            before = gauges[places[n]].get(p.stream)
            if before is None or p.time >= before.time:
                gauges[places[n]][p.stream] = p
    out: list[Point] = []
    known: dict[Any, Point] = {}
    for place in sorted({*sums, *gauges}):
        for stream, p in sums[place].items():
            if p.temporality == 1:
                out.append(replace(p, start=place, time=place + length))
                continue
            begun, value = (p.start, p.value)
            if stream in known:
                begun, value = known[stream].start, add(known[stream].value, p.value, settings.max_size)
            known[stream] = replace(p, start=begun, time=place + length, value=value)
            out.append(known[stream])
        out += _gauges(list(gauges[place].values()), settings)
    return out, refused


def _reduced(p: Point, settings: ReaggregateSettings) -> dict[str, Any]:
    if settings.keep is not None:
        return {key: value for key, value in p.attributes.items() if key in settings.keep}
    return {key: value for key, value in p.attributes.items() if key not in (settings.remove or ())}


def _gauges(points: list[Point], settings: ReaggregateSettings) -> list[Point]:
    groups: dict[Any, list[Point]] = defaultdict(list)
    for p in points:
        reduced = replace(p, attributes=_reduced(p, settings))
        groups[reduced.stream].append(reduced)
    out = []
    for some in groups.values():
        latest = some[0]
        for p in some:
            latest = p if p.time >= latest.time else latest
        values: list[Any] = [p.value for p in some]
        match settings.gauge:
            case "last":
                value = latest.value
            case "mean":
                value = sum(values) / len(values)
            case "sum":
                value = sum(values)
            case name:
                value = {"min": min, "max": max}[name](values)
        out.append(replace(latest, value=value))
    return out
