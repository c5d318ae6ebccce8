"""A user's flow is found by path or name, and what is wrong with it is said with file and line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.exit_codes import FlowError
from control.flow_file import is_settings_file, load_flow

FLOW = """
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, TestingSink

flow = Dataflow("mine")
op.output("out", op.input("in", flow, TestingSource([1])), TestingSink([]))
other = Dataflow("other")

def make():
    return flow

def fail():
    return {}["missing"]

number = 5
"""


@pytest.fixture(autouse=True)
def _imports_undone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refused(target: str) -> str:
    with pytest.raises(FlowError) as caught:
        load_flow(target)
    return str(caught.value)


@pytest.mark.parametrize("target", ["mine.py", "./mine.py", "mine.py:flow", "mine.py:make", "mine", "mine:make"])
def test_a_flow_is_found_by_path_or_dotted_name(target: str, tmp_path: Path) -> None:
    """With or without the name of the flow, which may be that of a function."""
    (tmp_path / "mine.py").write_text(FLOW)
    loaded = load_flow(target)
    assert loaded.flow.flow_id == "mine"
    assert loaded.file.resolve() == tmp_path / "mine.py"


def test_a_flow_in_a_package_is_found_by_dotted_name(tmp_path: Path) -> None:
    """From the working directory."""
    (tmp_path / "acme_pipelines").mkdir()
    (tmp_path / "acme_pipelines" / "nightly.py").write_text(FLOW)
    assert load_flow("acme_pipelines.nightly:other").flow.flow_id == "other"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mine.py:flwo", "mine.py:flwo: expected a Dataflow named flwo, got none; did you mean mine.py:flow?"),
        ("mine.py:number", "mine.py:number: expected number to be a Dataflow, got int"),
        ("mime.py", "mime.py: expected a Python file with a flow, got no such file; did you mean mine.py?"),
        ("no/such.py", "no/such.py: expected a Python file with a flow, got no such file"),
        ("./folder", "folder: expected a Python file with a flow, got a directory"),
        ("./mine.txt", "mine.txt: expected a Python file, whose name ends in .py; got mine.txt"),
        ("nothing.here", "nothing.here: expected a module that can be imported from"),
        ("mine.deeper", "mine.deeper: expected a module that can be imported from"),
    ],
)
def test_a_flow_that_is_not_there(target: str, said: str, tmp_path: Path) -> None:
    """Expected, got, and the nearest there is."""
    (tmp_path / "mine.py").write_text(FLOW)
    (tmp_path / "mine.txt").write_text(FLOW)
    (tmp_path / "folder").mkdir()
    assert refused(target).startswith(said)


def test_a_module_without_any_flow_is_told_what_to_add(tmp_path: Path) -> None:
    """The line to write."""
    (tmp_path / "mine.py").write_text("x = 1\n")
    assert refused("mine.py").endswith('add `flow = Dataflow("mine")` to the module')


def test_code_that_raises_is_shown_with_its_line(tmp_path: Path) -> None:
    """At import, and in the function that builds the flow."""
    (tmp_path / "broken.py").write_text("import json\n\nvalue = json.loads('{')\n")
    text = refused("broken.py")
    assert text.startswith("broken.py cannot be loaded\n  broken.py:3:9 in <module>\n")
    assert "      3 | value = json.loads('{')\n        |         ^^^^^^^^^^^^^^^\n" in text
    assert "JSONDecodeError: " in text
    (tmp_path / "mine.py").write_text(FLOW)
    assert "mine.py:14:12 in fail" in refused("mine.py:fail")


def test_a_syntax_error_is_shown_with_its_place(tmp_path: Path) -> None:
    """The caret is Python's own."""
    (tmp_path / "broken.py").write_text("x = 1\nif x\n    pass\n")
    text = refused("broken.py")
    assert "broken.py:2:5\n      2 | if x\n        |     ^\n  SyntaxError: expected ':'" in text


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("from . import beside", "import what lies beside the flow by its name"),
        ("import no_such_library", "install it with `pip install no_such_library`"),
        ("from flows.nothing import x", "'flows' is telflow's own package; it has nothing named nothing"),
    ],
)
def test_an_import_that_fails_gets_a_hint(code: str, hint: str, tmp_path: Path) -> None:
    """The three ways it happens."""
    (tmp_path / "broken.py").write_text(code + "\n")
    assert f"  hint: {hint}" in refused("broken.py")


def test_settings_files_are_told_from_modules() -> None:
    """By their ending, whatever its case."""
    assert is_settings_file("a/telflow.YML")
    assert not is_settings_file("a.module:yaml")
