"""Another number of workers and another version under load, on one host and on two: nothing lost, nothing twice."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from control.cluster.rolling import check_version
from control.exit_codes import FlowError, UnavailableError
from control.recovery_store import prepare_store
from telflow.errors import TelflowError
from tests.supervised import WINDOWED, Supervised, windows


def ports(*addresses: str, count: int = 8) -> int:
    """A port that is free on all addresses, with those after it."""
    for port in range(21_000, 30_000, 50):
        sockets = [socket.socket() for _ in range(len(addresses) * count)]
        try:
            for n, one in enumerate(sockets):
                one.bind((addresses[n // count], port + n % count))
        except OSError:
            continue
        else:
            return port
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no free ports")


def test_two_to_four_to_one_worker_under_load_keeps_every_window(tmp_path: Path) -> None:
    """Windows are open at each change; the state of keys and sources moves to whoever has them next."""
    with Supervised(tmp_path, "--workers", "2", "--recovery-dir", "state") as cluster:
        cluster.running()
        for generation, workers in enumerate((4, 1), start=2):
            said = cluster.order(do="scale", workers=workers)
            assert said["workers"] == workers
            status = cluster.running(generation)
            assert len(status["workers"]) == workers
            assert status["restarts"] == 0
        assert cluster.stop() == 0
    counted = windows(tmp_path)
    assert len({service for service, _, _ in counted}) == 4


def test_a_new_version_goes_on_with_the_state_and_a_bad_one_is_undone(tmp_path: Path) -> None:
    """A version that does not come up: the old one runs again, and the order is told why."""
    good, bad = tmp_path / "next.py", tmp_path / "bad.py"
    good.write_text(WINDOWED.read_text() + "\n# the next version\n")
    bad.write_text('raise RuntimeError("this version is broken")\n')
    with Supervised(tmp_path, "--workers", "2", "--recovery-dir", "state") as cluster:
        cluster.running(epochs=1)
        with pytest.raises(TelflowError, match="this version is broken"):
            cluster.order(do="roll", target=str(bad))
        assert cluster.running(3, epochs=1)["target"] == str(WINDOWED)
        cluster.order(do="roll", target=str(good))
        assert cluster.running(4)["target"] == str(good)
        assert cluster.stop() == 0
    assert windows(tmp_path)


def test_two_hosts_on_two_addresses_lose_one_and_rescale(tmp_path: Path) -> None:
    """A host's supervisor that is killed takes its workers along; all wait for its return, and go on exactly."""
    port = ports("127.0.0.1", "127.0.0.2")
    (tmp_path / "cluster.yaml").write_text(
        "hosts:\n"
        "  a: {address: 127.0.0.1, recovery_dir: state-a}\n"
        "  b: {address: 127.0.0.2, recovery_dir: state-b}\n"
        f"recovery_dir: state\nport: {port}\ncontrol_port: {port + 7}\nsecret: 0123456789abcdef0123\n"
    )
    arguments = ["--cluster", "cluster.yaml", "--host"]
    with Supervised(tmp_path, *arguments, "a", socket="windowed@a") as first:
        with Supervised(tmp_path, *arguments, "b", socket="b") as second:
            status = first.running()
            assert [worker["node"] for worker in status["workers"]] == ["a", "b"]
            assert [node["state"] for node in status["nodes"]] == ["joined", "joined"]
            second.process.kill()
            # What is told as the loss is what was seen first: that the host is gone, or what a worker says of its peer.
            status = first.until(lambda s: s["state"] == "waiting")
            assert [node["state"] for node in status["nodes"]] == ["joined", "missing"]
        with Supervised(tmp_path, *arguments, "b", socket="b") as second:
            assert first.running(2)["restarts"] == 1
            first.order(do="scale", workers=3)
            assert [worker["node"] for worker in first.running(3)["workers"]] == ["a", "a", "b"]
            assert second.stop() == 0
            first.until(lambda s: s["state"] == "waiting")
        assert first.stop() == 0
    assert len({service for service, _, _ in windows(tmp_path)}) == 4


def test_a_version_whose_steps_do_not_match_the_state_is_refused_before_anything_stops(tmp_path: Path) -> None:
    """The missing step is named with the nearest one there is; another flow is refused too."""
    prepare_store(tmp_path, "windowed")
    running = {"flow": "windowed", "recovery_dir": str(tmp_path)}
    check_version(str(WINDOWED), running)
    with pytest.raises(FlowError, match='expected a version of the flow "other"'):
        check_version(str(WINDOWED), running | {"flow": "other"})
    with pytest.raises(UnavailableError, match=r"part-\*\.sqlite3"):
        check_version(str(WINDOWED), running | {"recovery_dir": str(tmp_path / "none")})
