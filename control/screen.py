"""What the commands write: for people (colours only on a terminal, none with NO_COLOR) or as JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table

__all__ = ["ACTIVE", "DebugOption", "Output", "OutputOption", "Screen", "set_output", "table"]


class Output(enum.StrEnum):
    """How a command writes its result."""

    HUMAN = "human"
    JSON = "json"


@dataclasses.dataclass(slots=True)
class _Active:
    """The options every command has, kept for what reports an error after the command has ended."""

    output: Output = Output.HUMAN
    debug: bool = False


ACTIVE = _Active()


def set_output(value: Output) -> Output:
    """Remember how the command writes, for the report of an error."""
    ACTIVE.output = value
    return value


def _set_debug(value: bool) -> bool:
    ACTIVE.debug = value
    return value


OutputOption = Annotated[
    Output,
    typer.Option("--output", "-o", callback=set_output, help="Write for people, or JSON for programs."),
]
DebugOption = Annotated[
    bool,
    typer.Option("--debug", callback=_set_debug, help="Show the whole traceback of an error."),
]


class Screen:
    """Writes a command's results to standard output and everything else to standard error."""

    def __init__(self, output: Output = Output.HUMAN) -> None:
        self.output = output
        self.out = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.err = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    def result(self, data: Any, *shown: RenderableType) -> None:
        """Write the result: `data` as one JSON document, or `shown` for people."""
        if self.output is Output.JSON:
            sys.stdout.write(json.dumps(data, default=_plain, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        else:
            for part in shown:
                self.out.print(part, markup=False) if isinstance(part, str) else self.out.print(part)

    def note(self, text: str) -> None:
        """Tell people something that is no result; programs are not told."""
        if self.output is Output.HUMAN:
            self.err.print(text, markup=False)


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table; a column whose name starts with ``#`` holds numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column.removeprefix("#"), justify="right" if column.startswith("#") else "left")
    return made


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (Path, enum.Enum)):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
