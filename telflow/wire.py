"""Batches as bytes: between the processes of a cluster, and in the snapshots of operators.

Bytewax exchanges items by pickling each **twice** (once for its size, once to write it), and plain pickling of an
Arrow slice ships the buffers of its parent. So a batch pickles as Arrow IPC messages, which hold only what the slice
shows, made once and kept between the two passes.

Two formats, because two needs differ: `pickled` is read by the same version a moment later and leaves the schema out;
`to_ipc_bytes` may be read by a later version and carries it.
"""

from __future__ import annotations

import struct
import threading
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from telflow.errors import BatchError
from telflow.memory import reuse_large_blocks
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal

if TYPE_CHECKING:
    from telflow.batch import TelemetryBatch

__all__ = ["PayloadCache", "from_ipc_bytes", "pickled", "to_ipc_bytes", "unpickled"]

Tables = tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]
"""Records, resources, scopes."""

_SIGNALS = tuple(Signal)
_MAGIC = b"TFB1"
# magic, what the content must agree with (pickles: the schemas; kept bytes: a format version), signal, unknown fields,
# bytes of each table. 40 bytes: the tables behind it stay aligned to 8 bytes, as Arrow wants them.
_HEADER = struct.Struct("<4sIB3xI3Q")
_FORMAT = 1


def _fingerprint(signal: Signal) -> int:
    described = "|".join(schema.to_string() for schema in (RECORD_SCHEMAS[signal], RESOURCES, SCOPES))
    return zlib.crc32(described.encode())


_FINGERPRINTS = {signal: _fingerprint(signal) for signal in Signal}


class PayloadCache:
    """Payloads of objects between the passes of a pickling; bounded in bytes; for use by several threads.

    An entry goes when it is asked for the second time, when its object dies, or when newer ones need the room.
    Losing one costs only making it again: the same object always gives the same payload.

    Args:
        max_bytes: Most that is kept; a larger payload is not kept at all.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[int, tuple[weakref.ref[object], bytes]] = OrderedDict()
        self._lock = threading.RLock()  # an object may die, and its callback run, while this very thread holds it

    @property
    def num_bytes(self) -> int:
        """Bytes kept now."""
        return self._bytes

    def get(self, item: object, make: Callable[[], bytes]) -> bytes:
        """Return the payload of `item`: made and kept the first time, handed over and forgotten the second."""
        key = id(item)
        with self._lock:
            found = self._entries.get(key)
            if found is not None and found[0]() is item:
                self._forget(key)
                return found[1]
        payload = make()
        if len(payload) <= self._max_bytes:
            with self._lock:
                self._forget(key)
                self._entries[key] = (weakref.ref(item, lambda _: self._forget(key)), payload)
                self._bytes += len(payload)
                while self._bytes > self._max_bytes:
                    self._forget(next(iter(self._entries)))
        return payload

    def _forget(self, key: int) -> None:
        with self._lock:
            found = self._entries.pop(key, None)
            if found is not None:
                self._bytes -= len(found[1])


_PAYLOADS = PayloadCache(64 * 1024 * 1024)


def pickled(batch: TelemetryBatch) -> bytes:
    """Return what a batch is pickled as; the same bytes each time."""
    reuse_large_blocks()
    return _PAYLOADS.get(batch, lambda: _pack(batch))


def unpickled(payload: bytes) -> tuple[Signal, Tables, int]:
    """Read what `pickled` wrote, without copying: the tables are views of `payload`.

    Raises:
        BatchError: The other process runs a version with other columns.
    """
    reuse_large_blocks()
    signal, fingerprint, unknown_fields, parts = _unpack(payload)
    if fingerprint != _FINGERPRINTS[signal]:
        raise BatchError(f"{signal}: a batch came from a telflow with other columns: run one version in a cluster")
    records, resources, scopes = (
        pa.ipc.read_record_batch(part, schema)
        for part, schema in zip(parts, (RECORD_SCHEMAS[signal], RESOURCES, SCOPES), strict=True)
    )
    return signal, (records, resources, scopes), unknown_fields


def _pack(batch: TelemetryBatch) -> bytes:
    tables = [table.serialize() for table in (batch.records, batch.resources, batch.scopes)]
    return _joined(_FINGERPRINTS[batch.signal], batch.signal, batch.unknown_fields, tables)


def to_ipc_bytes(
    signal: Signal, tables: Tables, unknown_fields: int, compression: Literal["lz4", "zstd"] | None = None
) -> bytes:
    """Write tables as versioned bytes with their schemas in them; `from_ipc_bytes` sees how they are compressed."""
    options, streams = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False), []
    for table in tables:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_batch(table)
        streams.append(sink.getvalue())
    return _joined(_FORMAT, signal, unknown_fields, streams)


def from_ipc_bytes(data: bytes) -> tuple[Signal, Tables, int]:
    """Read what `to_ipc_bytes` wrote.

    Raises:
        BatchError: `data` is damaged, or written by a version with another format.
    """
    signal, version, unknown_fields, parts = _unpack(data)
    if version != _FORMAT:
        raise BatchError(f"kept batch: expected format {_FORMAT}, got {version}: written by another version of telflow")
    try:
        records, resources, scopes = (pa.ipc.open_stream(part).read_next_batch() for part in parts)
    except (pa.ArrowInvalid, OSError, StopIteration) as error:
        raise BatchError(f"kept batch: damaged: {error}") from error
    return signal, (records, resources, scopes), unknown_fields


def _joined(agreement: int, signal: Signal, unknown_fields: int, tables: list[pa.Buffer]) -> bytes:
    header = _HEADER.pack(
        _MAGIC,
        agreement,
        _SIGNALS.index(signal),
        min(unknown_fields, 2**32 - 1),
        *(table.size for table in tables),
    )
    return b"".join([header, *(memoryview(table) for table in tables)])


def _unpack(data: bytes) -> tuple[Signal, int, int, list[pa.Buffer]]:
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise BatchError("kept batch: not the bytes of a batch")
    _, agreement, signal, unknown_fields, *sizes = _HEADER.unpack_from(data)
    if _HEADER.size + sum(sizes) != len(data) or signal >= len(_SIGNALS):
        raise BatchError(f"kept batch: expected {_HEADER.size + sum(sizes)} bytes, got {len(data)}")
    buffer, parts, start = pa.py_buffer(data), [], _HEADER.size
    for size in sizes:
        parts.append(buffer.slice(start, size))
        start += size
    return _SIGNALS[signal], agreement, unknown_fields, parts
