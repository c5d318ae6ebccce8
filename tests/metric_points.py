"""Data points of metrics as plain objects, batches made of them, and read back: for tests of what works on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from telflow.batch import TelemetryBatch
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, MetricType, Signal
from tests.spans import EPOCH

__all__ = ["Exponential", "Histogram", "Point", "metrics_batch_of", "points_of"]


@dataclass(frozen=True)
class Histogram:
    """Explicit buckets."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Exponential:
    """Exponential buckets, by index, above and below zero."""

    scale: int
    positive: tuple[tuple[int, int], ...] = ()
    negative: tuple[tuple[int, int], ...] = ()
    zero: int = 0
    threshold: float = 0.0
    sum: float | None = None

    @property
    def count(self) -> int:
        return self.zero + sum(n for _, n in (*self.positive, *self.negative))


@dataclass(frozen=True)
class Point:
    """A data point as a test thinks of it; times are nanoseconds after EPOCH, a start of None is unknown."""

    time: int
    value: int | float | Histogram | Exponential | None
    start: int | None = None
    name: str = "m"
    attributes: dict[str, Any] = field(default_factory=dict)
    temporality: int = 1
    monotonic: bool = True
    tenant: str | None = "acme"
    service: str = "shop"
    gauge: bool = False
    flags: int = 0

    @property
    def stream(self) -> tuple[Any, ...]:
        """What tells its stream apart."""
        value = self.value
        kind = value.bounds if isinstance(value, Histogram) else type(value)
        return (
            self.tenant,
            self.service,
            self.name,
            tuple(sorted(self.attributes.items())),
            self.temporality,
            self.monotonic,
            self.gauge,
            kind,
        )


def metrics_batch_of(points: Sequence[Point]) -> TelemetryBatch:
    """The points in their order, each run of one tenant and service with a resource of its own."""
    resources: list[dict[str, Any]] = []
    records = []
    for point in points:
        resource = {"tenant": point.tenant, "attributes": _attributes({"service.name": point.service})}
        if not resources or resources[-1] != resource:
            resources.append(resource)
        records.append({**_record(point), "resource": len(resources) - 1})
    return TelemetryBatch(
        Signal.METRICS,
        _table(records, RECORD_SCHEMAS[Signal.METRICS]),
        _table(resources, RESOURCES),
        _table([{"name": "test"}], SCOPES),
    )


def points_of(batches: Iterable[TelemetryBatch | None]) -> list[Point]:
    """The points of batches, in their order."""
    found = []
    for batch in batches:
        if batch is not None:
            resources = batch.resources.to_pylist()
            found += [_point(row, resources[row["resource"]]) for row in batch.records.to_pylist()]
    return found


def _record(point: Point) -> dict[str, Any]:
    row = {
        "name": point.name,
        "type": int(MetricType.GAUGE if point.gauge else MetricType.SUM),
        "aggregation_temporality": 0 if point.gauge else point.temporality,
        "is_monotonic": point.monotonic and not point.gauge,
        "attributes": _attributes(point.attributes),
        "start_time_unix_nano": 0 if point.start is None else EPOCH + point.start,
        "time_unix_nano": EPOCH + point.time,
        "flags": point.flags,
    }
    match point.value:
        case int():
            row["value_int"] = point.value
        case float():
            row["value_double"] = point.value
        case Histogram() as found:
            row |= {"type": int(MetricType.HISTOGRAM), "is_monotonic": False}
            row |= {"bucket_counts": list(found.counts), "explicit_bounds": list(found.bounds)}
            row |= {"count": sum(found.counts), "sum": found.sum, "min": found.low, "max": found.high}
        case Exponential() as found:
            row |= {"type": int(MetricType.EXPONENTIAL_HISTOGRAM), "is_monotonic": False}
            row |= {"scale": found.scale, "zero_count": found.zero, "zero_threshold": found.threshold}
            row |= {"count": found.count, "sum": found.sum}
            row |= {"positive": _buckets(found.positive), "negative": _buckets(found.negative)}
    return row


def _buckets(cells: Sequence[tuple[int, int]]) -> dict[str, Any] | None:
    if not cells:
        return None
    found = dict(cells)
    low, high = min(found), max(found)
    return {"offset": low, "bucket_counts": [found.get(n, 0) for n in range(low, high + 1)]}


def _cells(buckets: dict[str, Any] | None) -> tuple[tuple[int, int], ...]:
    if buckets is None:
        return ()
    return tuple((buckets["offset"] + n, count) for n, count in enumerate(buckets["bucket_counts"]) if count)


def _point(row: dict[str, Any], resource: dict[str, Any]) -> Point:
    value: Any = row["value_int"] if row["value_int"] is not None else row["value_double"]
    if row["type"] == MetricType.HISTOGRAM:
        value = Histogram(
            tuple(row["explicit_bounds"]), tuple(row["bucket_counts"]), row["sum"], row["min"], row["max"]
        )
        assert row["count"] == sum(value.counts)
    elif row["type"] == MetricType.EXPONENTIAL_HISTOGRAM:
        positive, negative = _cells(row["positive"]), _cells(row["negative"])
        value = Exponential(row["scale"], positive, negative, row["zero_count"], row["zero_threshold"], row["sum"])
        assert row["count"] == value.count
    gauge = row["type"] == MetricType.GAUGE
    histogram = isinstance(value, (Histogram, Exponential))
    return Point(
        time=row["time_unix_nano"] - EPOCH,
        value=value,
        start=row["start_time_unix_nano"] - EPOCH if row["start_time_unix_nano"] else None,
        name=row["name"],
        attributes={
            a["key"]: next(a[k] for k in ("str", "int", "double", "bool") if a[k] is not None)
            for a in row["attributes"]
        },
        temporality=row["aggregation_temporality"],
        monotonic=row["is_monotonic"] or histogram,
        tenant=resource["tenant"],
        service=resource["attributes"][0]["str"] if resource["attributes"] else "",
        gauge=gauge,
        flags=row["flags"],
    )


def same(mine: Point, theirs: Point) -> bool:
    """Whether two points are equal, NaN being equal to itself."""
    if isinstance(mine.value, float) and isinstance(theirs.value, float):
        equal = mine.value == theirs.value or (math.isnan(mine.value) and math.isnan(theirs.value))
        return equal and replace(mine, value=0) == replace(theirs, value=0)
    return mine == theirs


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {str: (1, "str"), int: (3, "int"), float: (4, "double")}
    return [{"key": key, "type": kinds[type(v)][0], kinds[type(v)][1]: v} for key, v in values.items()]


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{f.name: row.get(f.name, _default(f)) for f in schema} for row in rows], schema)


def _default(column: pa.Field) -> Any:
    if column.nullable:
        return None
    if pa.types.is_list(column.type):
        return []
    return "" if pa.types.is_string(column.type) else 0
