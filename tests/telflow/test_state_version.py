"""Versions of kept states."""

from __future__ import annotations

import pytest

from telflow.errors import BatchError
from telflow.state_version import state_version


def test_a_known_version_is_told() -> None:
    """Whoever reads several learns which it is."""
    assert [state_version({"version": version}, "aggregate", 1, 2) for version in (1, 2)] == [1, 2]


@pytest.mark.parametrize("state", [{}, {"version": None}, {"version": 3}, {"version": "2"}])
def test_others_are_refused(state: dict[str, object]) -> None:
    """With what was expected, what came, and what to do."""
    with pytest.raises(BatchError, match=r"of aggregate: expected version 1 or 2, got .*give the step another id"):
        state_version(state, "aggregate", 1, 2)
