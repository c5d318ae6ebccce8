"""The one place that runs a dataflow: one worker in this process, epochs of a second, recovery when asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from bytewax.dataflow import Dataflow

from control.epochs import Epochs
from control.exit_codes import FlowError
from control.flow_failure import explain
from control.recovery_store import prepare_store
from control.sink_guard import guard_sinks
from telflow.errors import TelflowError
from telflow.memory import reuse_large_blocks

__all__ = ["EPOCH", "one_thread_per_library", "run_dataflow"]

EPOCH = timedelta(seconds=1)
"""Longer ones hold back what sinks flush and grow what a slow peer makes others buffer."""


def one_thread_per_library() -> None:
    """Keep polars and pyarrow from starting a thread per core beside the one worker; call before they are imported.

    A second worker thread in one process was measured to slow both down; more cores are for more processes.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import pyarrow as pa

    pa.set_cpu_count(1)


def run_dataflow(
    flow: Dataflow,
    *,
    recovery_dir: Path | None = None,
    epoch: timedelta = EPOCH,
    backup_interval: timedelta = timedelta(),
    addresses: Sequence[str] | None = None,
    index: int = 0,
    epochs: Epochs | None = None,
) -> None:
    """Run a dataflow to its end.

    Args:
        flow: The `Dataflow`.
        recovery_dir: Folder for the engine's recovery files; made when missing. None: state is not kept.
        epoch: Time between snapshots, at which sinks flush.
        backup_interval: How long snapshots are kept that are no longer needed.
        addresses: Where the processes of a cluster find each other, this one included; empty for a cluster of one.
            None: no cluster, the dataflow runs in the calling thread.
        index: This process's place among them.
        epochs: Is told when they were flushed.

    Raises:
        TelflowError: One of telflow's own parts gave up, with its own words.
        FlowError: Other code in the flow raised.
        UnavailableError: The recovery folder cannot be used.
    """
    from bytewax.recovery import RecoveryConfig
    from bytewax.testing import cluster_main, run_main

    reuse_large_blocks()
    recovery = None
    if recovery_dir is not None:
        if addresses is None:  # a cluster's supervisor has done it
            prepare_store(recovery_dir, flow.flow_id)
        recovery = RecoveryConfig(recovery_dir, backup_interval)
    close_errors = guard_sinks(flow, epochs)
    try:
        if addresses is None:
            run_main(flow, epoch_interval=epoch, recovery_config=recovery)
        else:
            cluster_main(flow, list(addresses), index, epoch_interval=epoch, recovery_config=recovery)
        close_errors.raise_first()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the engine is no Exception
        own = _own_error(error)
        if own is not None:
            raise own from error
        raise FlowError(explain(error, f"the flow {flow.flow_id} failed")) from error


def _own_error(error: BaseException) -> TelflowError | None:
    """Return the telflow error an engine error was made of, if it was."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, TelflowError):
            return current
        current = current.__cause__ or current.__context__
    return None
