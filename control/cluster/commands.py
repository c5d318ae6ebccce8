"""`telflow status`, `scale` and `roll`: what runs, with how many workers, and which version."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from control.screen import DebugOption, Output, OutputOption, Screen, table

__all__ = ["roll", "scale", "status"]

FlowOption = Annotated[
    str | None,
    typer.Option("--flow", help="Name of the flow (`flow` or `flow@host`), where several run.", show_default=False),
]
_STATUS_TIMEOUT_S = 3.0
_NODES = ("name", "address", "state", "workers")
_COUNTS = ("received", "delivered", "dropped", "quarantined", "throttled", "in_flight")


def status(
    flow: FlowOption = None,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Show a running cluster: its hosts and workers, the epoch each has finished, what it counted, and restarts.

    Ends with 4 when no cluster runs, or its supervisor does not answer.

    **Examples**

    Show the cluster that runs here:

        telflow status

    The same for a program:

        telflow status --output json
    """
    from control.cluster.control_socket import ask, choose

    found = ask(choose(flow), {"do": "status"}, _STATUS_TIMEOUT_S)
    Screen(output).result(found, *_shown(found))


def scale(
    workers: Annotated[int, typer.Argument(metavar="N", help="How many workers all hosts run together.", min=1)],
    flow: FlowOption = None,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Run a cluster with another number of workers: drain it, then start it again. Its state is kept.

    Returns when the workers run. If they do not come up, the cluster goes on with as many as before.

    **Examples**

    Run with four workers from now on:

        telflow scale 4
    """
    from control.cluster.control_socket import ask, choose

    said = ask(choose(flow), {"do": "scale", "workers": workers})
    Screen(output).result(said, f"{said['flow']}: {workers} workers run")


def roll(
    target: Annotated[
        str, typer.Argument(metavar="FLOW", help="The new version: a Python file or a module, as for `telflow run`.")
    ],
    flow: FlowOption = None,
    drop_state: Annotated[
        bool, typer.Option("--drop-state", help="Give up the state of steps that the new version does not have.")
    ] = False,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Replace a running flow by a new version of it: drain the old one, start the new one where it stopped.

    Before anything is stopped, the new version is loaded and its steps compared with the state that is kept: state
    belongs to a step's id, so a step that was renamed or removed would lose it. If the new version does not come up,
    the old one is started again.

    **Examples**

    Run the changed flow:

        telflow roll flows/mine.py
    """
    from control.cluster.control_socket import ask, choose
    from control.cluster.rolling import check_version

    socket = choose(flow)
    running = ask(socket, {"do": "status"}, _STATUS_TIMEOUT_S)
    check_version(target, running, drop_state=drop_state)
    said = ask(socket, {"do": "roll", "target": target})
    Screen(output).result(said, f"{said['flow']}: {target} runs")


def _shown(found: dict[str, Any]) -> list[Any]:
    epoch = "none finished" if found["epoch"] is None else f"{found['epoch']:,}"
    lines = [f"{found['flow']} ({found['target']}): {found['state']}, epoch {epoch}, restarts {found['restarts']}"]
    if found["last_loss"]:
        down = found["last_loss"].get("down_s")
        again = "not running again yet" if down is None else f"running again after {down:.1f} s"
        lines.append(f"last loss: {found['last_loss']['reason']}; {again}")
    nodes = table("host", "address", "state", "#workers")
    for node in found["nodes"]:
        nodes.add_row(*(str(node[name]) for name in _NODES))
    counts = [n for n in _COUNTS if any(w.get(n) for w in found["workers"])]
    columns = ["#worker", "host", "#pid", "state", "#epoch", "#behind", "#heard", "#memory"]
    listens = any(worker["endpoints"] for worker in found["workers"])
    columns += [f"#{name.replace('_', ' ')}" for name in counts] + ["listens at"] * listens
    workers = table(*columns)
    for worker in found["workers"]:
        memory = "" if worker["rss_bytes"] is None else f"{worker['rss_bytes'] / (1 << 20):.0f} MiB"
        shown = [worker["index"], worker["node"], worker["pid"], worker["state"], worker["epoch"]]
        shown += [worker["epochs_behind"], f"{worker['heard_s_ago']:.1f} s ago", memory]
        shown += [f"{worker.get(name, 0):,}" for name in counts]
        shown += [", ".join(f"{name} {address}" for name, address in worker["endpoints"].items())] * listens
        workers.add_row(*("" if value is None else str(value) for value in shown))
    return [*lines, nodes, workers]
