"""Hashes of whole columns: the same in every process, version and machine, so that several gateways agree.

Not for secrets: they are quick and well spread, and anyone can find two values with the same hash.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow import _native

__all__ = ["Hashes", "assign", "hash_binary", "hash_rows", "hash_text", "mix"]

Hashes = npt.NDArray[np.uint64]

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_UINT64 = pa.uint64()


def mix(values: Hashes) -> Hashes:
    """Spread each value over all 64 bits (the finaliser of SplitMix64; G. Steele, D. Lea, C. Flood, 2014)."""
    mixed = values + _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MULTIPLY_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MULTIPLY_2
    return mixed ^ (mixed >> np.uint64(31))


def hash_binary(column: pa.FixedSizeBinaryArray) -> Hashes:
    """Return a hash of each value of a column of identifiers whose width is a multiple of 8 bytes; nulls hash as 0.

    >>> hash_binary(pa.array([b"0123456789abcdef", None], pa.binary(16))).tolist()
    [3876744511808474638, 0]
    """
    width = column.type.byte_width
    buffer = column.buffers()[1]
    if not len(column) or buffer is None:
        return np.zeros(len(column), np.uint64)
    words = np.frombuffer(buffer, np.uint8)[column.offset * width : (column.offset + len(column)) * width]
    found = np.zeros(len(column), np.uint64)
    for part in words.reshape(len(column), width).view("<u8").T:
        found = mix(found ^ part)
    return np.where(column.is_valid().to_numpy(zero_copy_only=False), found, np.uint64(0))


def hash_text(column: pa.StringArray) -> Hashes:
    """Return a hash of each text; nulls hash as 0.

    A text's hash is a polynomial in its bytes, modulo 2**64. The polynomials of all texts are differences of one
    running sum over the column's bytes, so that the work is the same for a million short texts as for one long text.

    >>> hash_text(pa.array(["checkout", "cart", None, "checkout"])).tolist()[2:]
    [0, 13750058838777085973]
    """
    if not len(column):
        return np.zeros(0, np.uint64)
    _, offsets_buffer, data = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    if data is None or first == last:
        sums = np.zeros(len(column), np.uint64)
    else:
        text = np.frombuffer(data, np.uint8)[first:last].astype(np.uint64) + np.uint64(1)
        running = np.zeros(len(text) + 1, np.uint64)
        np.cumsum(text * _powers(_BASE, len(text)), out=running[1:])
        starts, ends = offsets[:-1] - first, offsets[1:] - first
        sums = (running[ends] - running[starts]) * _powers(_INVERSE, len(text) + 1)[starts]
    lengths = (offsets[1:] - offsets[:-1]).astype(np.uint64)
    found = mix(sums ^ mix(lengths))
    return np.where(column.is_valid().to_numpy(zero_copy_only=False), found, np.uint64(0))


def hash_rows(table: pa.RecordBatch) -> tuple[Hashes, Hashes]:
    """Return a hash of 128 bits of each row of a table, as two halves; columns count by their order, not their names.

    A null list counts as an empty one, -0.0 as 0.0. Lists of structs stand for maps: the order of their items does not
    matter, at any depth. native/src/row_hash.rs says what is hashed how.

    Raises:
        ValueError: A column is of a type that `telflow.schema` does not use.

    >>> high, low = hash_rows(pa.record_batch({"a": ["x", "x", None], "b": [1.0, 1.0, 1.0]}))
    >>> bool(high[0] == high[1]), bool(high[1] == high[2]), bool(high[0] == low[0])
    (True, False, False)
    """
    high, low = _native.hash_rows(table, _UINT64)
    return high.to_numpy(), low.to_numpy()


def assign(keys: Hashes, names: list[str]) -> npt.NDArray[np.int64]:
    """Return for each key the index of one of the names: evenly spread, and nearly the same when names come or go.

    Each key gives each name a score, and the highest wins (rendezvous hashing; D. Thaler, C. Ravishankar, 1998). When a
    name leaves, its keys are spread over the others, and no other key moves; when it returns, it gets the same keys.

    >>> assign(np.array([1, 2, 3, 4], np.uint64), ["a:4317", "b:4317"]).tolist()
    [1, 0, 0, 1]
    """
    seeds = hash_text(pa.array(names, pa.string()))
    scores = np.stack([mix(keys ^ seed) for seed in seeds])
    best: npt.NDArray[np.int64] = scores.argmax(axis=0)
    return best


def _powers(base: np.uint64, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)
