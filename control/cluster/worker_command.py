"""`telflow worker`, hidden: how a supervisor starts the process of one worker."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from control.screen import DebugOption, Output, OutputOption

__all__ = ["worker"]


def worker(
    specification: Annotated[str, typer.Argument(help="What to run, as JSON.")],
    describe: Annotated[
        bool, typer.Option("--describe", help="Run nothing, but say what the flow or the settings are.")
    ] = False,
    output: OutputOption = Output.HUMAN,  # noqa: ARG001
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Run one worker of a cluster; `telflow run --workers` starts it."""
    if describe:
        from control.cluster.described import describe_target

        print(json.dumps(describe_target(specification)))  # noqa: T201 - the answer to the supervisor
        return
    from control.cluster.worker import run_worker

    run_worker(specification)
