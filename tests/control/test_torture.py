"""Nothing acknowledged is lost, however often the gateway dies (the long form: `make torture`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture import torture


@pytest.mark.timeout(240)
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_gateway_killed_again_and_again_loses_nothing(tmp_path: Path, durability: str) -> None:
    """SIGKILLs under load with restarts of the destination: all there; once in the archive; windows exact."""
    found = torture(tmp_path, 4, seed=7, durability=durability)
    assert found.broken == []
    assert found.acknowledged > 100
    assert found.archived >= found.acknowledged
