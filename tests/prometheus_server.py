"""A real Prometheus for tests: the one of Debian's package, on a port of its own.

It is looked for on the PATH, and in a folder to which the package was unpacked: `TELFLOW_PROMETHEUS`, or
`~/.cache/telflow-tests/prometheus`. Without root: `apt-get download prometheus`, `dpkg -x prometheus_*.deb FOLDER`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Prometheus", "needs_prometheus", "run_prometheus"]

_SLOW_DAY_S = 60.0


def _binary() -> str | None:
    folder = Path(os.environ.get("TELFLOW_PROMETHEUS", Path.home() / ".cache" / "telflow-tests" / "prometheus"))
    unpacked = folder / "usr" / "bin" / "prometheus"
    return shutil.which("prometheus") or (str(unpacked) if unpacked.is_file() else None)


needs_prometheus = pytest.mark.skipif(
    _binary() is None, reason="no prometheus on the PATH nor unpacked in the cache; see tests/prometheus_server.py"
)
"""Mark of tests that ask a real Prometheus."""


class Prometheus:
    """A running one.

    Attributes:
        address: Where it serves.
    """

    def __init__(self, address: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.address = address
        self._process = process
        self._log = log

    @property
    def write_url(self) -> str:
        """Where it takes remote write."""
        return f"http://{self.address}/api/v1/write"

    def ask(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer of its API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, promql: str, at_unix_s: float | None = None) -> dict[tuple[tuple[str, str], ...], float]:
        """Return the value of each series that an instant query finds, by its labels."""
        options = {} if at_unix_s is None else {"time": at_unix_s}
        found = self.ask("query", query=promql, **options)["result"]
        return {tuple(sorted(entry["metric"].items())): float(entry["value"][1]) for entry in found}

    def value(self, promql: str, at_unix_s: float | None = None) -> float | None:
        """Return the only value that a query finds; None when it finds nothing."""
        found = self.query(promql, at_unix_s)
        assert len(found) < 2, found
        return next(iter(found.values()), None)

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline_s = time.monotonic() + _SLOW_DAY_S
        while not reached():
            assert time.monotonic() < deadline_s, self.log
            time.sleep(0.05)

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text()

    def _ready(self) -> bool:
        assert self._process.poll() is None, self.log
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def run_prometheus(
    folder: Path, port: int, *, targets: tuple[str, ...] = (), settings: str = ""
) -> Iterator[Prometheus]:
    """Run one that takes remote write, and scrapes `targets` five times a second.

    Args:
        folder: Where it keeps its data.
        port: Where it serves, on the loopback address.
        targets: `host:port` of what it scrapes, as job `telflow`.
        settings: More of its settings file.
    """
    binary = _binary()
    assert binary is not None
    folder.mkdir(parents=True, exist_ok=True)
    listed = ", ".join(f"'{target}'" for target in targets)
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: telflow, honor_labels: true, static_configs: [{{targets: [{listed}]}}]}}]\n"
        + settings
    )
    command = [
        binary,
        "--config.file=prometheus.yml",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.path=data",
        "--storage.tsdb.retention.time=100y",
        "--web.enable-remote-write-receiver",
        "--enable-feature=native-histograms,exemplar-storage",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    try:
        server = Prometheus(f"127.0.0.1:{port}", process, log)
        server.wait(server._ready)
        yield server
    finally:
        process.terminate()
        process.wait(30)
