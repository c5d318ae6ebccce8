"""The conformance table has every point, and names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "conformance.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| point")]
TESTS = {
    name: path.name
    for path in (ROOT / "tests" / "connectors" / "otlp").glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_a_row_names_tests_that_exist(row: str) -> None:
    """At least one; those of a numbered point carry its number."""
    point, named = row.split("|")[1].split(maxsplit=1)[0], re.findall(r"`(test_\w+)`", row)
    assert named
    assert [name for name in named if name not in TESTS] == []
    if point.isdigit():
        assert {name.split("_")[1] for name in named} == {f"{int(point):02d}"}


def test_every_point_has_its_row() -> None:
    """1 to 20, once each."""
    points = [row.split("|")[1].split()[0] for row in ROWS]
    assert [int(point) for point in points if point.isdigit()] == list(range(1, 21))


def test_every_conformance_test_is_in_the_table() -> None:
    """Nothing is shown that the page does not say."""
    shown = {name for name, file in TESTS.items() if "conformance" in file and re.match(r"test_\d\d_", name)}
    assert shown - set(re.findall(r"`(test_\w+)`", PAGE)) == set()
