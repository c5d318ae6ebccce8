"""Runs a replay with a progress bar and compares what was read with what was delivered."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from connectors.archive import ReplayProgress
from control.account import account, loss_table, totals
from control.drain import Drain, drain_on_signal, make_drainable, stop_parts
from control.engine import run_dataflow
from control.exit_codes import LossError
from control.replay_flow import ReplayOrder
from control.screen import Output, Screen
from telflow.accounting import LEDGER

__all__ = ["run_replay", "run_replay_cluster"]


class _Rate(ProgressColumn):
    """Rows a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "- rows/s")


def run_replay(order: ReplayOrder, screen: Screen) -> None:
    """Replay until the archive's end, or until told to stop.

    Raises:
        ArchiveError: There is no archive, or it is damaged.
        LossError: A record that was read was not delivered.
    """
    columns = (
        TextColumn("replay"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        _Rate(),
        TimeRemainingColumn(),
    )
    started_s = time.monotonic()
    shows = screen.output is Output.HUMAN and screen.err.is_terminal
    with Progress(*columns, console=screen.err, disable=not shows) as bar:
        flow = order.build(_updater(bar))
        drain = Drain(on_request=lambda: stop_parts(flow))
        make_drainable(flow, drain)
        with drain_on_signal(drain):
            run_dataflow(flow, recovery_dir=order.recovery_dir)
    took_s = time.monotonic() - started_s
    sums = totals(LEDGER)
    read = sums.derived
    line = f"replayed {sums.delivered:,} of {read:,} records in {took_s:.1f} s ({sums.delivered / took_s:,.0f}/s)"
    losses = loss_table(LEDGER)
    data = {
        "read": read,
        "delivered": sums.delivered,
        "dropped": sums.dropped,
        "seconds": round(took_s, 3),
        "stopped": drain.requested,
        "accounting": account(LEDGER),
    }
    screen.result(data, line + (", stopped before the end" if drain.requested else ""), *([losses] if losses else []))
    if sums.delivered != read:
        raise LossError(f"{read - sums.delivered:,} of {read:,} records were not delivered")


def run_replay_cluster(order: ReplayOrder, workers: int, screen: Screen) -> None:
    """Replay in several processes under a supervisor, which starts all again when one is lost.

    Raises:
        ArchiveError: There is no archive, or it is damaged.
        TelflowError: Workers were lost too often.
    """
    from control.cluster.cluster_run import run_cluster

    order.build()  # what is wrong with it is said here, and not by every worker
    with TemporaryDirectory(prefix="telflow-replay-") as kept_for_now:
        recovery_dir = order.recovery_dir or Path(kept_for_now)
        # Workers that are lost resume in any case, so what they have written to an archive must be taken back.
        replace(order, recovery_dir=recovery_dir).leave_to_workers()
        run_cluster("control.replay_flow:flow", screen, workers=workers, recovery_dir=recovery_dir)


def _updater(bar: Progress) -> Callable[[ReplayProgress], None]:
    task = bar.add_task("replay", total=None)

    def update(progress: ReplayProgress) -> None:
        bar.update(task, total=progress.rows, completed=progress.rows_read)

    return update
