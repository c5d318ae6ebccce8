"""Data points taken apart into Prometheus' samples, whole columns at a time.

A histogram point becomes one sample per bucket, counted from the lowest bound, a sum and a count; a summary one per
quantile, a sum and a count. Values that were not recorded become stale markers: a NaN that Prometheus takes as the end
of a series. Rules: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.prometheus.names import number_text
from connectors.prometheus.series_labels import SeriesLabels, Suffix
from telflow.schema import MetricType

__all__ = ["STALE", "Samples", "float_samples", "ragged", "stale_rows"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

STALE = np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0]
"""Prometheus' stale marker (`model/value`)."""

_PLAIN: Suffix = ("", "", "")
_COUNT: Suffix = ("_count", "", "")
_SUM: Suffix = ("_sum", "", "")
_ALL: Suffix = ("_bucket", "le", "+Inf")
_NO_RECORDED_VALUE = 1


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of any series.

    Attributes:
        keys: Number of the series of each (`SeriesLabels.keys`).
        rows: Row of the point it is of.
        values: Its value.
    """

    keys: Ints
    rows: Ints
    values: Floats

    @staticmethod
    def concat(parts: list[Samples]) -> Samples:
        """Return all of them, in order."""
        if not parts:
            none = np.empty(0, np.int64)
            return Samples(none, none, np.empty(0))
        keys, rows, values = zip(*((p.keys, p.rows, p.values) for p in parts), strict=True)
        return Samples(np.concatenate(keys), np.concatenate(rows), np.concatenate(values))


def stale_rows(records: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return for each point whether it says that there is no value (flag `NO_RECORDED_VALUE`)."""
    return np.asarray(records["flags"].to_numpy() & _NO_RECORDED_VALUE != 0)


def float_samples(records: pa.RecordBatch, slots: Ints, series: SeriesLabels) -> Samples:
    """Return the samples of all points but exponential histograms.

    Args:
        records: Data points, cumulative where they have a temporality.
        slots: The slot of each.
        series: Where numbers of series come from.
    """
    kind = records["type"].to_numpy()
    stale = stale_rows(records)
    parts: list[Samples] = []
    parts += _numbers(
        records, slots, series, np.flatnonzero(np.isin(kind, [MetricType.GAUGE, MetricType.SUM]) & ~stale)
    )
    parts += _histograms(records, slots, series, np.flatnonzero((kind == MetricType.HISTOGRAM) & ~stale))
    parts += _summaries(records, slots, series, np.flatnonzero((kind == MetricType.SUMMARY) & ~stale))
    parts += _stale(kind, slots, series, np.flatnonzero(stale & (kind != MetricType.EXPONENTIAL_HISTOGRAM)))
    return Samples.concat(parts)


def _numbers(records: pa.RecordBatch, slots: Ints, series: SeriesLabels, rows: Ints) -> Iterator[Samples]:
    if rows.size:
        whole = _floats(records["value_int"], rows)
        values = np.where(np.isnan(whole), _floats(records["value_double"], rows), whole)
        has = _valid(records["value_int"], rows) | _valid(records["value_double"], rows)
        yield Samples(series.keys(slots[rows], series.suffix(_PLAIN))[has], rows[has], values[has])


def _histograms(records: pa.RecordBatch, slots: Ints, series: SeriesLabels, rows: Ints) -> Iterator[Samples]:
    if not rows.size:
        return
    counts = _floats(records["count"], rows)
    yield Samples(series.keys(slots[rows], series.suffix(_COUNT)), rows, counts)
    yield Samples(series.keys(slots[rows], series.suffix(_ALL)), rows, counts)
    yield from _sums(records, slots, series, rows)
    numbers, counted, starts = ragged(records["bucket_counts"], rows)
    bounds, lengths, _ = ragged(records["explicit_bounds"], rows)
    # A point whose buckets do not fit its bounds, or that has none, still has its count.
    fits = counted == lengths + 1
    bounds, lengths = bounds[np.repeat(fits, lengths)], np.where(fits, lengths, 0)
    if not bounds.size:
        return
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(numbers.astype(np.uint64))])
    # The last bucket, which has no bound, is left out: the count stands for it.
    places = _places(starts, lengths)
    upto = sums[places + 1] - np.repeat(sums[starts], lengths)
    yield Samples(
        series.keys(np.repeat(slots[rows], lengths), _numbered(series, "_bucket", "le", bounds)),
        np.repeat(rows, lengths),
        upto.astype(np.float64),
    )


def _summaries(records: pa.RecordBatch, slots: Ints, series: SeriesLabels, rows: Ints) -> Iterator[Samples]:
    if not rows.size:
        return
    yield Samples(series.keys(slots[rows], series.suffix(_COUNT)), rows, _floats(records["count"], rows))
    yield from _sums(records, slots, series, rows)
    pairs = records["quantile_values"].take(pa.array(rows))
    lengths = np.diff(pairs.offsets.to_numpy()).astype(np.int64)
    flat = pairs.flatten()
    quantiles = flat.field("quantile").to_numpy(zero_copy_only=False)
    yield Samples(
        series.keys(np.repeat(slots[rows], lengths), _numbered(series, "", "quantile", quantiles)),
        np.repeat(rows, lengths),
        flat.field("value").to_numpy(zero_copy_only=False),
    )


def _sums(records: pa.RecordBatch, slots: Ints, series: SeriesLabels, rows: Ints) -> Iterator[Samples]:
    has = _valid(records["sum"], rows)
    some = rows[has]
    yield Samples(series.keys(slots[some], series.suffix(_SUM)), some, _floats(records["sum"], some))


def _stale(kind: npt.NDArray[np.uint8], slots: Ints, series: SeriesLabels, rows: Ints) -> Iterator[Samples]:
    """End every series that was ever seen of a point; of one never seen, those that any point of its kind has."""
    if not rows.size:
        return
    several = np.isin(kind[rows], [MetricType.HISTOGRAM, MetricType.SUMMARY])
    expected = [np.asarray(series.keys(slots[rows[~several]], series.suffix(_PLAIN)))]
    places = [rows[~several]]
    for suffix in (_COUNT, _SUM):
        expected.append(series.keys(slots[rows[several]], series.suffix(suffix)))
        places.append(rows[several])
    buckets = rows[kind[rows] == MetricType.HISTOGRAM]
    expected.append(series.keys(slots[buckets], series.suffix(_ALL)))
    places.append(buckets)
    of, known = series.of_slots(slots[rows])
    keys, of_rows = np.concatenate([*expected, known]), np.concatenate([*places, rows[of]])
    _, first = np.unique(np.stack([keys, of_rows]), axis=1, return_index=True)
    yield Samples(keys[first], of_rows[first], np.full(len(first), STALE))


def _numbered(series: SeriesLabels, ending: str, label: str, values: Floats) -> Ints:
    """Return the suffix of each value: the distinct ones are few."""
    distinct, inverse = np.unique(values, return_inverse=True)
    suffixes = [series.suffix((ending, label, number_text(value))) for value in distinct.tolist()]
    return np.array(suffixes, np.int64)[inverse]


def ragged(column: pa.ListArray, rows: Ints) -> tuple[npt.NDArray[np.generic], Ints, Ints]:
    """Return the items of some rows of a list column, how many each row has, and where they start."""
    taken = column.take(pa.array(rows))
    offsets = taken.offsets.to_numpy().astype(np.int64)
    items = taken.flatten().to_numpy(zero_copy_only=False)
    return items, np.diff(offsets), offsets[:-1] - offsets[0]


def _places(starts: Ints, lengths: Ints) -> Ints:
    """Return the places of the first `lengths` items from each start."""
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.asarray(np.repeat(starts, lengths) + within)


def _floats(column: pa.Array, rows: Ints) -> Floats:
    return np.asarray(column.take(pa.array(rows)).to_numpy(zero_copy_only=False), np.float64)


def _valid(column: pa.Array, rows: Ints) -> npt.NDArray[np.bool_]:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False)[rows])
