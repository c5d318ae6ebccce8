"""Query results made readable."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import polars.selectors as cs
from rich.table import Table
from rich.text import Text

from control.screen import table

__all__ = ["as_text", "frame_table", "readable"]


def readable(frame: pl.DataFrame) -> pl.DataFrame:
    r"""Return the frame with bytes (identifiers) in hexadecimal.

    >>> readable(pl.DataFrame({"span_id": [b"\x0a\xff"]}))["span_id"].to_list()
    ['0aff']
    """
    return frame.with_columns(cs.binary().bin.encode("hex"))


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with lists and structs as JSON, for formats that have none."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = [pl.Series(name, [_json(v) for v in frame[name].to_list()], pl.String) for name in nested]
    return frame.with_columns(texts)


def frame_table(frame: pl.DataFrame) -> Table:
    """Return the frame as a table for a terminal."""
    made = table(*(f"#{n}" if dtype.is_numeric() else n for n, dtype in frame.schema.items()))
    for row in frame.iter_rows():
        made.add_row(*(Text(_cell(value)) for value in row))  # Text: data is never markup
    return made


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:,.6g}"
        case list() | dict():
            return _json(value) or ""
        case _:
            return "".join(c if c.isprintable() else "·" for c in str(value))


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
