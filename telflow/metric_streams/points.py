"""Values of data points as numpy arrays, out of a batch and back into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.metric_points import Temporality
from telflow.metric_streams.exponential_points import ExponentialPoints, read_exponential, write_exponential
from telflow.rows import replace_column
from telflow.schema import MetricType

__all__ = ["Buckets", "PointValues", "read_points", "with_interval", "write_points"]

Ints: TypeAlias = npt.NDArray[np.int64]
Counts: TypeAlias = npt.NDArray[np.uint64]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Buckets:
    """Bucket counts of those of some points that have equally many.

    Attributes:
        at: Which of the points, ascending.
        counts: One row for each of them, one column for each bucket.
    """

    at: Ints
    counts: Counts


@dataclass(frozen=True, slots=True)
class PointValues:
    """Values of some points; what a point's kind does not have is 0.

    Attributes:
        whole: The value of a whole number.
        real: The value of another number; the sum of a histogram, NaN where there is none.
        count: Number of values in a histogram.
        low: Smallest value in a histogram, NaN where it is not known.
        high: Largest, likewise.
        buckets: By number of buckets, those of explicit histograms.
        exponential_at: Which of the points are exponential histograms, ascending.
        exponential: Their buckets.
    """

    whole: Ints
    real: Floats
    count: Counts
    low: Floats
    high: Floats
    buckets: Mapping[int, Buckets] = field(default_factory=dict)
    exponential_at: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    exponential: ExponentialPoints | None = None

    def __len__(self) -> int:
        return len(self.whole)

    def plain(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """The arrays with one value for each point, by name."""
        return ((name, getattr(self, name)) for name in ("whole", "real", "count", "low", "high"))


def read_points(records: pa.RecordBatch, rows: Ints) -> PointValues:
    """Return the values of some points: sums, gauges, histograms of both kinds."""
    kinds = records["type"].to_numpy()[rows]
    number = (kinds == int(MetricType.SUM)) | (kinds == int(MetricType.GAUGE))
    widths = pc.fill_null(pc.list_value_length(records["bucket_counts"]), pa.scalar(0, pa.int32())).to_numpy()[rows]
    widths = np.where(kinds == int(MetricType.HISTOGRAM), widths, 0)
    buckets = {}
    if widths.any():
        offsets, cells = _cells(records["bucket_counts"])
        for width in np.unique(widths[widths > 0]).tolist():
            at = np.flatnonzero(widths == width)
            buckets[width] = Buckets(at, cells[offsets[rows[at], None] + np.arange(width)])
    exponential_at = np.flatnonzero(kinds == int(MetricType.EXPONENTIAL_HISTOGRAM))
    return PointValues(
        _numbers(records["value_int"], 0)[rows],
        np.where(number, _numbers(records["value_double"], 0.0)[rows], _numbers(records["sum"], np.nan)[rows]),
        _numbers(records["count"], 0)[rows],
        _numbers(records["min"], np.nan)[rows],
        _numbers(records["max"], np.nan)[rows],
        buckets,
        exponential_at,
        read_exponential(records, rows[exponential_at]) if exponential_at.size else None,
    )


def write_points(records: pa.RecordBatch, rows: Ints, values: PointValues) -> pa.RecordBatch:
    """Return a table of points with other values at some rows; their kinds, and bounds, stay."""
    kinds = records["type"].to_numpy()[rows]
    number = kinds == int(MetricType.SUM)
    number |= kinds == int(MetricType.GAUGE)
    whole = records["value_int"].is_valid().to_numpy(zero_copy_only=False)[rows]
    histogram = ~number
    for name, chosen, column in (
        ("value_int", number & whole, values.whole),
        ("value_double", number & ~whole, values.real),
        ("count", histogram, values.count),
        ("sum", histogram, values.real),
        ("min", histogram, values.low),
        ("max", histogram, values.high),
    ):
        if chosen.any():
            records = replace_column(records, name, _put(records[name], rows[chosen], column[chosen]))
    if values.buckets:
        lists = records["bucket_counts"]
        offsets, cells = _cells(lists)
        cells = cells.copy()
        for width, found in values.buckets.items():
            cells[offsets[rows[found.at], None] + np.arange(width)] = found.counts
        missing = lists.is_null() if lists.null_count else None
        column = pa.ListArray.from_arrays(
            pa.array(offsets.astype(np.int32)), pa.array(cells), type=lists.type, mask=missing
        )
        records = replace_column(records, "bucket_counts", column)
    if values.exponential is not None:
        records = write_exponential(records, rows[values.exponential_at], values.exponential)
    return records


def with_interval(records: pa.RecordBatch, rows: Ints, starts: Ints, temporality: Temporality) -> pa.RecordBatch:
    """Return a table of points with other start times and another temporality at some rows."""
    begun = records["start_time_unix_nano"].to_numpy().copy()
    begun[rows] = starts
    kind = records["aggregation_temporality"].to_numpy().copy()
    kind[rows] = int(temporality)
    records = replace_column(records, "start_time_unix_nano", pa.array(begun))
    return replace_column(records, "aggregation_temporality", pa.array(kind))


def _cells(lists: pa.ListArray) -> tuple[Ints, Counts]:
    """Where each list begins, with the end of the last, and the content of all."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    cells = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    return offsets - offsets[0], cells.to_numpy(zero_copy_only=False).astype(np.uint64)


def _numbers(column: pa.Array, missing: float) -> npt.NDArray[Any]:
    if column.null_count:
        column = column.fill_null(pa.scalar(missing, column.type))
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _put(column: pa.Array, rows: Ints, values: npt.NDArray[Any]) -> pa.Array:
    """Other values at some rows; NaN is null."""
    found = _numbers(column, 0).copy()
    found[rows] = values
    missing = column.is_null().to_numpy(zero_copy_only=False).copy()
    missing[rows] = np.isnan(values) if found.dtype == np.float64 else False
    return pa.array(found, column.type, mask=missing)
