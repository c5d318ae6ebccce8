"""Signals to every part of a cluster under load: found, started again, and every window exact.

TELFLOW_KILL_ROUNDS=10 runs the whole matrix so often, each of three workers with each signal, and checks the times; by
default each signal hits one worker and the supervisor once, and times are not judged.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.supervised import Supervised, gone, windows

SIGNALS = [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT]
ROUNDS = int(os.environ.get("TELFLOW_KILL_ROUNDS", "0"))
WORKERS = 3 if ROUNDS else 2


def test_a_worker_hit_by_any_signal_is_missed_and_all_go_on_with_exact_windows(tmp_path: Path) -> None:
    """SIGKILL and SIGSTOP: restart from the last epoch; SIGTERM and SIGINT: drain and restart."""
    hits = [(number, worker) for number in SIGNALS for worker in range(WORKERS)] * ROUNDS
    if not ROUNDS:
        hits = [(number, n % WORKERS) for n, number in enumerate(SIGNALS)]
    with Supervised(tmp_path, "--workers", str(WORKERS), "--recovery-dir", "state") as cluster:
        status = cluster.running()
        for generation, (number, worker) in enumerate(hits, start=2):
            hit_s = time.time()
            os.kill(status["workers"][worker]["pid"], number)
            before, status = status, cluster.running(generation)
            assert status["generation"] == generation
            assert gone([worker["pid"] for worker in before["workers"]])
            lost = number in (signal.SIGKILL, signal.SIGSTOP)
            assert status["restarts"] - before["restarts"] == lost
            if lost:
                assert f"worker {worker}" in status["last_loss"]["reason"]
            if lost and ROUNDS:
                assert status["last_loss"]["time_unix_nano"] / 1e9 - hit_s < 10
                assert status["last_loss"]["down_s"] < 5
        assert cluster.stop() == 0
    assert len({service for service, _, _ in windows(tmp_path)}) == 4


def test_a_supervisor_hit_by_any_signal_leaves_no_orphans_and_a_new_one_goes_on(tmp_path: Path) -> None:
    """SIGKILL takes the workers along; SIGTERM and SIGINT drain; SIGSTOP leaves the workers working."""
    counted = 0
    for number in [signal.SIGKILL, signal.SIGINT, signal.SIGTERM] * max(ROUNDS, 1):
        with Supervised(tmp_path, "--workers", str(WORKERS), "--recovery-dir", "state") as cluster:
            workers = [worker["pid"] for worker in cluster.running()["workers"]]
            if number is signal.SIGINT:
                _stop_for_a_while(cluster, tmp_path)
            cluster.process.send_signal(number)
            assert cluster.process.wait(60) == (-number if number is signal.SIGKILL else 0), cluster.log
            assert gone(workers)
        before, counted = counted, len(windows(tmp_path))
        assert counted > before


def _stop_for_a_while(cluster: Supervised, folder: Path) -> None:
    cluster.process.send_signal(signal.SIGSTOP)
    before = len(windows(folder))
    time.sleep(6)  # longer than a worker may be silent
    assert not cluster.status()
    assert len(windows(folder)) > before
    cluster.process.send_signal(signal.SIGCONT)
    assert cluster.running(epochs=1)["generation"] == 1


def test_a_worker_that_hangs_in_a_function_of_the_flow_is_found_with_the_place(tmp_path: Path) -> None:
    """The process lives and its threads beat, but one call does not return: restarted, and the line is named."""
    (tmp_path / "cluster.yaml").write_text(
        "hosts: {local: {address: 127.0.0.1, workers: 2}}\nport: 0\nrecovery_dir: state\nhang_timeout: 3s\n"
    )
    hang = tmp_path / "hang"
    with Supervised(tmp_path, "--cluster", "cluster.yaml", WINDOWS_HANG=str(hang)) as cluster:
        cluster.running()
        hang.touch()
        status = cluster.running(2)
        assert "windowed_flow.py" in status["last_loss"]["reason"]
        assert "in hang" in status["last_loss"]["reason"]
        assert cluster.stop() == 0
    assert windows(tmp_path)


def test_a_finished_flow_ends_the_cluster_and_status_says_that_none_runs(tmp_path: Path) -> None:
    """A finite flow ends by itself with 0; `telflow status` then ends with 4 and a hint."""
    with Supervised(tmp_path, "--workers", "2", "--recovery-dir", "state", WINDOWS_PER_PART="3") as cluster:
        assert cluster.process.wait(120) == 0, cluster.log
        done = subprocess.run(
            [sys.executable, "-P", "-m", "telflow", "status"],
            env=cluster.environment,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 4
    assert b"--workers" in done.stderr
    assert len(windows(tmp_path)) == 4 * 2  # the last window of each stays open: a drain would go on with it
