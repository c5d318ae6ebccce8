"""OTLP bytes <-> `TelemetryBatch`.

What `decode` accepts is what the official protobuf library accepts, and means the same; `encode` is its inverse up to
the grouping of records. Both release the interpreter lock while they work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from telflow import _native
from telflow.batch import TelemetryBatch
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal

__all__ = [
    "DEFAULT_LIMITS",
    "Collected",
    "Collector",
    "Encoding",
    "Limits",
    "decode",
    "decode_many",
    "encode",
    "encode_split",
]

Encoding: TypeAlias = Literal["protobuf", "json"]
"""How a request is written: protobuf's binary format, or OTLP/JSON (OTLP specification, "JSON Protobuf Encoding").

JSON as OTLP maps it: identifiers in hexadecimal, enums as numbers, names in lowerCamelCase, 64-bit integers as strings
or numbers, bytes as base64; unknown names are skipped and counted, duplicate ones refused.
"""

_MOST_BYTES = 2**63 - 1
_LEAST_DEPTH = 10
"""An attribute of an exemplar stands on the eighth level below the request; its value may at least hold a list."""
_MOST_DEPTH = 100
"""The official library reads no deeper."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What decoding may cost; a payload beyond a limit is refused with `DecodeError`.

    Attributes:
        payload_bytes: Size of one payload, uncompressed.
        expansion_bytes: Memory that the columns of a batch may take beyond the contents of its strings and lists. Every
            record costs some 100 to 200 bytes even when it takes two in the payload, and a metric's name is repeated on
            each of its points: without this limit a few megabytes could become any number of gigabytes.
        depth: Levels of messages (and of groups that nobody knows) below the request, from 10 to 100. The official
            library refuses more than 100.
    """

    payload_bytes: int = 64 * 2**20
    expansion_bytes: int = 512 * 2**20
    depth: int = _MOST_DEPTH

    def __post_init__(self) -> None:
        if not _LEAST_DEPTH <= self.depth <= _MOST_DEPTH:
            raise ValueError(f"depth: expected {_LEAST_DEPTH} to {_MOST_DEPTH}, got {self.depth}")
        if self.payload_bytes < 0 or self.expansion_bytes < 0:
            raise ValueError("payload_bytes, expansion_bytes: expected 0 or more")


DEFAULT_LIMITS = Limits()


def decode(
    payload: bytes,
    signal: Signal,
    encoding: Encoding = "protobuf",
    *,
    tenant: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> TelemetryBatch:
    """Read one Export{Trace,Metrics,Logs}ServiceRequest.

    Equal resources and equal scopes become one row each. Empty envelopes leave no records, and metrics without points
    leave none either. Fields this version does not know are skipped and counted in `unknown_fields`.

    Args:
        payload: The request; OTLP/JSON is UTF-8 text.
        signal: What it carries.
        encoding: How it is written.
        tenant: Whose data it is; stands on every resource.
        limits: What decoding may cost.

    Raises:
        DecodeError: The payload is not such a request, or is beyond a limit; says at which byte and in which field.
        ValueError: The encoding is not one of the two.

    >>> decode(b"", Signal.TRACES).num_rows
    0
    >>> decode(bytes([0x0A, 5, 0x1A, 3, 0xFF, 0xFF, 0xFF]), Signal.TRACES)
    Traceback (most recent call last):
    telflow.errors.DecodeError: invalid UTF-8 at byte 4 in resource_spans[0].schema_url
    >>> decode(b'{"resourceSpans": [{"schemaUrl": 7}]}', Signal.TRACES, "json")
    Traceback (most recent call last):
    telflow.errors.DecodeError: expected a string, got a number at byte 33 in resourceSpans[0].schemaUrl
    """
    return decode_many([payload], signal, encoding, tenants=[tenant], limits=limits)


def decode_many(
    payloads: Sequence[bytes],
    signal: Signal,
    encoding: Encoding = "protobuf",
    *,
    tenants: Sequence[str | None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> TelemetryBatch:
    """Read several requests of one signal into one batch, in order.

    Resources and scopes that several payloads share become one row each; resources of different tenants stay apart.

    Args:
        payloads: The requests.
        signal: What they carry.
        encoding: How all of them are written.
        tenants: The tenant of each payload; None when no tenant is known for any.
        limits: What decoding may cost; `expansion_bytes` is for all payloads together.

    Raises:
        DecodeError: A payload is not such a request, or is beyond a limit; when there are several, the path begins with
            ``payloads[i]`` and the offset is one in that payload.
        ValueError: `tenants` is not as long as `payloads`, or the encoding is not one of the two.
    """
    json = _is_json(encoding)
    if tenants is not None and len(tenants) != len(payloads):
        raise ValueError(f"tenants: expected one for each of the {len(payloads)} payloads, got {len(tenants)}")
    records, resources, scopes, unknown = _native.decode(
        list(payloads),
        signal,
        json,
        list(tenants or ()),
        (limits.payload_bytes, limits.expansion_bytes, limits.depth),
        (RECORD_SCHEMAS[signal], RESOURCES, SCOPES),
    )
    return TelemetryBatch.decoded(signal, records, resources, scopes, unknown)


class Collected(NamedTuple):
    """What a collector holds after a payload was added.

    Attributes:
        added: Records of the payload.
        rows: Records in all.
        num_bytes: What they take as columns, counted from what they were made of.
    """

    added: int
    rows: int
    num_bytes: int


class Collector:
    """A batch of one signal that grows by a request at a time, while nothing needs it as a batch yet.

    Reading many small requests into one is `decode_many` for requests that do not come all at once: a batch costs some
    0.1 ms to make besides what its records cost. May be used by several threads at once.

    >>> collector = Collector(Signal.LOGS)
    >>> collector.add(b"", tenant="acme")
    Collected(added=0, rows=0, num_bytes=0)
    >>> collector.finish().num_rows
    0
    >>> collector.finish() is None
    True
    """

    def __init__(self, signal: Signal, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Set up.

        Args:
            signal: What the requests carry.
            limits: What decoding one of them may cost.
        """
        self._signal = signal
        self._schemas = (RECORD_SCHEMAS[signal], RESOURCES, SCOPES)
        self._native = _native.Collector(signal, (limits.payload_bytes, limits.expansion_bytes, limits.depth))

    def add(
        self,
        payload: bytes,
        encoding: Encoding = "protobuf",
        *,
        tenant: str | None = None,
        room_bytes: int = _MOST_BYTES,
    ) -> Collected | None:
        """Read a request.

        Args:
            payload: The request.
            encoding: How it is written.
            tenant: Whose data it is.
            room_bytes: What its columns may take beyond the contents of its strings and lists, at the moment: unlike
                the limit, a lack of room is no fault of the request.

        Returns:
            What the collector holds now; None when there was not enough room and nothing was added.

        Raises:
            DecodeError: As `decode`; nothing of the request was added.
            ValueError: The encoding is not one of the two.
        """
        collected = self._native.add(payload, tenant, _is_json(encoding), max(room_bytes, 0))
        return None if collected is None else Collected._make(collected)

    def finish(self) -> TelemetryBatch | None:
        """Return what was added since the last call, as a batch; None when there was nothing."""
        found = self._native.finish(self._schemas)
        return None if found is None else TelemetryBatch.decoded(self._signal, *found)


def encode(batch: TelemetryBatch, encoding: Encoding = "protobuf") -> bytes:
    """Write a batch as one Export{Trace,Metrics,Logs}ServiceRequest.

    Records are grouped by resource, scope and (data points) metric, in the order in which these first appear; within a
    group they keep their order. Resources and scopes without records are left out. Protobuf bytes are minimal and
    fields ascend, as the official library writes them. JSON is UTF-8 text without spaces; all it loses is which NaN a
    NaN is.

    Raises:
        EncodeError: The request would be larger than 2 GiB.
        ValueError: The encoding is not one of the two.

    >>> encode(TelemetryBatch.empty(Signal.TRACES))
    b''
    >>> encode(TelemetryBatch.empty(Signal.TRACES), "json")
    b'{}'
    """
    return _native.encode(batch.signal, _is_json(encoding), batch.records, batch.resources, batch.scopes)


def encode_split(batch: TelemetryBatch, max_bytes: int, encoding: Encoding = "protobuf") -> list[bytes]:
    """Write a batch as requests of at most `max_bytes` each, in the order of `encode`.

    Each is as full as it can be without changing that order (as JSON: about three quarters full or more); resources,
    scopes and metrics are repeated where needed. A batch without records gives one empty request.

    Raises:
        EncodeError: A record does not fit into a request of its own; the message names it.
        ValueError: The encoding is not one of the two.
    """
    json = _is_json(encoding)
    return _native.encode_split(batch.signal, json, batch.records, batch.resources, batch.scopes, max_bytes)


def _is_json(encoding: Encoding) -> bool:
    if encoding not in ("protobuf", "json"):
        raise ValueError(f"encoding: expected protobuf or json, got {encoding!r}")
    return encoding == "json"
