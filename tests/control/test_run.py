"""`telflow run` with a module: it runs from anywhere, stops in good order, and says what a user's code did wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from control.exit_codes import ExitCode
from telflow.packages import ROOT
from tests.command import Command

FLOW = """\
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource

from connectors.console import ConsoleSink
from connectors.generator import GeneratorSettings, GeneratorSource


def shorten(batch):
    {body}
    return batch


flow = Dataflow("mine")
load = op.input("load", flow, GeneratorSource(GeneratorSettings({settings})))
short = op.map("shorten", load, shorten)
op.output("print", op.key_on("key", short, lambda batch: batch.signal.value), ConsoleSink())
"""


def write(path: Path, *, body: str = "pass", settings: str = "total_records=10") -> None:
    path.write_text(FLOW.format(body=body, settings=settings))


def test_a_flow_runs_to_its_end(telflow: Command, tmp_path: Path) -> None:
    """Its data on standard output, what telflow says on standard error."""
    write(tmp_path / "mine.py")
    done = telflow("run", "mine.py")
    assert done.code == 0
    assert "traces: 10 records" in done.out
    assert done.err == "mine: done\n"


def test_an_endless_flow_drains_when_told(telflow: Command, tmp_path: Path) -> None:
    """SIGTERM, exit code 0."""
    write(tmp_path / "mine.py", settings="")
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    done = telflow("run", "mine.py")
    assert (done.code, done.err) == (0, "mine: drained\n")


def test_a_flow_that_raises_is_told_with_file_line_and_step(tmp_path: Path) -> None:
    """Bad input: a user flow that raises, in a process of its own. Exit code 3, no traceback of the engine."""
    write(tmp_path / "mine.py", body="batch.recrods")
    command = [sys.executable, "-P", "-m", "telflow", "run", "mine.py"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.FLOW
    lines = done.stderr.splitlines()
    assert lines[0] == 'telflow: the flow mine failed in step "mine.shorten" (inside it: flat_map_batch)'
    assert lines[1] == "  mine.py:10:5 in shorten"
    assert lines[2:4] == ["     10 | batch.recrods", "        | ^^^^^^^^^^^^^"]
    assert lines[4].startswith("  AttributeError: 'TelemetryBatch' object has no attribute 'recrods'")
    assert "Traceback" not in done.stderr


def test_with_debug_there_is_the_whole_traceback(telflow: Command, tmp_path: Path) -> None:
    """For whoever wants to see the engine."""
    write(tmp_path / "mine.py", body="batch.recrods")
    assert "Traceback (most recent call last)" in telflow("run", "mine.py", "--debug").err


def test_a_flow_goes_on_where_it_stopped(telflow: Command, tmp_path: Path) -> None:
    """With a recovery folder the second run has nothing left to do."""
    write(tmp_path / "mine.py")
    assert "10 records" in telflow("run", "mine.py", "--recovery-dir", "state").out
    done = telflow("run", "mine.py", "--recovery-dir", "state")
    assert (done.code, done.out) == (0, "")


def test_graph_draws_what_run_would_run(telflow: Command, tmp_path: Path) -> None:
    """A module, or a gateway's settings; to a file or to standard output, as text, picture or data."""
    write(tmp_path / "mine.py")
    (tmp_path / "telflow.yaml").write_text("archive: {path: data}\nspan_metrics: false\n")
    assert "shorten" in telflow("graph", "mine.py").out
    done = telflow("graph", "--to", "gateway.svg")
    assert done.err == "gateway.svg: 6 steps, 5 streams\n"
    assert (tmp_path / "gateway.svg").read_text().startswith("<svg")
    steps = telflow("graph", "--output", "json").json["steps"]
    assert [step["name"] for step in steps] == ["receive", "coalesce", "partition", "redact", "quarantine", "archive"]
    assert not (tmp_path / "data").exists(), "drawing must not write"
    assert not (tmp_path / "telflow-data").exists(), "drawing must not write"
    assert telflow("graph", "mine.py", "--format", "svg", "--direction", "right").out.startswith("<svg")
    done = telflow("graph", "--to", "no/such/folder.svg")
    assert done.code == ExitCode.UNAVAILABLE
    assert "--to: expected a file that can be written" in done.err
