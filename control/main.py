"""The `telflow` command: its list of commands, and how every error ends it."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from typing import Annotated

import typer

from control.cluster.commands import roll, scale, status
from control.deadletter import deadletter
from control.demo.command import demo
from control.exit_codes import ExitCode, code_of
from control.generate import generate
from control.graph import graph
from control.log_commands import log
from control.panic_noise import without_panic_noise
from control.query import query
from control.replay import replay
from control.run import run
from control.screen import ACTIVE, Output
from control.state import state
from control.validate import validate
from control.version import version
from telflow.configuration import ConfigurationError
from telflow.errors import TelflowError

__all__ = ["app", "main"]

app = typer.Typer(
    name="telflow",
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="Every command has examples: `telflow run --help`. Exit codes: docs/reference/exit-codes.md.",
)


def _version(value: bool) -> None:
    if value:
        version()
        raise typer.Exit


@app.callback()
def _telflow(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    """telflow: a telemetry stream-processing engine.

    OpenTelemetry data comes in over OTLP, flows as Apache Arrow batches through a Bytewax dataflow, and goes out to
    any OTLP backend, to an archive of Parquet files that can be queried and replayed, or to the console.
    """


app.command()(run)
app.command()(validate)
app.command()(graph)
app.command()(generate)
app.command()(query)
app.command()(replay)
app.command()(demo)
app.add_typer(deadletter)
app.add_typer(log)
app.command()(status)
app.command()(scale)
app.command()(roll)
app.add_typer(state, name="state")
app.command()(version)


def main() -> None:
    """Run the command; every expected error becomes a message and an exit code."""
    # Around everything, so that whoever writes to standard error holds on to the same unfiltered one from the start.
    with contextlib.nullcontext() if "--debug" in sys.argv else without_panic_noise():
        _main()


def _main() -> None:
    try:
        app()
    except TelflowError as error:
        if ACTIVE.debug:
            traceback.print_exc()
        else:
            _report(error)
        sys.exit(code_of(error))
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception:  # noqa: BLE001 - a bug: say so, show where
        traceback.print_exc()
        sys.stderr.write("telflow: this is an error in telflow itself; please report it with the text above\n")
        sys.exit(ExitCode.BUG)


def _report(error: TelflowError) -> None:
    if ACTIVE.output is Output.JSON:
        body: dict[str, object] = {
            "type": type(error).__name__,
            "message": str(error),
            "exit_code": int(code_of(error)),
        }
        if isinstance(error, ConfigurationError):
            body["problems"] = [p.to_dict() for p in error.problems]
        sys.stderr.write(json.dumps({"error": body}, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"telflow: {error}\n" if not isinstance(error, ConfigurationError) else f"{error}\n")
