"""The slow, obvious aggregation: row by row, in dictionaries and lists; and results read back in its form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa

from telflow.aggregation import AggregateSettings, SessionWindow, SlidingWindow
from telflow.aggregation.settings import nanos
from tests.spans import Span

Series: TypeAlias = tuple[Any, ...]
Place: TypeAlias = tuple[str | None, int, int, Series, bool]
"""Tenant, start, end, keys, is overflow."""


@dataclass
class _Tenant:
    high: int = 0
    watermark: int = -(10**30)
    series: set[Series] = field(default_factory=set)
    session_rows: list[tuple[Series, bool, int, Span]] = field(default_factory=list)


class Reference:
    """What `aggregate` must give for spans; one key per tenant, no expiry, all windows flushed at the end."""

    def __init__(self, settings: AggregateSettings, now: int) -> None:
        self.settings, self.now = settings, now
        self.length, self.lateness, self.max_ahead = (
            nanos(d) for d in (settings.length, settings.lateness, settings.max_ahead)
        )
        self.slide = nanos(settings.window.slide) if isinstance(settings.window, SlidingWindow) else self.length
        self.retain = settings.window_shape().retain_nano
        self.final: dict[Place, list[Span]] = {}
        self.corrected: dict[Place, list[Span]] = {}
        self.late = self.ahead = 0
        self.tenants: dict[str | None, _Tenant] = {}

    def add(self, spans: Iterable[Span]) -> None:
        for span in spans:
            self._span(span)

    def _span(self, span: Span) -> None:
        if span.end > self.now + self.max_ahead:
            self.ahead += 1
            return
        tenant = self.tenants.setdefault(span.tenant, _Tenant())
        tenant.high = max(tenant.high, span.end)
        tenant.watermark = max(tenant.watermark, min(tenant.high, self.now) - self.lateness)
        if isinstance(self.settings.window, SessionWindow):
            if span.end < tenant.watermark:
                self.late += 1
            else:
                tenant.session_rows.append((*self._series(tenant, span), span.end, span))
            return
        pane = span.end - span.end % self.slide
        ends = range(pane + self.slide, pane + self.length + 1, self.slide)
        if ends[-1] + self.retain <= tenant.watermark:
            self.late += 1
            return
        series, over = self._series(tenant, span)
        for end in ends:
            place = (span.tenant, end - self.length, end, series, over)
            if end > tenant.watermark:
                self.final.setdefault(place, []).append(span)
                self.corrected.setdefault(place, []).append(span)
            elif end + self.retain > tenant.watermark:
                self.corrected.setdefault(place, []).append(span)

    def _series(self, tenant: _Tenant, span: Span) -> tuple[Series, bool]:
        series = tuple(self._key(span, name.name) for name in self.settings.by)
        if series not in tenant.series and len(tenant.series) >= self.settings.max_series:
            return (None,) * len(series), True
        tenant.series.add(series)
        return series, False

    @staticmethod
    def _key(span: Span, name: str) -> Any:
        if name == "name":
            return span.name
        value = span.attributes.get(name, span.resource_attributes.get(name))
        return None if value is None else str(value)

    def finish(self) -> None:
        """Make sessions of the rows that count."""
        for tenant, state in self.tenants.items():
            for series, over in {row[:2] for row in state.session_rows}:
                rows = sorted((r for r in state.session_rows if r[:2] == (series, over)), key=lambda r: r[2])
                group: list[Any] = []
                for row in [*rows, None]:
                    if group and (row is None or row[2] - group[-1][2] >= self.length):
                        place = (tenant, group[0][2], group[-1][2] + self.length, series, over)
                        self.final[place] = [r[3] for r in group]
                        group = []
                    group.append(row)

    def results(self, found: dict[Place, list[Span]]) -> dict[Place, dict[str, Any]]:
        """The measures of each window and series, in plain values."""
        return {
            place: {name: self._measure(m, spans, place) for name, m in self.settings.measures.items()}
            for place, spans in found.items()
        }

    def _measure(self, measure: Any, spans: Sequence[Span], place: Place) -> Any:
        of: Any = getattr(measure, "of", None)
        values = [v for s in spans if (v := _number(s, of.name)) is not None] if of is not None else []
        seconds = (place[2] - place[1]) / 1e9
        summary = {
            "count": len(values),
            "sum": float(sum(values)),
            "min": min(values, default=None),
            "max": max(values, default=None),
        }
        match measure.kind:
            case "count":
                return len(spans) if of is None else sum(_value(s, of.name) is not None for s in spans)
            case "rate":
                return (len(spans) if of is None else sum(values)) / seconds
            case "sum" | "min" | "max":
                return summary[measure.kind]
            case "last":
                timed = [(s.end, v) for s in spans if (v := _number(s, of.name)) is not None]
                return max(timed)[1] if timed else None
            case "mean":
                return sum(values) / len(values) if values else None
            case "distinct":
                return len({str(v) for s in spans if (v := _value(s, of.name)) is not None})
            case "histogram":
                edges = [-math.inf, *measure.bounds, math.inf]
                counts = [sum(a < v <= b for v in values) for a, b in itertools.pairwise(edges)]
                return {**summary, "bucket_counts": counts, "explicit_bounds": list(measure.bounds)}
            case "exponential_histogram":
                return {**summary, **exponential(values, measure.max_size)}
            case _:
                return {"values": sorted(values), "quantiles": measure.quantiles, "error": measure.error}


def _value(span: Span, name: str) -> Any:
    return span.duration / 1e9 if name == "duration_s" else span.attributes.get(name)


def _number(span: Span, name: str) -> float | None:
    value = _value(span, name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def exponential(values: Sequence[float], max_size: int) -> dict[str, Any]:
    sides = {"positive": [v for v in values if v > 0], "negative": [-v for v in values if v < 0]}
    for scale in range(20, -11, -1):
        indices = {side: [math.ceil(math.log2(v) * 2.0**scale) - 1 for v in vs] for side, vs in sides.items()}
        if all(not found or max(found) - min(found) < max_size for found in indices.values()):
            break
    buckets = {}
    for side, found in indices.items():
        low, high = min(found, default=0), max(found, default=-1)
        buckets[side] = {"offset": low, "bucket_counts": [found.count(i) for i in range(low, high + 1)]}
    any_values = any(sides.values())
    return {"scale": scale if any_values else 0, "zero_count": sum(v == 0 for v in values), **buckets}


def read(
    rows: Iterable[pa.RecordBatch], settings: AggregateSettings, kind: str = "final"
) -> dict[Place, dict[str, Any]]:
    """Results by place; of a place's corrections the last counts, anything else must come once."""
    found: dict[Place, dict[str, Any]] = {}
    for table in rows:
        for row in table.to_pylist():
            if row["kind"] != kind:
                continue
            keys = tuple(row[field.name] for field in settings.by)
            place = (row["tenant"], row["window_start_unix_nano"], row["window_end_unix_nano"], keys, row["overflow"])
            assert kind == "correction" or place not in found
            found[place] = {name: row[name] for name in settings.measures}
    return found


def assert_same(got: dict[Place, dict[str, Any]], expected: dict[Place, dict[str, Any]]) -> None:
    """The same windows and series with equal measures; quantiles within their error."""
    assert got.keys() == expected.keys()
    for place, measures in expected.items():
        for name, value in measures.items():
            found = got[place][name]
            if isinstance(value, dict) and "quantiles" in value:
                _assert_quantiles(found, value)
            else:
                assert found == value, (place, name, found, value)


def _assert_quantiles(found: dict[str, Any], expected: dict[str, Any]) -> None:
    values = expected["values"]
    assert (found["count"], found["sum"]) == (len(values), sum(values))
    assert [q["quantile"] for q in found["quantile_values"]] == (list(expected["quantiles"]) if values else [])
    for pair in found["quantile_values"]:
        true = values[math.floor(pair["quantile"] * (len(values) - 1))]
        assert abs(pair["value"] - true) <= expected["error"] * abs(true) + 1e-300
