"""Query results as people and programs see them."""

from __future__ import annotations

import polars as pl
from rich.console import Console

from control.frame import as_text, frame_table, readable

FRAME = pl.DataFrame(
    {
        "id": [b"\x01\xff", None],
        "name": ["a\x1b[31mb", "[bold]"],
        "ms": [1234.5, None],
        "tags": [[{"k": b"\x0a"}], None],
        "count": [1, 2],
    }
)


def shown(frame: pl.DataFrame) -> list[list[str]]:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(frame_table(readable(frame)))
    return [line.split() for line in capture.get().splitlines()]


def test_data_cannot_steer_the_terminal_nor_be_markup() -> None:
    """Control characters are dots, brackets stay brackets, null is a dash."""
    header, first, second = shown(FRAME)
    assert header == ["id", "name", "ms", "tags", "count"]
    assert first == ["01ff", "a·[31mb", "1,234.5", '[{"k":', '"0a"}]', "1"]
    assert second == ["-", "[bold]", "-", "-", "2"]


def test_lists_become_json_where_a_format_has_none() -> None:
    """CSV."""
    text = as_text(readable(FRAME))
    assert text["tags"].to_list() == ['[{"k": "0a"}]', None]
    assert text["id"].to_list() == ["01ff", None]
