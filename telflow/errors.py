"""The errors telflow raises, each written for the person who reads it."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "BatchError",
    "ConfigError",
    "DecodeError",
    "DeliveryError",
    "EncodeError",
    "GovernanceError",
    "TelflowError",
    "UserFunctionError",
    "describe_fault",
    "nearest",
]


class TelflowError(Exception):
    """Root of every error telflow raises on purpose; catching it catches no bug."""


class ConfigError(TelflowError):
    """A setting, an option or a flow definition is wrong; the message says where, expected, got and a hint."""


class BatchError(TelflowError):
    """A `TelemetryBatch` was built from, or asked for, something that does not fit its schema."""


class UserFunctionError(TelflowError):
    """A function that a flow's author gave to an operator raised, or returned what the operator cannot use."""


class EncodeError(TelflowError):
    """A batch cannot be expressed as OTLP within the limits asked for."""


class GovernanceError(TelflowError):
    """A governance rule could not be applied; the data concerned must be quarantined, never passed on."""


class DeliveryError(TelflowError):
    """Data could not be handed to its destination.

    Attributes:
        retryable: True when the same data may be accepted later (OTLP specification, "Failures").
        retry_after_s: Seconds the destination asked to wait, or None when it did not say.
    """

    def __init__(self, message: str, *, retryable: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class DecodeError(TelflowError):
    """Bytes are not an OTLP message of the expected signal and encoding.

    Attributes:
        reason: What is wrong, for example ``invalid UTF-8``.
        offset: Byte offset into the payload at which it was noticed, or None when it is not known.
        path: Field path to the place, for example ``resource_spans[0].scope_spans[1].spans[7].name``.
    """

    def __init__(self, reason: str, offset: int | None = None, path: str = "") -> None:
        where = f" at byte {offset}" if offset is not None else ""
        inside = f" in {path}" if path else ""
        super().__init__(f"{reason}{where}{inside}")
        self.reason = reason
        self.offset = offset
        self.path = path

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, int | None, str]]:
        return DecodeError, (self.reason, self.offset, self.path)


def describe_fault(error: BaseException) -> str:
    """Return the kind of an unexpected exception and where it was raised, for a log line that must not hold data.

    The message of an exception nobody foresaw may quote what was being worked on, so it is left out.

    >>> try:
    ...     int("a secret")
    ... except ValueError as error:
    ...     describe_fault(error).partition(" at ")[0]
    'ValueError'
    """
    frames = traceback.extract_tb(error.__traceback__)
    way = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames[-4:]))
    return f"{type(error).__name__} at {way}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to a misspelt one, or None when none is close.

    >>> nearest("recievers", ["receivers", "exporters"])
    'receivers'
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None
