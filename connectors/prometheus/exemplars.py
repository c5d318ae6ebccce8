"""Exemplars of counters and histograms, by the series that each belongs to."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectors.prometheus.names import label_set, number_text
from connectors.prometheus.series_labels import SeriesLabels, encoded_labels
from connectors.prometheus.wire import delimited, doubles, fields, join
from telflow.attributes_json import attributes_json
from telflow.schema import MetricType

__all__ = ["exemplars"]

Ints = npt.NDArray[np.int64]

_LONGEST = 128  # characters of all labels together (OpenMetrics, "Exemplars")
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_NOTHING = pa.scalar(b"", pa.binary())


def exemplars(records: pa.RecordBatch, slots: Ints, series: SeriesLabels) -> tuple[Ints, Ints, pa.Array]:
    """Return number of the series, time (Unix milliseconds) and field of a TimeSeries of each exemplar.

    Args:
        records: Data points; those of gauges, other sums and summaries have none that Prometheus takes.
        slots: The slot of each.
        series: Where numbers of series come from.
    """
    kind = records["type"].to_numpy()
    histogram = kind == MetricType.HISTOGRAM
    takes = histogram | (kind == MetricType.EXPONENTIAL_HISTOGRAM)
    takes |= (kind == MetricType.SUM) & records["is_monotonic"].to_numpy(zero_copy_only=False)
    has = pc.list_value_length(records["exemplars"]).to_numpy(zero_copy_only=False) > 0
    rows = np.flatnonzero(takes & has)
    none = np.empty(0, np.int64)
    if not rows.size:
        return none, none, pa.array([], pa.binary())
    lists = records["exemplars"].take(pa.array(rows))
    of = np.repeat(rows, np.diff(lists.offsets.to_numpy()))
    flat = lists.flatten()
    values = pc.coalesce(flat.field("value_double"), flat.field("value_int").cast(pa.float64(), safe=False))
    numbers = np.array(pc.fill_null(values, 0.0).to_numpy())
    suffixes = np.full(len(of), series.suffix(("", "", "")), np.int64)
    inside = np.flatnonzero(histogram[of])
    if inside.size:
        suffixes[inside] = _buckets(records["explicit_bounds"], of[inside], numbers[inside], series)
    times = (flat.field("time_unix_nano").to_numpy() // 1_000_000).astype(np.int64)
    trace = _id_label("trace_id", flat.field("trace_id"), 16)
    span = _id_label("span_id", flat.field("span_id"), 8)
    texts = attributes_json(flat.field("filtered_attributes")).dictionary_encode()
    distinct = pa.array([_encoded(text or "{}") for text in texts.dictionary.to_pylist()], pa.binary())
    bodies = join(trace, span, distinct.take(texts.indices), doubles(0x11, numbers), fields(0x18, times))
    return series.keys(slots[of], suffixes), times, delimited(0x1A, bodies)


def _buckets(bounds: pa.ListArray, of: Ints, values: npt.NDArray[np.float64], series: SeriesLabels) -> Ints:
    """The suffix of the bucket that each value lies in: the first whose bound is not below it."""
    lists = bounds.take(pa.array(of))
    lengths = np.diff(lists.offsets.to_numpy()).astype(np.int64)
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    below = np.concatenate([[0], np.cumsum(flat < np.repeat(values, lengths))])
    place = below[ends] - below[ends - lengths]
    upper = np.full(len(of), np.inf)
    bounded = place < lengths
    upper[bounded] = flat[(ends - lengths + place)[bounded]]
    distinct, inverse = np.unique(upper, return_inverse=True)
    suffixes = [series.suffix(("_bucket", "le", number_text(bound))) for bound in distinct.tolist()]
    return np.array(suffixes, np.int64)[inverse]


def _id_label(name: str, ids: pa.Array, size: int) -> pa.Array:
    """A label with an identifier in hexadecimal digits; nothing where it is not of the size it should be."""
    sized = pc.equal(pc.binary_length(ids), size)
    whole = ids.filter(sized).cast(pa.binary(size))
    octets = np.frombuffer(b"".join(whole.to_pylist()), np.uint8) if len(whole) else np.empty(0, np.uint8)
    digits = np.stack([_HEX[octets >> 4], _HEX[octets & 15]], axis=1).tobytes()
    texts = pa.Array.from_buffers(pa.binary(2 * size), len(whole), [None, pa.py_buffer(digits)]).cast(pa.binary())
    head = pa.scalar(b"\x0a" + bytes([len(name)]) + name.encode(), pa.binary())
    labels = delimited(0x0A, join(head, delimited(0x12, texts)))
    places = np.cumsum(sized.to_numpy(zero_copy_only=False)) - 1
    return pc.fill_null(labels.take(pa.array(places, mask=~sized.to_numpy(zero_copy_only=False))), b"")


@functools.lru_cache(maxsize=4096)
def _encoded(attributes: str) -> bytes:
    labels = label_set(attributes)
    labels.pop("trace_id", None)
    labels.pop("span_id", None)
    taken = len("trace_id") + 32 + len("span_id") + 16
    if taken + sum(len(name) + len(value) for name, value in labels.items()) > _LONGEST:
        return b""
    return encoded_labels(list(labels.items()))
