"""Signals to every part of a cluster under load: found, started again, and every window exact.

A user's flow here, and a gateway (`tests.kill_matrix`). TELFLOW_KILL_ROUNDS=10 runs the gateway's whole matrix so
often, each of three workers with each signal, and checks the times; by default each signal hits one worker once, and
times are not judged. The long form with its figures: `make killmatrix`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kill_matrix import SIGNALS, kill_matrix
from tests.supervised import Supervised, gone, windows

ROUNDS = int(os.environ.get("TELFLOW_KILL_ROUNDS", "0"))
WORKERS = 2


@pytest.mark.timeout(300 + 1200 * ROUNDS)
def test_a_gateway_hit_by_any_signal_loses_nothing_and_keeps_no_half_trace(tmp_path: Path) -> None:
    """Workers and supervisor: noticed, all run again; nothing lost, nothing twice, windows exact, traces whole."""
    hits = [(number, worker) for number in SIGNALS for worker in range(3)] * ROUNDS
    if not ROUNDS:
        hits = [(number, n % WORKERS) for n, number in enumerate(SIGNALS)]
    found, times = kill_matrix(tmp_path, hits, SIGNALS * ROUNDS or [signal.SIGKILL], 3 if ROUNDS else WORKERS)
    assert found.broken == []
    assert len(found.whole) > 100
    assert not ROUNDS or times.late == [], times.lines()


def test_a_worker_hit_by_any_signal_is_missed_and_all_go_on_with_exact_windows(tmp_path: Path) -> None:
    """SIGKILL and SIGSTOP: restart from the last epoch; SIGTERM and SIGINT: drain and restart."""
    with Supervised(tmp_path, "--workers", str(WORKERS), "--recovery-dir", "state") as cluster:
        status = cluster.running()
        for generation, number in enumerate(SIGNALS, start=2):
            worker = generation % WORKERS
            os.kill(status["workers"][worker]["pid"], number)
            before, status = status, cluster.running(generation)
            assert status["generation"] == generation
            assert gone([worker["pid"] for worker in before["workers"]])
            lost = number in (signal.SIGKILL, signal.SIGSTOP)
            assert status["restarts"] - before["restarts"] == lost
            if lost:
                assert f"worker {worker}" in status["last_loss"]["reason"]
        assert cluster.stop() == 0
    assert len({service for service, _, _ in windows(tmp_path)}) == 4


def test_a_drain_before_a_new_start_is_cut_short_and_windows_stay_exact(tmp_path: Path) -> None:
    """No time at all for it, after a signal to one worker: no loss is counted, all go on from the last epoch."""
    (tmp_path / "cluster.yaml").write_text(
        "hosts: {local: {address: 127.0.0.1, workers: 2}}\nport: 0\nrecovery_dir: state\nrestart_drain_timeout: 0s\n"
    )
    with Supervised(tmp_path, "--cluster", "cluster.yaml") as cluster:
        status = cluster.running()
        for generation in (2, 3):
            os.kill(status["workers"][0]["pid"], signal.SIGTERM)
            status = cluster.running(generation)
            assert (status["generation"], status["restarts"]) == (generation, 0)
        assert cluster.stop() == 0
        assert "not drained yet" in cluster.log
    assert windows(tmp_path)


def test_a_supervisor_hit_by_any_signal_leaves_no_orphans_and_a_new_one_goes_on(tmp_path: Path) -> None:
    """SIGKILL takes the workers along; SIGTERM and SIGINT drain; SIGSTOP leaves the workers working."""
    counted = 0
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
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
