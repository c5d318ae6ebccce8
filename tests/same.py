"""Equality of batches by meaning, for tests: NaN equals itself, 0.0 and -0.0 differ, null hides whatever is below."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from telflow.batch import TelemetryBatch

__all__ = ["assert_same_batch"]


def assert_same_batch(got: TelemetryBatch, expected: TelemetryBatch) -> None:
    """Fail on the first column of any of the three tables that differs, or that Arrow finds malformed."""
    assert got.signal is expected.signal
    for table in ("records", "resources", "scopes"):
        have, want = getattr(got, table), getattr(expected, table)
        have.validate(full=True)
        assert have.schema.equals(want.schema), table
        for name in want.schema.names:
            # Equal arrays without NaN take the quick way; the rest is compared value by value.
            if not have[name].equals(want[name]) or pa.types.is_floating(want[name].type):
                assert _plain(have[name].to_pylist()) == _plain(want[name].to_pylist()), f"{table}.{name}"


def _plain(value: Any) -> Any:
    """A value whose equality is that of its bits."""
    match value:
        case float():
            return ("float", repr(value))
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value
