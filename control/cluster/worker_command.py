"""`telflow worker`, hidden: how a supervisor starts the process of one worker."""

from __future__ import annotations

from typing import Annotated

import typer

from control.screen import DebugOption

__all__ = ["worker"]


def worker(
    specification: Annotated[str, typer.Argument(help="What to run, as JSON.")],
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Run one worker of a cluster; `telflow run --workers` starts it."""
    from control.cluster.worker import run_worker

    run_worker(specification)
