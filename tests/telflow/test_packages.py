"""telflow's packages are its own: from any directory, beside folders of the same name, through any way to start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from telflow import packages

FLOW = """
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, TestingSink
import beside

seen = []
flow = Dataflow("mine")
op.output("out", op.map("double", op.input("in", flow, TestingSource([1, 2])), beside.double), TestingSink(seen))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with a package `flows` and a package `operators` of its own."""
    for name in ("flows", "operators"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "flows" / "mine.py").write_text(FLOW)
    (tmp_path / "flows" / "beside.py").write_text("def double(x):\n    return 2 * x\n")
    return tmp_path


def start(project: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Start telflow as a user in the project's folder would."""
    environment = {**os.environ, "PYTHONPATH": str(packages.ROOT), **environ}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


CONSOLE_SCRIPT = ("-P", "-c", "import sys; from telflow.__main__ import main; sys.argv[0] = 'telflow'; main()")


def test_the_console_script_runs_a_flow_beside_a_users_flows_folder(project: Path) -> None:
    """A console script has no working directory on its path: nothing shadows anything, nothing is said."""
    done = start(project, *CONSOLE_SCRIPT, "run", "flows/mine.py")
    assert (done.returncode, done.stderr) == (0, "mine: done\n")


def test_python_m_says_what_is_shadowed_and_works_all_the_same(project: Path) -> None:
    """`python -m` puts the working directory first: both folders are named, and telflow goes on with its own."""
    done = start(project, "-m", "telflow", "run", "flows/mine.py")
    assert done.returncode == 0
    assert f"{project / 'flows'} has the name of telflow's own package 'flows'" in done.stderr
    assert f"{project / 'operators'} has the name of telflow's own package 'operators'" in done.stderr
    assert done.stderr.endswith("mine: done\n")


def test_a_folder_on_pythonpath_is_named_with_its_entry(project: Path) -> None:
    """So that the user knows what to take off."""
    path = os.pathsep.join([str(project), str(packages.ROOT)])
    done = start(project, *CONSOLE_SCRIPT, "version", PYTHONPATH=path)
    assert done.returncode == 0
    assert f"take '{project}' off PYTHONPATH" in done.stderr


def test_a_flow_that_imports_the_users_folder_by_its_shadowed_name_is_told(project: Path) -> None:
    """The error says whose the name is and which folder to rename."""
    (project / "flows" / "mine.py").write_text("from flows.helpers import x\n")
    (project / "flows" / "helpers.py").write_text("x = 1\n")
    done = start(project, *CONSOLE_SCRIPT, "run", "flows/mine.py")
    assert done.returncode == 3
    assert "flows/mine.py:1:" in done.stderr
    assert f"'flows' is telflow's own package, and {project / 'flows'} cannot be imported" in done.stderr


def test_a_dotted_name_inside_a_shadowed_folder_is_told_to_use_the_path(project: Path) -> None:
    """`telflow run flows.mine` cannot mean the user's folder."""
    done = start(project, *CONSOLE_SCRIPT, "run", "flows.mine")
    assert done.returncode == 3
    assert "'flows' is the name of telflow's own package; give the path: flows/mine.py" in done.stderr


def test_shadows_are_regular_packages_and_modules_that_come_first(tmp_path: Path) -> None:
    """A folder without __init__.py never wins over a package, and what comes after telflow's does not count."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "control.py").write_text("")
    (found,) = packages.shadows([str(tmp_path), str(packages.ROOT)])
    assert (found.package, found.found, found.entry) == ("control", tmp_path / "control.py", str(tmp_path))
    assert packages.shadows([str(packages.ROOT), str(tmp_path)]) == []


def test_pinning_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One finder, and it leaves every other name to the others."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    packages.pin()
    after_one = list(sys.meta_path)
    packages.pin()
    assert sys.meta_path == after_one
    finder = sys.meta_path[0]
    spec = finder.find_spec("flows", None)
    assert spec is not None
    assert spec.origin == str(packages.ROOT / "flows" / "__init__.py")
    assert finder.find_spec("json", None) is None
    assert finder.find_spec("flows.gateway", [str(packages.ROOT)]) is None
