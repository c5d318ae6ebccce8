"""Protobuf, a column at a time: the pieces of many messages are made and joined by whole-array operations."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["delimited", "doubles", "fields", "join", "lists_joined", "varint", "varints", "zigzag"]

Ints: TypeAlias = npt.NDArray[np.integer]
_LONGEST = 10
_SHIFTS = np.arange(0, 7 * _LONGEST, 7, dtype=np.uint64)


def varint(value: int) -> bytes:
    """Return one number.

    >>> list(varint(300))
    [172, 2]
    """
    out = bytearray()
    while value > 127:  # noqa: PLR2004 - seven bits
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def varints(values: npt.NDArray[np.integer]) -> pa.Array:
    """Return numbers as a binary array; negative ones as their 64 bits, as int64 fields are written.

    >>> [list(octets.as_py()) for octets in varints(np.array([0, 127, 300]))]
    [[0], [127], [172, 2]]
    """
    numbers = values.astype(np.int64).view(np.uint64) if values.dtype != np.uint64 else values
    digits = numbers[:, None] >> _SHIFTS
    more = digits[:, 1:] != 0
    lengths = more.sum(axis=1) + 1
    octets = (digits & np.uint64(127)).astype(np.uint8)
    octets[:, :-1] |= more.astype(np.uint8) << np.uint8(7)
    used = np.arange(_LONGEST) < lengths[:, None]
    return _binary(octets[used], lengths)


def zigzag(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """Return signed numbers as sint64 fields hold them.

    >>> zigzag(np.array([0, -1, 1])).tolist()
    [0, 1, 2]
    """
    numbers = values.astype(np.int64)
    return np.asarray(((numbers << 1) ^ (numbers >> 63)).view(np.uint64))


def doubles(tag: int, values: npt.NDArray[np.float64]) -> pa.Array:
    """Return double fields."""
    octets = np.empty((len(values), 9), np.uint8)
    octets[:, 0] = tag
    octets[:, 1:] = values.astype("<f8").view(np.uint8).reshape(-1, 8)
    return _binary(octets.reshape(-1), np.full(len(values), 9))


def fields(tag: int, values: npt.NDArray[np.integer]) -> pa.Array:
    """Return varint fields."""
    return join(pa.scalar(bytes([tag]), pa.binary()), varints(values))


def delimited(tag: int, bodies: pa.Array) -> pa.Array:
    """Return messages, texts or packed numbers as length-delimited fields."""
    lengths = pc.binary_length(bodies).to_numpy().astype(np.int64)
    return join(pa.scalar(bytes([tag]), pa.binary()), varints(lengths), bodies)


def join(*parts: pa.Array | pa.Scalar) -> pa.Array:
    """Return the parts of each row, one after the other."""
    return pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.binary()))


def lists_joined(offsets: npt.NDArray[np.integer], parts: pa.Array) -> pa.Array:
    """Return runs of parts, `offsets` as in an Arrow list array, each as one value."""
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), parts)
    return pc.binary_join(lists, pa.scalar(b"", pa.binary()))


def _binary(octets: npt.NDArray[np.uint8], lengths: npt.NDArray[np.integer]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.Array.from_buffers(
        pa.binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(octets))]
    )
