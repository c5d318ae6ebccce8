"""The base of every settings model: strict, frozen, documented field by field."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

__all__ = ["Duration", "Settings", "Switchable", "parse_duration", "parse_switch"]

_Part = TypeVar("_Part")

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")


class Settings(BaseModel):
    """Options of one operator, connector or flow, the same from Python and from a file.

    Unknown keys are refused; the docstring under a field is its entry in the configuration reference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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


def _write_duration(value: timedelta) -> str:
    """Write with the largest unit that needs no fraction, so that `parse_duration` reads the same value back."""
    micros = value // timedelta(microseconds=1)
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(_UNITS_S[unit] * 1_000_000)
        if micros % size == 0:
            return f"{micros // size}{unit}" if micros else "0s"
    return f"{micros}us"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(_write_duration, when_used="json")]
"""A timedelta that may be written as text: ``200ms``, ``5s``, ``1m30s``."""


def parse_switch(value: object) -> object:
    """Read the settings of a part that can be switched off; see `Switchable`.

    >>> parse_switch(None), parse_switch(True), parse_switch(False)
    ({}, {}, None)
    """
    if value is None or value is True:
        return {}
    return None if value is False else value


Switchable = Annotated[_Part | None, BeforeValidator(parse_switch)]
"""Settings of a part that ``false`` switches off, which makes them None.

A key with nothing after it (``redact:``) means the part with its defaults, as in the Collector: nobody shall lose a
protection by deleting the lines below it.
"""
