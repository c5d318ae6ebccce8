"""Kills a flow in the middle and lets it go on with another number of processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bytewax.recovery import init_db_dir

from tests.cluster import Cluster

__all__ = ["killed_and_rescaled"]


def killed_and_rescaled(
    flow_file: Path, folder: Path, environment: Mapping[str, str], reached: Callable[[], bool]
) -> None:
    """Run a flow with three processes, kill all at once some time after `reached`, and let two bring it to its end.

    Args:
        flow_file: With the variables of `tests.points_flow`: FOLDER, HOLD.
        folder: For its recovery store.
        environment: Further variables.
        reached: Says when the killing may begin.
    """
    recovery = folder / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 2)
    arguments = ["-r", str(recovery), "-s", "1", "-b", "0"]
    with Cluster(flow_file, 3, {**environment, "HOLD": "1"}, arguments) as cluster:
        cluster.wait_until(reached)
        time.sleep(0.3)  # anywhere in the middle
        cluster.kill()
    with Cluster(flow_file, 2, {**environment, "HOLD": "0"}, arguments) as cluster:
        cluster.wait()
