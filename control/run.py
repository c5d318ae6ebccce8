"""`telflow run`: a gateway from its settings, or any module with a flow."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from control.engine import one_thread_per_library
from control.screen import DebugOption, Output, OutputOption, Screen
from telflow.telemetry.log_format import LogFormat, set_up_log

__all__ = ["run"]


def run(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[FLOW | SETTINGS.yaml]",
            help="A settings file (the gateway), a Python file, or a module; `:name` picks a flow not called `flow`. "
            "Without it: telflow.yaml if there is one, else a gateway with default settings.",
            show_default=False,
        ),
    ] = None,
    recovery_dir: Annotated[
        Path | None,
        typer.Option(help="Keep the state of a module's flow here, so that it goes on where it stopped."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Run in so many processes, which a supervisor keeps running; `telflow scale` changes it.",
            min=1,
            show_default=False,
        ),
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(metavar="CLUSTER.yaml", help="Run on the hosts of this file.", show_default=False),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Which of the cluster's hosts this one is.", show_default=False)
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="How the log on standard error is written.")] = LogFormat.TEXT,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Run a flow until it ends or is told to stop (SIGTERM, Ctrl-C), then drain it.

    **Examples**

    Run a gateway on ports 4317 and 4318 with default settings:

        telflow run

    Run a gateway from a settings file:

        telflow run telflow.yaml

    Run your own flow: any Python file that defines `flow = Dataflow(...)`:

        telflow run flows/mine.py

    Run the flow named `nightly` of an installed module:

        telflow run acme.pipelines:nightly

    Run your own flow in two processes; its state is kept in the user's state home, or where --recovery-dir says:

        telflow run flows/mine.py --workers 2

    Run it on the hosts of a cluster file, this one being `b`:

        telflow run flows/mine.py --cluster cluster.yaml --host b
    """
    if workers is not None or cluster is not None:
        from control.cluster.cluster_run import run_cluster

        screen = Screen(output)
        run_cluster(target or "", screen, workers=workers, cluster_file=cluster, host=host, recovery_dir=recovery_dir)
        return
    one_thread_per_library()
    from control.flow_file import is_settings_file

    if target is None or is_settings_file(target):
        from control.gateway_run import run_gateway

        run_gateway(target, Screen(output), log_format)
    else:
        _run_module(target, recovery_dir, Screen(output), log_format)


def _run_module(target: str, recovery_dir: Path | None, screen: Screen, log_format: LogFormat) -> None:
    from control.drain import Drain, drain_on_signal, make_drainable, stop_parts
    from control.engine import run_dataflow
    from control.flow_file import load_flow

    loaded = load_flow(target)
    set_up_log(log_format, logging.WARNING, sys.stderr)  # a flow that has set up its own log keeps it
    drain = Drain(on_request=lambda: stop_parts(loaded.flow))
    make_drainable(loaded.flow, drain)
    with drain_on_signal(drain):
        run_dataflow(loaded.flow, recovery_dir=recovery_dir)
    screen.note(f"{loaded.flow.flow_id}: {'drained' if drain.requested else 'done'}")
