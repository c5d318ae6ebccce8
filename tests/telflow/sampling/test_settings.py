"""Options of tail sampling: what is refused, and how bounds are shared."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from telflow.sampling.settings import TailSamplingSettings


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ({"policies": []}, "at least 1"),
        ({"interval": "0s"}, "interval: expected at least 1ms"),
        ({"decision_wait": -1}, "decision_wait"),
        ({"decision_wait_after_root": "-1s"}, "decision_wait_after_root"),
        ({"idle_timeout": "-1s"}, "idle_timeout"),
        ({"max_traces": 0}, "max_traces"),
        ({"max_bytes": 1000}, "max_bytes"),
        ({"shards": 0}, "shards"),
        ({"wait": "3s"}, "Extra inputs"),
        (
            {"policies": [{"type": "string_attribute", "key": str(n), "values": ["x"]} for n in range(65)]},
            "policies: tail sampling: expected at most 64 different",
        ),
    ],
)
def test_what_is_refused(others: dict[str, Any], text: str) -> None:
    """Each with what was expected."""
    with pytest.raises(ValidationError, match=text):
        TailSamplingSettings.model_validate({"policies": [{"type": "always"}]} | others)


@pytest.mark.parametrize(("total", "shards", "share"), [(80, 8, 10), (81, 8, 10), (3, 8, 1), (0, 8, 0), (5, 1, 5)])
def test_bounds_are_for_all_parts_together(total: int, shards: int, share: int) -> None:
    """Each has an equal share of at least one; none of nothing is nothing."""
    settings = TailSamplingSettings.model_validate({"policies": [{"type": "always"}], "shards": shards})
    assert settings.per_shard(total) == share
