"""What of a request is refused while the rest of it is accepted.

OTLP lets a server take a part of a request and say how many records it did not take ("Partial Success"). What a batch
can hold, telflow takes: so the one reason for it here is a record's size.
"""

from __future__ import annotations

from dataclasses import dataclass

from telflow import _native
from telflow.codec import Encoding
from telflow.errors import DecodeError
from telflow.schema import Signal

__all__ = ["Screened", "count_records", "screen"]


@dataclass(frozen=True, slots=True)
class Screened:
    """A request of which something was left out.

    Attributes:
        payload: The rest, in protobuf bytes whatever it came in.
        rejected: How many records were left out.
    """

    payload: bytes
    rejected: int


def count_records(payload: bytes, signal: Signal, encoding: Encoding) -> int:
    """Count the records of a request without making a batch of it, by the lengths its messages have in protobuf.

    It costs some nanoseconds a record, which a receiver has left that refuses for want of room; JSON, which has no
    lengths, some nanoseconds a byte.

    Args:
        payload: An Export*ServiceRequest.
        signal: What it carries.
        encoding: How it is written.

    Returns:
        The spans, log records or data points; 0 when it is malformed.

    >>> count_records(bytes.fromhex("0a0412021200"), Signal.LOGS, "protobuf")
    1
    >>> count_records(b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{}, {}]}]}]}', Signal.LOGS, "json")
    2
    """
    if encoding == "json":
        try:
            payload, _ = _native.json_to_protobuf(signal, payload)
        except DecodeError:
            return 0
    return _native.count_records(signal, payload)


def screen(payload: bytes, signal: Signal, encoding: Encoding, max_record_bytes: int) -> Screened | None:
    """Leave out the records that are larger than `max_record_bytes` as protobuf.

    A span, a log record, a data point counts by itself; to a data point belongs what it shares with the others of its
    metric (name, description, unit, metadata), so a metric with too much of that is left out whole.

    Args:
        payload: An Export*ServiceRequest.
        signal: What it carries.
        encoding: How it is written.
        max_record_bytes: Largest record that is taken. A payload that is not larger is not even looked into.

    Returns:
        What is left, or None when nothing had to be left out.

    Raises:
        DecodeError: The payload is no such request.

    >>> screen(b"", Signal.LOGS, "protobuf", 100) is None
    True
    """
    if len(payload) <= max_record_bytes:
        return None
    found = _native.screen(signal, payload, encoding == "json", max_record_bytes)
    return None if found is None else Screened(*found)
