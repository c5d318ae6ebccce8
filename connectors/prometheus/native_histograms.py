"""Exponential histograms as Prometheus' native ones: other bucket numbers, counts as differences, sparse spans."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectors.prometheus.samples import STALE, ragged, stale_rows
from connectors.prometheus.wire import delimited, doubles, fields, join, lists_joined, varints, zigzag
from telflow.schema import MetricType

__all__ = ["native_histograms", "unrepresentable"]

Ints = npt.NDArray[np.int64]

_FINEST, _COARSEST = 8, -4
_ZERO_THRESHOLD = 1e-128  # where the point does not say
_NOTHING = pa.scalar(b"", pa.binary())


def unrepresentable(records: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return for each point whether it is an exponential histogram coarser than Prometheus has them."""
    is_exponential = records["type"].to_numpy() == MetricType.EXPONENTIAL_HISTOGRAM
    scale = pc.fill_null(records["scale"], 0).to_numpy()
    return np.asarray(is_exponential & (scale < _COARSEST))


def native_histograms(records: pa.RecordBatch, times_unix_ms: Ints) -> tuple[Ints, pa.Array]:
    """Return the rows of exponential histograms, and a `Histogram` message for each (field of a TimeSeries).

    A scale finer than 8 becomes 8, neighbouring buckets merged (OpenTelemetry metrics data model, "Exponential Scale").

    Args:
        records: Data points; none of them `unrepresentable`.
        times_unix_ms: Time of each.
    """
    rows = np.flatnonzero(records["type"].to_numpy() == MetricType.EXPONENTIAL_HISTOGRAM)
    if not rows.size:
        return rows, pa.array([], pa.binary())
    some = records.take(pa.array(rows))
    stale = stale_rows(some)
    scale = np.where(stale, 0, pc.fill_null(some["scale"], 0).to_numpy()).astype(np.int64)
    shift = np.maximum(scale - _FINEST, 0)
    total = np.where(stale, STALE, _filled(some["sum"], float(STALE)))
    threshold = _filled(some["zero_threshold"], 0.0)
    threshold[threshold == 0] = _ZERO_THRESHOLD
    none = np.zeros(len(rows), np.uint64)
    parts = [
        fields(0x08, np.where(stale, none, pc.fill_null(some["count"], 0).to_numpy())),
        doubles(0x19, total),
        fields(0x20, zigzag(np.minimum(scale, _FINEST))),
        doubles(0x29, threshold),
        fields(0x30, np.where(stale, none, pc.fill_null(some["zero_count"], 0).to_numpy())),
        *_side(some["negative"], shift, stale, 0x42, 0x4A),
        *_side(some["positive"], shift, stale, 0x5A, 0x62),
        fields(0x78, times_unix_ms[rows]),
    ]
    return rows, delimited(0x22, join(*parts))


def _side(
    buckets: pa.StructArray, shift: Ints, stale: npt.NDArray[np.bool_], spans_tag: int, deltas_tag: int
) -> tuple[pa.Array, pa.Array]:
    """The buckets of one side as a span and the differences of their counts."""
    rows = np.arange(len(buckets))
    counts, lengths, _ = ragged(pc.struct_field(buckets, "bucket_counts"), rows)
    offset = pc.fill_null(pc.struct_field(buckets, "offset"), 0).to_numpy().astype(np.int64)
    of = np.repeat(rows, lengths)
    within = np.arange(len(of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    index = (np.repeat(offset, lengths) + within) >> np.repeat(shift, lengths)
    used = ~np.repeat(stale, lengths)
    of, index, counts = of[used], index[used], counts.astype(np.int64)[used]
    # Buckets that became one stand side by side.
    first = np.ones(len(of), np.bool_)
    first[1:] = (of[1:] != of[:-1]) | (index[1:] != index[:-1])
    starts = np.flatnonzero(first)
    merged = np.add.reduceat(counts, starts) if starts.size else counts
    of, index = of[starts], index[starts]
    lengths = np.bincount(of, minlength=len(rows))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    differences = np.diff(merged, prepend=0)
    heads = offsets[:-1][lengths > 0]
    differences[heads] = merged[heads]
    low = np.zeros(len(rows), np.int64)
    low[lengths > 0] = index[heads] + 1  # Prometheus numbers buckets by their upper bound
    span = delimited(spans_tag, join(fields(0x08, zigzag(low)), fields(0x10, lengths)))
    deltas = delimited(deltas_tag, lists_joined(offsets, varints(zigzag(differences))))
    any_here = pa.array(lengths > 0)
    return pc.if_else(any_here, span, _NOTHING), pc.if_else(any_here, deltas, _NOTHING)


def _filled(column: pa.Array, value: float) -> npt.NDArray[np.float64]:
    return np.array(pc.fill_null(column, value).to_numpy(), np.float64)
