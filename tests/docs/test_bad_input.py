"""Every row of the bad-input table is a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "bad-input.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| what ", "|---"))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_a_row_names_tests_that_exist(row: str) -> None:
    """At least one, by file and function."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
    assert named
    for file, function in named:
        assert re.search(rf"^def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), function


def test_the_kinds_that_must_be_shown_are_there() -> None:
    """Issue 2, must-show 10."""
    kinds = ["garbage", "content type", "cut off", "bomb", "nested too deep", "100 MB", "unknown path"]
    kinds += ["settings file", "flow's code raises", "port is taken", "not writable"]
    assert [kind for kind in kinds if kind not in PAGE] == []
