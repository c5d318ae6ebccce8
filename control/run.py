"""`telflow run`: a gateway from its settings, or any module with a flow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control.engine import one_thread_per_library
from control.screen import DebugOption, Output, OutputOption, Screen

__all__ = ["run"]


def run(
    target: Annotated[
        str, typer.Argument(metavar="FLOW", help="A Python file or a module; `:name` picks a flow not called `flow`.")
    ],
    recovery_dir: Annotated[
        Path | None,
        typer.Option(help="Keep the state of a module's flow here, so that it goes on where it stopped."),
    ] = None,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Run a flow until it ends or is told to stop (SIGTERM, Ctrl-C), then drain it.

    **Examples**

    Run your own flow: any Python file that defines `flow = Dataflow(...)`:

        telflow run flows/mine.py

    Run the flow named `nightly` of an installed module:

        telflow run acme.pipelines:nightly
    """
    one_thread_per_library()
    _run_module(target, recovery_dir, Screen(output))


def _run_module(target: str, recovery_dir: Path | None, screen: Screen) -> None:
    from control.drain import Drain, drain_on_signal, make_drainable
    from control.engine import run_dataflow
    from control.flow_file import load_flow

    loaded = load_flow(target)
    drain = Drain()
    make_drainable(loaded.flow, drain)
    with drain_on_signal(drain):
        run_dataflow(loaded.flow, recovery_dir=recovery_dir)
    screen.note(f"{loaded.flow.flow_id}: {'drained' if drain.requested else 'done'}")
