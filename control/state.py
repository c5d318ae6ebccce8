"""`telflow state`: what the folder of a flow's state holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control.screen import DebugOption, Output, OutputOption, Screen, table

__all__ = ["inspect", "state"]

state = typer.Typer(no_args_is_help=True, help="What is kept of a flow between its runs.")


@state.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="The folder: what `recovery_dir` or --recovery-dir says.")],
    step: Annotated[
        str | None, typer.Option(help="Show the keys of this step, and what is kept of each.", show_default=False)
    ] = None,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Show what is kept of a flow: its steps, their keys, sizes and versions, and where the next run begins.

    Nothing is changed, and nothing that the folder holds is run; the flow may be running.

    **Examples**

    Show the steps with state:

        telflow state inspect telflow-state

    Show the keys of one:

        telflow state inspect telflow-state --step mine.sums.stateful_batch
    """
    from control.state_store import keys_of, store_of

    screen = Screen(output)
    if step is not None:
        keys = keys_of(folder, step)
        shown = table("key", "#epoch", "#bytes", "#version", "state")
        for key in keys:
            version = "" if key.version is None else str(key.version)
            shown.add_row(key.key, str(key.epoch), f"{key.num_bytes:,}", version, key.shown)
        screen.result(keys, shown)
        return
    store = store_of(folder)
    steps = table("step", "#keys", "#bytes", "#last epoch", "version")
    for kept in store.steps:
        versions = ", ".join(map(str, kept.versions))
        steps.add_row(kept.step_id, f"{kept.keys:,}", f"{kept.num_bytes:,}", str(kept.newest_epoch), versions)
    epoch = store.resume_epoch
    begins = "nothing has run yet" if epoch is None else f"the next run begins with epoch {epoch}"
    head = f"{store.flow_id or 'unknown flow'}: {begins}; {store.runs} runs, the last with {store.workers} workers"
    screen.result(store, head, steps)
