"""Messages to batches: many in one call, and a bad one does not take the others with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from telflow.batch import TelemetryBatch
from telflow.codec import DEFAULT_LIMITS, Encoding, Limits, decode_many
from telflow.errors import DecodeError
from telflow.schema import Signal

__all__ = ["Decoded", "Failure", "decode_values", "tenant_from"]

_LONGEST_TENANT = 256
_WHICH = re.compile(r"payloads\[(\d+)\]")

Headers: TypeAlias = dict[str, str | bytes | None] | list[tuple[str, str | bytes | None]]
"""What the client library says it returns; it is the list, in order and with repetitions."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A value that is no request.

    Attributes:
        index: Which of the values.
        reason: Why, without data.
    """

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of values.

    Attributes:
        batches: The records of the good ones, in order; one batch unless there were bad ones between them.
        failures: The bad ones, in order.
    """

    batches: tuple[TelemetryBatch, ...]
    failures: tuple[Failure, ...]


def decode_values(
    values: Sequence[bytes],
    signal: Signal,
    encoding: Encoding,
    tenants: Sequence[str | None],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Decoded:
    """Decode values together; each is decoded three times at most, however many are bad.

    Args:
        values: Export*ServiceRequests.
        signal: What all of them carry.
        encoding: How all of them are written.
        tenants: Whose each is.
        limits: What decoding may cost; values that are too much together only are decoded apart.

    >>> done = decode_values([b"", b"!", b""], Signal.LOGS, "protobuf", [None] * 3)
    >>> [failure.index for failure in done.failures]
    [1]
    """
    batches: list[TelemetryBatch] = []
    failures: list[Failure] = []
    start, end = 0, len(values)
    while start < len(values):
        try:
            batch = decode_many(values[start:end], signal, encoding, tenants=tenants[start:end], limits=limits)
        except DecodeError as error:
            which = _WHICH.match(error.path)
            if which is not None and int(which[1]):
                end = start + int(which[1])  # those before it are well; what is wrong with it shows when it is alone
                continue
            failures.append(Failure(start, str(error).replace("payloads[0].", "").replace(" in payloads[0]", "")))
            start += 1
        else:
            batches.append(batch)
            start = end
        end = len(values)
    return Decoded(tuple(batch for batch in batches if batch.num_rows), tuple(failures))


def tenant_from(headers: Headers | None, name: str | None, default: str | None) -> str | None:
    """Return whose data a message carries; of a repeated header the last value counts, as Kafka has it.

    Args:
        headers: The message's headers.
        name: The header that names the tenant; None when none does.
        default: The tenant of messages that do not say.

    Raises:
        DecodeError: The header's value cannot be a tenant's name.

    >>> tenant_from([("tenant", b"acme")], "tenant", None)
    'acme'
    """
    if name is None or not headers:
        return default
    pairs = headers.items() if isinstance(headers, dict) else headers
    found = [value for key, value in pairs if key == name]
    if not found:
        return default
    value = found[-1]
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        text = None
    if not text or len(text) > _LONGEST_TENANT or not text.isprintable():
        raise DecodeError(f"tenant header: expected 1 to {_LONGEST_TENANT} printable characters")
    return text
