"""Traces by identity: an index that is asked and filled by whole columns.

A trace belongs to a tenant: the same trace id of two tenants is two traces. Trace ids are compared in full, as two
words of 64 bits; a hash of them only says where to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow.sampling.trace_state import Words

__all__ = ["Ints", "TraceIndex", "TraceKeys", "shards_of_words", "trace_words"]

Ints: TypeAlias = npt.NDArray[np.int64]

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


def _hashed(high: Words, low: Words) -> Words:
    # Trace ids need not be random: multiplications spread what differs, shifts bring it down to the lowest bits.
    mixed = (high * _ODD_1) ^ (low * _ODD_2)
    mixed ^= mixed >> _HALF
    mixed *= _ODD_3
    mixed ^= mixed >> _HALF
    return np.asarray(mixed)


def shards_of_words(high: Words, low: Words, shards: int) -> npt.NDArray[np.uint16]:
    """Return to which of `shards` parts, 65536 at most, each trace belongs: the same on every worker and release."""
    # Multiplying 32 bits is a division by far cheaper than the remainder; in the lower ones all others are mixed.
    return (((_hashed(high, low) & _LOWER) * np.uint64(shards)) >> _HALF).astype(np.uint16)


class TraceKeys(NamedTuple):
    """What identifies the trace of each of some rows.

    Attributes:
        high: First eight bytes of the trace id.
        low: Last eight bytes.
        tenant: A number for the tenant.
        hash: Of all three; what looking up begins with.
    """

    high: Words
    low: Words
    tenant: Words
    hash: Words

    @classmethod
    def of(cls, high: Words, low: Words, tenant: Words) -> TraceKeys:
        """Return the keys of rows; all arrays are of equal length."""
        return cls(high, low, tenant, _hashed(high, low) ^ (tenant * _ODD_1))

    def at(self, rows: Ints | npt.NDArray[np.bool_]) -> TraceKeys:
        """Return the keys of some rows."""
        return TraceKeys(self.high[rows], self.low[rows], self.tenant[rows], self.hash[rows])

    def firsts(self, order: Ints) -> Ints:
        """Return where in an order by hash another trace begins.

        Where traces share a hash, one may begin more than once.
        """
        if not len(order):
            return np.empty(0, np.int64)
        differs = np.ones(len(order), bool)
        differs[1:] = False
        for column in (self.hash, self.low, self.high, self.tenant):
            ordered = column[order]
            differs[1:] |= ordered[1:] != ordered[:-1]
        return np.flatnonzero(differs)


_NONE = TraceKeys(*(np.empty(0, np.uint64) for _ in range(4)))


class TraceIndex:
    """Distinct traces; each has a place: 0, 1, 2 ... in the order of admission.

    >>> index = TraceIndex()
    >>> keys = TraceKeys.of(*(np.array(words, np.uint64) for words in ([7, 7, 9], [1, 1, 1], [0, 0, 0])))
    >>> index.find(keys).tolist(), index.admit(keys).tolist(), index.find(keys).tolist()
    ([-1, -1, -1], [0, 0, 1], [0, 0, 1])
    """

    def __init__(self) -> None:
        self.keys = _NONE
        self._order: Ints = np.empty(0, np.int64)
        self._sorted = np.empty(0, np.uint64)

    def __len__(self) -> int:
        return len(self.keys.hash)

    def find(self, keys: TraceKeys) -> Ints:
        """Return the place of each row's trace; -1 where it is not known."""
        places = np.full(len(keys.hash), -1, np.int64)
        if not len(self):
            return places
        last = len(self) - 1
        rows: Ints | None = None
        position = np.searchsorted(self._sorted, keys.hash)
        while True:
            # The first round settles all but those whose hash several traces share.
            some = keys if rows is None else keys.at(rows)
            here = np.minimum(position, last)
            place = self._order[here]
            candidates = (self._sorted[here] == some.hash) & (position <= last)
            equal = candidates & (self.keys.low[place] == some.low)
            equal &= (self.keys.high[place] == some.high) & (self.keys.tenant[place] == some.tenant)
            if rows is None:
                places[equal] = place[equal]
            else:
                places[rows[equal]] = place[equal]
            left = np.flatnonzero(candidates & ~equal)
            if not left.size:
                return places
            rows = left if rows is None else rows[left]
            position = position[left] + 1

    def admit(self, keys: TraceKeys, came: Ints | None = None) -> Ints:
        """Return the place of each row's trace, giving traces not seen before the next ones.

        Args:
            keys: What identifies the traces.
            came: New traces get their places in the order of these numbers; None: in the order of the rows.
        """
        places = self.find(keys)
        missing = np.flatnonzero(places < 0)
        while missing.size:
            hashes = keys.hash[missing]
            new = missing
            if not (hashes[1:] > hashes[:-1]).all():
                new = missing[np.sort(np.unique(hashes, return_index=True)[1])]
            if came is not None:
                new = new[np.argsort(came[new])]
            start = len(self)
            self._append(keys.at(new))
            if len(new) == len(missing):  # all are different, the usual case
                places[new] = np.arange(start, len(self))
                break
            places[missing] = self.find(keys.at(missing))
            missing = missing[places[missing] < 0]  # of two new traces with one hash only the first was added
        return places

    def keep(self, places: Ints) -> None:
        """Forget all other traces: the trace at ``places[i]`` gets the place ``i``."""
        moved = np.full(len(self), -1)
        moved[places] = np.arange(len(places))
        order = moved[self._order]
        self._order = order[order >= 0]
        self.keys = self.keys.at(places)
        self._sorted = self.keys.hash[self._order]

    def state(self) -> dict[str, Any]:
        """Return the index as plain data that later changes do not touch."""
        return {"high": self.keys.high.copy(), "low": self.keys.low.copy(), "tenant": self.keys.tenant.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.keys = TraceKeys.of(state["high"], state["low"], state["tenant"])
        self._order = np.argsort(self.keys.hash)
        self._sorted = self.keys.hash[self._order]

    def _append(self, keys: TraceKeys) -> None:
        start = len(self)
        self.keys = TraceKeys(*(np.concatenate(pair) for pair in zip(self.keys, keys, strict=True)))
        order = np.argsort(keys.hash)
        at = np.searchsorted(self._sorted, keys.hash[order], side="right")
        self._order = np.insert(self._order, at, start + order)
        self._sorted = np.insert(self._sorted, at, keys.hash[order])
