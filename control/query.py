"""`telflow query`: SQL over an archive."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from control.screen import DebugOption, Output, Screen, set_output

__all__ = ["query"]


class _Format(enum.StrEnum):
    HUMAN = "human"
    JSON = "json"
    CSV = "csv"


def _remember(value: _Format) -> _Format:
    set_output(Output.JSON if value is _Format.JSON else Output.HUMAN)
    return value


def query(
    sql: Annotated[str, typer.Argument(help="A SELECT over the tables traces, metrics and logs.")],
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            "-a",
            help="The archive's folder. [default: the one of telflow.yaml, else telflow-data/archive]",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Most rows a person is shown; JSON and CSV are whole.")] = 50,
    output: Annotated[
        _Format, typer.Option("--output", "-o", callback=_remember, help="A table, one JSON document, or CSV.")
    ] = _Format.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Ask an archive with SQL, through polars. Identifiers are shown in hexadecimal.

    **Examples**

    Spans of each service:

        telflow query "select service_name, count(*) as spans from traces group by 1 order by 2 desc"

    The errors of one day, as CSV:

        telflow query "select name, status_message from traces
          where status_code = 2 and date = '2026-01-31'" --output csv > errors.csv

    What can be asked for:

        telflow query "select * from logs limit 1" --output json
    """
    from control.engine import one_thread_per_library

    one_thread_per_library()
    from connectors.archive import query as ask
    from control.frame import as_text, frame_table, readable
    from control.target import archive_of

    found = readable(ask(archive or archive_of(None), sql))
    screen = Screen(Output.JSON if output is _Format.JSON else Output.HUMAN)
    if output is _Format.CSV:
        sys.stdout.write(as_text(found).write_csv())
    elif output is _Format.JSON:
        screen.result(found.to_dicts())
    else:
        screen.result(None, frame_table(found.head(rows)))
        if found.height > rows:
            screen.note(f"{found.height - rows:,} more rows; --rows {found.height} shows all")
