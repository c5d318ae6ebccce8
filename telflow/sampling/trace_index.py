"""Traces by identity: an index that is asked and filled by whole columns.

A trace belongs to a tenant: the same trace id of two tenants is two traces. Trace ids are compared in full, as two
words of 64 bits; a hash of them only says where to look.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow import _native
from telflow.sampling.trace_state import Words

__all__ = ["Ints", "TraceIndex", "TraceKeys", "shards_of_words", "trace_words"]

Ints: TypeAlias = npt.NDArray[np.int64]

_INT64 = pa.int64()
_ODD_1 = np.uint64(0x9E3779B97F4A7C15)
_ODD_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_ODD_3 = np.uint64(0x165667B19E3779F9)
_HALF = np.uint64(32)
_LOWER = np.uint64(2**32 - 1)


def trace_words(trace_id: pa.FixedSizeBinaryArray) -> tuple[Words, Words]:
    """Return the first and the last eight bytes of each trace id as they lie in memory, without copying.

    Where the id is null they mean nothing.

    >>> trace_words(pa.array([b"0123456789abcdef"], pa.binary(16)))[1].tobytes()
    b'89abcdef'
    """
    if not len(trace_id):
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    words = np.frombuffer(trace_id.buffers()[1], np.uint64)
    pairs = words[2 * trace_id.offset : 2 * (trace_id.offset + len(trace_id))].reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def shards_of_words(high: Words, low: Words, shards: int) -> npt.NDArray[np.uint16]:
    """Return to which of `shards` parts, 65536 at most, each trace belongs: the same on every worker and release."""
    # Trace ids need not be random: multiplications spread what differs, shifts bring it down to the lowest bits.
    mixed = (high * _ODD_1) ^ (low * _ODD_2)
    mixed ^= mixed >> _HALF
    mixed *= _ODD_3
    mixed ^= mixed >> _HALF
    # Multiplying 32 bits is a division by far cheaper than the remainder; in the lower ones all others are mixed.
    return (((mixed & _LOWER) * np.uint64(shards)) >> _HALF).astype(np.uint16)


class TraceKeys(NamedTuple):
    """What identifies the trace of each of some rows; all arrays are of one length.

    Attributes:
        high: First eight bytes of the trace id.
        low: Last eight bytes.
        tenant: A number for the tenant (uint32).
    """

    high: Words
    low: Words
    tenant: npt.NDArray[np.uint32]

    def at(self, rows: Ints | npt.NDArray[np.bool_]) -> TraceKeys:
        """Return the keys of some rows."""
        return TraceKeys(self.high[rows], self.low[rows], self.tenant[rows])


class TraceIndex:
    """Distinct traces; each has a slot, a small number that is free again when the trace is removed.

    A hash table of the native module: looking up in sorted arrays took a quarter of the sampler's time.

    >>> index = TraceIndex()
    >>> keys = TraceKeys(np.array([7, 7, 9], np.uint64), np.ones(3, np.uint64), np.zeros(3, np.uint32))
    >>> index.find(keys).tolist(), index.admit(keys).tolist(), index.find(keys).tolist()
    ([-1, -1, -1], [0, 0, 1], [0, 0, 1])
    """

    def __init__(self) -> None:
        self._slots = _native.TraceSlots()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def high(self) -> int:
        """All slots are below."""
        return self._slots.high

    def find(self, keys: TraceKeys) -> Ints:
        """Return the slot of each row's trace; -1 where it is not known."""
        slots: Ints = self._slots.find(*_columns(keys), _INT64).to_numpy()
        return slots

    def admit(self, keys: TraceKeys) -> Ints:
        """Return the slot of each row's trace, giving one to traces not seen before, in the order of the rows.

        An empty index gives 0, 1, 2 ...
        """
        slots: Ints = self._slots.admit(*_columns(keys), _INT64).to_numpy()
        return slots

    def remove(self, keys: TraceKeys) -> Ints:
        """Forget traces; return the slots they had, -1 for those that were not known."""
        slots: Ints = self._slots.remove(*_columns(keys), _INT64).to_numpy()
        return slots


def _columns(keys: TraceKeys) -> tuple[pa.UInt64Array, pa.UInt64Array, pa.UInt32Array]:
    return pa.array(keys.high), pa.array(keys.low), pa.array(keys.tenant)
