"""The base of every settings model: strict, frozen, documented field by field."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationInfo

__all__ = ["FROM_FILE", "Duration", "Settings", "Switchable", "format_duration", "parse_duration", "parse_switch"]

_Part = TypeVar("_Part")

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")


class Settings(BaseModel):
    """Options of one operator, connector or flow, the same from Python and from a file.

    Unknown keys are refused; the docstring under a field is its entry in the configuration reference, which reads it
    from the source (`telflow.describe.options`): pydantic would do that for every model at every start, a fifth of the
    time it takes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_duration(value: object) -> object:
    """Turn text such as ``200ms``, ``5s`` or ``1m30s`` into a timedelta; anything else is returned unchanged.

    >>> parse_duration("1m30s")
    datetime.timedelta(seconds=90)
    """
    if not isinstance(value, str):
        return value
    text = value.replace(" ", "")
    if text == "0":
        return timedelta()
    if not text or _PART.sub("", text):
        raise ValueError(f"expected a duration such as 200ms, 5s or 1m30s, got {value!r}")
    return timedelta(seconds=sum(float(n) * _UNITS_S[unit] for n, unit in _PART.findall(text)))


def format_duration(value: timedelta) -> str:
    """Write with the largest unit that needs no fraction, so that `parse_duration` reads the same value back.

    >>> format_duration(timedelta(seconds=90))
    '90s'
    """
    micros = value // timedelta(microseconds=1)
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(_UNITS_S[unit] * 1_000_000)
        if micros % size == 0:
            return f"{micros // size}{unit}" if micros else "0s"
    return f"{micros}us"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, when_used="json")]
"""A timedelta that may be written as text: ``200ms``, ``5s``, ``1m30s``."""


def parse_switch(value: object, info: ValidationInfo) -> object:
    """Read the settings of a part that can be switched off; see `Switchable`."""
    if value is True or (value is None and FROM_FILE.items() <= (info.context or {}).items()):
        return {}
    return None if value is False else value


Switchable = Annotated[_Part | None, BeforeValidator(parse_switch)]
"""Settings of a part that ``false`` in a file, or None in Python, switches off.

In a file a key with nothing after it (``redact:``) means the part with its defaults, as in the Collector: nobody shall
lose a protection by deleting the lines below it.
"""

FROM_FILE = {"from_file": True}
"""Validation context of settings that come from a file, where an empty value is no decision."""
