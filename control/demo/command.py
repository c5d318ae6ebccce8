"""`telflow demo`: everything telflow does, once, on this machine, in under a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control.engine import one_thread_per_library
from control.screen import DebugOption, Output, OutputOption, Screen

__all__ = ["demo"]


def demo(
    orders: Annotated[int, typer.Option(min=1, help="Orders the example shop gets.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 7,
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep the archive in this folder; otherwise it goes when the demo ends.", show_default=False),
    ] = None,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Show what telflow does: gateway, redaction, span metrics, archive, SQL, replay.

    Starts a gateway on free ports of this machine and a destination behind it, sends the traffic of three services
    instrumented with the real OpenTelemetry SDK, and shows what came of it. Needs no network, ends by itself with 0,
    or with 1 if anything was lost or any personal data got through.

    **Examples**

    As it is:

        telflow demo

    More traffic, and an archive to look at afterwards:

        telflow demo --orders 5000 --keep demo-archive
        telflow query "select name, count(*) from traces group by name" --archive demo-archive
    """
    one_thread_per_library()
    from control.demo.run import run_demo

    run_demo(Screen(output), orders=orders, seed=seed, keep=keep)
