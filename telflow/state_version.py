"""Which version a kept state is of, and the refusal of those that nobody here can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telflow.errors import BatchError

__all__ = ["state_version"]


def state_version(state: Mapping[str, Any], operator: str, *known: int) -> int:
    """Return the version of a state.

    Args:
        state: What an operator's kernel returned of itself; it says its version.
        operator: Whose, for the message.
        known: The versions that can be read.

    Raises:
        BatchError: It is of another one: another version of telflow wrote it.

    >>> state_version({"version": 2}, "span_metrics", 2, 3)
    2
    """
    version = state.get("version")
    if version in known:
        return int(version)
    raise BatchError(
        f"state of {operator}: expected version {' or '.join(map(str, known))}, got {version}; resume with the version "
        "of telflow that wrote it, or give the step another id to begin anew"
    )
