"""A gateway in a cluster, killed and rescaled under load: nothing lost, nothing counted twice, no trace half kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.gateway_cluster import DECISION_WAIT_S, Destination, Load, free_port, gateway, gateway_settings

pytestmark = pytest.mark.timeout(300)


def test_a_gateway_is_killed_and_rescaled_with_its_destination_away(tmp_path: Path) -> None:
    """2 -> 4 -> 1 workers, a SIGKILL; the one that is left sends the others' queues; one process goes on alone."""
    port = free_port()
    with Destination() as destination:
        (tmp_path / "telflow.yaml").write_text(gateway_settings(port, destination.port))
        with gateway(tmp_path, "--workers", "2") as cluster, Load(f"127.0.0.1:{port}") as load:
            status = cluster.running()
            assert {worker["endpoints"]["grpc"] for worker in status["workers"]} == {f"127.0.0.1:{port}"}
            assert len({worker["endpoints"]["telemetry"] for worker in status["workers"]}) == 2
            load.more()
            os.kill(status["workers"][1]["pid"], signal.SIGKILL)
            cluster.running(2)
            load.more()
            cluster.order(do="scale", workers=4)
            load.more()
            destination.leave()
            load.more(40)
            cluster.order(do="scale", workers=1)
            load.more()
            destination.come_back()
            load.more()
            assert cluster.stop() == 0, cluster.log
            command = [sys.executable, "-P", "-m", "telflow", "run", "telflow.yaml"]
            with subprocess.Popen(command, cwd=tmp_path, env=cluster.environment) as alone:
                load.more()
                load.stop()
                time.sleep(2)
                load.last()
                time.sleep(DECISION_WAIT_S + 3)
                alone.terminate()
                assert alone.wait(60) == 0
        assert sorted(path.name for path in (tmp_path / "state").glob("worker-*")) == [
            "worker-1",
            "worker-2",
            "worker-3",
        ]
        found = load.compared(destination, tmp_path / "archive")
    assert found.broken == []
    assert len(found.whole) > 100
