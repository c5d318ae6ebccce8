"""Calling what a flow's author wrote: an error in it says which step, which function, and on what data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from telflow.batch import TelemetryBatch
from telflow.errors import UserFunctionError

__all__ = ["call", "name_of"]

T = TypeVar("T")


def call(step_id: str, function: Callable[[TelemetryBatch], T], batch: TelemetryBatch) -> T:
    """Return `function(batch)`.

    Raises:
        UserFunctionError: It raised; the message names the step, the function and the batch's size, never its content.
    """
    try:
        return function(batch)
    except Exception as error:
        raise UserFunctionError(
            f"step {step_id!r}: function {name_of(function)} raised {type(error).__name__}: {error} "
            f"(on {batch.num_rows} records of {batch.signal})"
        ) from error


def name_of(function: object) -> str:
    """Return the name a person knows a function by.

    >>> name_of(len)
    'len'
    """
    return str(getattr(function, "__qualname__", None) or getattr(type(function), "__qualname__", function))
