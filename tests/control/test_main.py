"""The command as a whole: help that teaches, exit codes, errors without tracebacks, JSON for programs."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from control import main as main_module
from control.exit_codes import ExitCode, FlowError, LossError, UnavailableError, code_of
from telflow import __main__ as entry
from telflow import packages
from telflow.configuration import ConfigurationError
from telflow.errors import BatchError, ConfigError
from telflow.packages import ROOT
from tests.command import Command

COMMANDS = ["run", "validate", "graph", "generate", "query", "replay", "version"]


def test_help_names_every_command(telflow: Command) -> None:
    """With a line on each."""
    done = telflow("--help")
    assert done.code == 0
    for name in COMMANDS:
        assert re.search(rf"│ {name} +\w", done.out), name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_shows_examples_and_its_options(name: str, telflow: Command) -> None:
    """A newcomer copies a line and goes on from there; every command has the same three options."""
    done = telflow(name, "--help")
    assert done.code == 0
    assert "Examples" in done.out
    assert f"telflow {name}" in done.out
    assert "--output" in done.out
    assert "--debug" in done.out


def test_no_argument_is_help_and_a_wrong_one_a_suggestion(telflow: Command) -> None:
    """Both end with the code of a wrong command line."""
    assert "Usage" in telflow().out
    done = telflow("rnu")
    assert done.code == ExitCode.USAGE
    assert "Did you mean 'run'?" in done.err
    assert telflow("run", "--no-such-option").code == ExitCode.USAGE


def test_versions_for_people_and_programs(telflow: Command) -> None:
    """Of telflow and of what it stands on; also as --version."""
    done = telflow("version", "--output", "json")
    assert done.json["bytewax"] == importlib.metadata.version("bytewax")
    assert re.search(rf"^telflow +{re.escape(done.json['telflow'])}", telflow("version").out, re.MULTILINE)
    assert telflow("--version").out == telflow("version").out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (ConfigurationError([]), 2),
        (FlowError("x"), 3),
        (UnavailableError("x"), 4),
        (LossError("x"), 5),
        (BatchError("x"), 1),
        (KeyboardInterrupt(), 130),
        (ValueError("x"), 70),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: BaseException, code: int) -> None:
    """The table of docs/reference/exit-codes.md."""
    assert code_of(error) == code


def test_an_expected_error_is_a_message_and_with_debug_a_traceback(telflow: Command) -> None:
    """Never both by default."""
    done = telflow("run", "missing.py")
    assert done.code == ExitCode.FLOW
    assert done.err == "telflow: missing.py: expected a Python file with a flow, got no such file\n"
    assert "Traceback" in telflow("run", "missing.py", "--debug").err
    error = telflow("run", "missing.py", "--output", "json").error
    assert (error["type"], error["exit_code"]) == ("FlowError", 3)


@pytest.mark.parametrize(
    ("error", "code", "said"), [(KeyboardInterrupt(), 130, ""), (ValueError("x"), 70, "report it")]
)
def test_interrupts_and_bugs(
    error: BaseException, code: int, said: str, telflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one ends in silence, the other with its traceback and a request."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(main_module, "app", fail)
    done = telflow("version")
    assert done.code == code
    assert said in done.err
    assert ("Traceback" in done.err) == bool(said)


@pytest.mark.parametrize(
    ("environ", "colours"), [({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False), ({}, False)]
)
def test_colours_only_where_they_are_wanted(environ: dict[str, str], colours: bool, tmp_path: Path) -> None:
    """None in a pipe, and none with NO_COLOR even on a terminal (no-color.org)."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "telflow", "query", "--help"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", done.stdout)) == colours


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`telflow query … | head` ends without a word."""
    shell = f"{sys.executable} -m telflow version --output json | head -c 1 && exit ${{PIPESTATUS[0]}}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_it_starts_in_the_one_package_whose_name_is_its_own(telflow: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The console script's entry pins telflow's packages before it imports any of them."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(main_module, "app", entry.main)
    monkeypatch.setattr("control.main.main", lambda: sys.exit(0))
    assert telflow("version").code == 0
    assert sys.meta_path[0] is packages._OwnPackages
