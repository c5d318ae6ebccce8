"""Runs a replay with a progress bar and compares what was read with what was delivered."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from connectors.archive import ReplayProgress
from control.account import account, loss_table, losses
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
    _give_account(screen, account(LEDGER), losses(LEDGER), time.monotonic() - started_s, stopped=drain.requested)


def run_replay_cluster(order: ReplayOrder, workers: int, screen: Screen) -> None:
    """Replay in several processes under a supervisor, which starts all again when one is lost.

    Raises:
        ArchiveError: There is no archive, or it is damaged.
        LossError: A record that was read was not delivered.
        TelflowError: Workers were lost too often.
    """
    from control.cluster.cluster_run import run_cluster

    started_s = time.monotonic()
    _check(order)
    with TemporaryDirectory(prefix="telflow-replay-") as kept_for_now:
        recovery_dir = order.recovery_dir or Path(kept_for_now)
        # Workers that are lost resume in any case, so what they have written to an archive must be taken back.
        replace(order, recovery_dir=recovery_dir).leave_to_workers()
        end = run_cluster("control.replay_flow:flow", screen, workers=workers, recovery_dir=recovery_dir)
    assert end is not None  # noqa: S101 - this is the first host
    took_s = time.monotonic() - started_s
    _give_account(screen, end.accounting, end.losses, took_s, restarts=end.restarts, unsure=end.unsure)


def _check(order: ReplayOrder) -> None:
    """Say what is wrong with an order, before workers are started.

    In a process of its own: reading an archive starts threads, which one that workers are forked from must not have.
    """
    with (
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),  # as in `Forker`
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool,
    ):
        pool.submit(order.check).result()


def _give_account(
    screen: Screen,
    accounting: list[dict[str, Any]],
    lost: list[dict[str, Any]],
    took_s: float,
    *,
    stopped: bool = False,
    restarts: int = 0,
    unsure: int = 0,
) -> None:
    """Say what was delivered, and what was not and why.

    Raises:
        LossError: Something was not; or was not before a restart, of which nobody knows whether it came again.
    """
    read, delivered, dropped = (sum(row[name] for row in accounting) for name in ("derived", "delivered", "dropped"))
    line = f"replayed {delivered:,} of {read:,} records in {took_s:.1f} s ({delivered / took_s:,.0f}/s)"
    line += ", stopped before the end" if stopped else ""
    line += ", counted since the last restart" if restarts else ""
    table = loss_table(lost)
    data = {
        "read": read,
        "delivered": delivered,
        "dropped": dropped,
        "seconds": round(took_s, 3),
        "stopped": stopped,
        "restarts": restarts,
        "accounting": accounting,
        "losses": lost,
    }
    screen.result(data, line, *([table] if table else []))
    missing = [f"{read - delivered:,} of {read:,} records were not delivered"] if delivered != read else []
    if unsure:
        missing.append(f"before a restart up to {unsure:,} were not, which may have come again")
    if missing:
        raise LossError("; ".join(missing))


def _updater(bar: Progress) -> Callable[[ReplayProgress], None]:
    task = bar.add_task("replay", total=None)

    def update(progress: ReplayProgress) -> None:
        bar.update(task, total=progress.rows, completed=progress.rows_read)

    return update
