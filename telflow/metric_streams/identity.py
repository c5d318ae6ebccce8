"""What tells metric streams apart: a hash of 128 bits for each data point's stream, by whole columns.

A stream is (OpenTelemetry metrics data model, "Timeseries model") a resource, an instrumentation scope, a metric's
name, unit, kind, temporality and monotonicity, and a point's attributes, whose order does not matter. Added to these
are what must be equal for values to be added: whether a number is whole, and the bounds of a histogram.

The hashes are part of saved state, so they are the same in every process and release. They spread well, but are no
protection against a sender who looks for two streams with one hash: that sender would only mix up its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.batch import TelemetryBatch
from telflow.hashing import mix
from telflow.schema import MetricType

__all__ = ["StreamHash", "Words", "attribute_hashes", "stream_hashes"]

Words: TypeAlias = npt.NDArray[np.uint64]

_ODD = np.uint64(0xD6E8FEB86659FD93)
_OTHER = np.uint64(0xA0761D6478BD642F)
_SHIFT = np.uint64(29)
_POSITION = np.uint64(8)
# Scalars with a type: to infer one pyarrow looks for pandas, each time anew (0.1 ms).
_ZERO = pa.scalar(0, pa.int32())
_NO_KIND = pa.scalar(0, pa.uint8())
_NUMBERS = ("int", "double", "bool")


class StreamHash(NamedTuple):
    """Two independent hashes of 64 bits for each of some rows."""

    high: Words
    low: Words

    def take(self, rows: npt.NDArray[Any]) -> StreamHash:
        """Return the hashes of some rows."""
        return StreamHash(self.high[rows], self.low[rows])

    def then(self, other: StreamHash) -> StreamHash:
        """Return hashes of pairs; which comes first matters."""
        return StreamHash(mix(self.high * _ODD + other.high), mix(self.low * _OTHER ^ other.low))

    def summed(self, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> StreamHash:
        """Return hashes of runs of rows, in which order does not matter."""
        return StreamHash(_sums(self.high, starts, ends), _sums(self.low, starts, ends))


def stream_hashes(
    batch: TelemetryBatch, rows: npt.NDArray[np.int64], *, without: StreamHash | None = None
) -> StreamHash:
    """Return the hash of the stream of some points of a metrics batch.

    Args:
        batch: Of metrics.
        rows: Which points.
        without: Hashes of the attributes of these points, where not all that they have shall count.
    """
    records = batch.records
    resources, scopes = batch.resources, batch.scopes
    owner = _texts(resources["tenant"]).then(attribute_hashes(resources["attributes"]))
    scope = _texts(scopes["name"]).then(_texts(scopes["version"])).then(attribute_hashes(scopes["attributes"]))
    found = owner.take(batch.places("resource")[rows]).then(scope.take(batch.places("scope")[rows]))
    taken = pa.array(rows)
    for name in ("name", "unit"):
        found = found.then(_texts(records[name].take(taken)))
    kind = records["type"].to_numpy()[rows].astype(np.uint64)
    kind |= records["aggregation_temporality"].to_numpy()[rows].astype(np.uint64) << np.uint64(8)
    kind |= records["is_monotonic"].to_numpy(zero_copy_only=False)[rows].astype(np.uint64) << np.uint64(40)
    kind |= records["value_int"].is_valid().to_numpy(zero_copy_only=False)[rows].astype(np.uint64) << np.uint64(41)
    found = found.then(_words(kind))
    found = found.then(attribute_hashes(records["attributes"].take(taken)) if without is None else without)
    if (records["type"].to_numpy()[rows] == int(MetricType.HISTOGRAM)).any():
        found = found.then(_bounds(records["explicit_bounds"].take(taken)))
        counts = pc.fill_null(pc.list_value_length(records["bucket_counts"].take(taken)), _ZERO)
        found = found.then(_words(counts.to_numpy().astype(np.uint64)))
    else:
        nothing = np.zeros(len(rows), np.uint64)
        found = found.then(StreamHash(nothing, nothing)).then(_words(nothing))
    return found


def attribute_hashes(attributes: pa.ListArray, keys: pa.BooleanArray | None = None) -> StreamHash:
    """Return a hash of each attribute list, whatever the order of its attributes; no list counts as an empty one.

    Args:
        attributes: The lists.
        keys: For each attribute of the flattened lists whether it counts; None: all do.

    >>> from telflow.columns import attribute_lists
    >>> a, b = ("a", pa.array(["x"])), ("b", pa.array([1]))
    >>> attribute_hashes(attribute_lists(1, [a, b])) == attribute_hashes(attribute_lists(1, [b, a]))
    True
    """
    entries = attributes.flatten()
    ends = np.cumsum(pc.fill_null(pc.list_value_length(attributes), _ZERO).to_numpy().astype(np.int64))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    if not len(entries):
        nothing = np.zeros(len(attributes), np.uint64)
        return StreamHash(nothing, nothing)
    columns = dict(zip([field.name for field in entries.type], entries.flatten(), strict=True))
    kind = pc.fill_null(columns["type"], _NO_KIND).to_numpy().astype(np.uint64)
    high, low = np.zeros(len(entries), np.uint64), np.zeros(len(entries), np.uint64)
    for name in ("str", "bytes"):
        if columns[name].null_count < len(entries):
            text = _texts(columns[name])
            high, low = high ^ text.high, low ^ text.low
    for name in _NUMBERS:
        if columns[name].null_count < len(entries):
            number = _numbers(columns[name])
            high, low = high ^ number.high, low ^ number.low
    pairs = _texts(columns["key"]).then(_words(kind)).then(StreamHash(high, low))
    if keys is not None:
        counted = keys.to_numpy(zero_copy_only=False)
        pairs = StreamHash(np.where(counted, pairs.high, np.uint64(0)), np.where(counted, pairs.low, np.uint64(0)))
    return pairs.summed(starts, ends)


def _bounds(bounds: pa.ListArray) -> StreamHash:
    """Of lists of doubles, in which order matters."""
    lengths = pc.fill_null(pc.list_value_length(bounds), _ZERO).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    values = bounds.flatten().to_numpy(zero_copy_only=False)
    place = (np.arange(len(values)) - np.repeat(starts, lengths)).astype(np.uint64)
    return _words((values + 0.0).view(np.uint64)).then(_words(place)).summed(starts, ends)


def _numbers(column: pa.Array) -> StreamHash:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int64())
    words = _words(pc.fill_null(column, pa.scalar(0, column.type)).to_numpy(zero_copy_only=False).view(np.uint64))
    return _where_valid(column, words)


def _texts(column: pa.Array) -> StreamHash:
    """Of text or bytes, each distinct value once; nothing hashes as 0."""
    coded = column.dictionary_encode()
    distinct = coded.dictionary
    lengths = pc.binary_length(distinct).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    data = distinct.buffers()[2]
    offsets = np.frombuffer(distinct.buffers()[1], np.int32)[distinct.offset : distinct.offset + len(distinct) + 1]
    if data is None or not len(distinct) or not ends[-1]:
        letters = np.zeros(0, np.uint64)
    else:
        letters = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    place = (np.arange(len(letters)) - np.repeat(starts, lengths)).astype(np.uint64)
    words = _words(letters | (place << _POSITION)).summed(starts, ends).then(_words(lengths.astype(np.uint64)))
    rows = pc.fill_null(coded.indices, _ZERO).to_numpy()
    if not len(distinct):
        nothing = np.zeros(len(column), np.uint64)
        return StreamHash(nothing, nothing)
    return _where_valid(column, words.take(rows))


def _where_valid(column: pa.Array, found: StreamHash) -> StreamHash:
    if not column.null_count:
        return found
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    return StreamHash(np.where(valid, found.high, np.uint64(0)), np.where(valid, found.low, np.uint64(0)))


def _words(words: Words) -> StreamHash:
    high = mix(words)
    return StreamHash(high, (high ^ (high >> _SHIFT)) * _OTHER ^ mix(words ^ _OTHER))


def _sums(values: Words, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Words:
    running = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values, out=running[1:])  # modulo 2**64, so that differences are exact
    return np.asarray(running[ends] - running[starts])
