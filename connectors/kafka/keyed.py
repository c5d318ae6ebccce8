"""Batches by what decides on their topic partition: their tenant, their trace, or the partition their trace goes to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.accounting import count_by_tenant
from telflow.batch import TelemetryBatch

__all__ = ["Part", "murmur2", "split_by_tenant", "split_by_trace", "split_by_trace_partition"]

_TRACE_ID_BYTES = 16
_SEED = np.uint32(0x9747B28C)
_MIX = np.uint32(0x5BD1E995)


@dataclass(frozen=True, slots=True)
class Part:
    """Records that travel together.

    Attributes:
        batch: The records.
        key: The messages' key; None for none.
        partition: The topic partition they go to; None where the key decides, or nothing does.
    """

    batch: TelemetryBatch
    key: bytes | None = None
    partition: int | None = None


def split_by_tenant(batch: TelemetryBatch) -> list[tuple[str | None, TelemetryBatch]]:
    """Return the batch in parts of one tenant each, in order of first appearance; itself where there is one tenant.

    >>> from telflow.schema import Signal
    >>> len(split_by_tenant(TelemetryBatch.empty(Signal.LOGS)))
    0
    """
    owned = count_by_tenant(batch)
    if len(owned) <= 1:
        return [(tenant or None, batch) for tenant in owned]
    tenants = pc.fill_null(batch.tenants(), "")
    return [(tenant or None, batch.filter(pc.equal(tenants, tenant))) for tenant in owned]


def split_by_trace(batch: TelemetryBatch) -> Iterator[Part]:
    """Yield the records of each trace, keyed by its trace id in hexadecimal as the Collector's exporter does.

    Records keep their order within a trace. Those without a trace, and data points, which have none, get no key.
    """
    ids = _trace_ids(batch)
    if ids is None:
        yield Part(batch)
        return
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    sorted_ids = ids[order]
    starts = np.flatnonzero(np.r_[True, (sorted_ids[1:] != sorted_ids[:-1]).any(axis=1)])
    ordered = batch.take(order.astype(np.uint32))
    keys = _hex(sorted_ids[starts])
    lengths = np.diff(np.r_[starts, len(order)])
    for start, length, key in zip(starts.tolist(), lengths.tolist(), keys, strict=True):
        yield Part(ordered.slice(start, length), None if key == _NO_TRACE else key)


def split_by_trace_partition(batch: TelemetryBatch, partitions: int) -> Iterator[Part]:
    """Yield the records that go to each topic partition when their trace ids are the keys.

    The choice is that of Kafka's own clients (murmur2 of the key), so it agrees with `split_by_trace`. Records without
    a trace may go anywhere.
    """
    ids = _trace_ids(batch)
    if ids is None:
        yield Part(batch)
        return
    text = np.frombuffer(b"".join(_hex(ids)), np.uint8).reshape(len(ids), 2 * _TRACE_ID_BYTES)
    numbers = (murmur2(text) & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions
    numbers[~ids.any(axis=1)] = -1
    order = np.argsort(numbers, kind="stable")
    found, starts = np.unique(numbers[order], return_index=True)
    lengths = np.diff(np.r_[starts, len(order)])
    ordered = batch if len(found) == 1 else batch.take(order.astype(np.uint32))
    for number, start, length in zip(found.tolist(), starts.tolist(), lengths.tolist(), strict=True):
        yield Part(ordered.slice(start, length), None, None if number < 0 else number)


def murmur2(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return the hash by which Kafka's clients choose a partition.

    Args:
        keys: One key a row; all of the same length, a multiple of 4 bytes.

    >>> murmur2(np.frombuffer(b"0123456789abcdef0123456789abcdef", np.uint8).reshape(1, -1)).dtype
    dtype('uint32')
    """
    length = keys.shape[1]
    if length % 4:
        raise ValueError(f"keys: expected a length that is a multiple of 4, got {length}")
    with np.errstate(over="ignore"):
        hashes = np.full(len(keys), _SEED ^ np.uint32(length), np.uint32)
        for words in np.ascontiguousarray(keys).view("<u4").T:
            mixed = words * _MIX
            mixed ^= mixed >> np.uint32(24)
            hashes = (hashes * _MIX) ^ (mixed * _MIX)
        hashes ^= hashes >> np.uint32(13)
        hashes *= _MIX
        hashes ^= hashes >> np.uint32(15)
    return hashes


def _trace_ids(batch: TelemetryBatch) -> npt.NDArray[Any] | None:
    """Return trace ids as two 64-bit numbers each, zeroes for none; None where the signal has no such column."""
    if "trace_id" not in batch.records.schema.names:
        return None
    column = pc.fill_null(batch.records["trace_id"], pa.scalar(bytes(_TRACE_ID_BYTES), pa.binary(_TRACE_ID_BYTES)))
    data = np.frombuffer(column.buffers()[1], np.uint8)
    start = column.offset * _TRACE_ID_BYTES
    return data[start : start + len(column) * _TRACE_ID_BYTES].view(">u8").reshape(-1, 2)


_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def _hex(ids: npt.NDArray[Any]) -> list[bytes]:
    raw = np.ascontiguousarray(ids).view(np.uint8).reshape(-1, _TRACE_ID_BYTES)
    text = np.stack((_DIGITS[raw >> 4], _DIGITS[raw & 15]), axis=-1).reshape(-1, 2 * _TRACE_ID_BYTES)
    return [row.tobytes() for row in text]


_NO_TRACE = b"0" * (2 * _TRACE_ID_BYTES)
