"""`telflow graph`: a picture of any flow."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from control.screen import DebugOption, Output, OutputOption, Screen

__all__ = ["graph"]


class _Format(enum.StrEnum):
    MERMAID = "mermaid"
    SVG = "svg"


class _Direction(enum.StrEnum):
    DOWN = "down"
    RIGHT = "right"


def graph(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[FLOW | SETTINGS.yaml]",
            help="What `telflow run` takes. Without it: telflow.yaml if there is one, else the default gateway.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - it is the option's name
        _Format | None,
        typer.Option("--format", "-f", help="Mermaid text or an SVG picture. [default: by the file's name]"),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", "-t", help="Write to this file, not to standard output.", show_default=False)
    ] = None,
    direction: Annotated[_Direction, typer.Option(help="Which way the data flows in the picture.")] = _Direction.DOWN,
    plumbing: Annotated[bool, typer.Option("--plumbing", help="Show also steps that only handle keys.")] = False,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Draw a flow: its sources, operators, sinks and the streams between them. Nothing is run.

    **Examples**

    Draw your flow as an SVG picture:

        telflow graph flows/mine.py --to mine.svg

    Print the gateway of telflow.yaml as Mermaid, to paste into a README:

        telflow graph telflow.yaml

    List the steps and streams for a program:

        telflow graph flows/mine.py --output json
    """
    from control.engine import one_thread_per_library

    one_thread_per_library()
    import dataclasses

    from control.exit_codes import UnavailableError
    from control.flow_graph import flow_graph, to_mermaid
    from control.svg import to_svg
    from control.target import flow_of

    drawn = flow_graph(flow_of(target), plumbing=plumbing)
    if format is None:
        format = _Format.SVG if to is not None and to.suffix.lower() == ".svg" else _Format.MERMAID  # noqa: A001
    down = direction is _Direction.DOWN
    text = to_svg(drawn, down=down) if format is _Format.SVG else to_mermaid(drawn, down=down)
    screen = Screen(output)
    if to is not None:
        try:
            to.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UnavailableError(f"--to: expected a file that can be written, got {to}: {error.strerror}") from error
    if output is Output.JSON:
        screen.result(dataclasses.asdict(drawn))
    elif to is None:
        sys.stdout.write(text)
    else:
        screen.note(f"{to}: {len(drawn.steps)} steps, {len(drawn.edges)} streams")
