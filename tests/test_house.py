"""The rules of the house that no linter knows: dependency counts, one version, what may stand in a tracked file."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from telflow import _native

ROOT = Path(__file__).parent.parent


def _tracked() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git, or no checkout: nobody says which files are tracked")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def test_fewer_than_40_distributions_at_run_time() -> None:
    """The closure of telflow's own requirements, markers applied, stays small."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    seen: set[str] = set()
    todo = [Requirement(r) for r in project["dependencies"]]
    while todo:
        need = todo.pop()
        extras = need.extras or {""}
        if need.marker and not any(need.marker.evaluate({"extra": e}) for e in extras):
            continue
        name = re.sub(r"[-_.]+", "-", need.name).lower()
        if name in seen:
            continue
        seen.add(name)
        todo += [
            r
            for text in importlib.metadata.requires(need.name) or []
            if not (r := Requirement(text)).marker or r.marker.evaluate({"extra": ""})
        ]
    assert "bytewax" in seen
    assert len(seen) < 40, sorted(seen)


def test_fewer_than_80_crates() -> None:
    """Everything cargo compiles for this platform, build scripts and macros included."""
    tree = ["cargo", "tree", "--locked", "--prefix", "none", "--edges", "normal,build", "--format", "{p}"]
    out = subprocess.run(tree, cwd=ROOT / "native", capture_output=True, check=True, text=True).stdout
    crates = {line.removesuffix(" (*)") for line in out.splitlines() if line}
    assert 10 < len(crates) < 80, sorted(crates)


def test_every_dependency_is_explained() -> None:
    """Each direct dependency has its line in docs/dependencies.md."""
    text = (ROOT / "docs" / "dependencies.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [Requirement(r).name for r in project["dependencies"]]
    names += tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["dependencies"]
    missing = [n for n in names if not re.search(rf"^\|[^|]*\b{re.escape(n)}\b[^|]*\|", text, re.MULTILINE)]
    assert not missing


def test_one_version_in_one_place() -> None:
    """The compiled module carries the version of native/Cargo.toml, and no Python file repeats it."""
    version = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["package"]["version"]
    assert _native.__version__ == version
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]


def test_tracked_files_are_small() -> None:
    """No blob over 1 MiB, no source file over 500 lines."""
    big = [str(p) for p in _tracked() if p.stat().st_size > 1 << 20]
    long = [str(p) for p in _tracked() if p.suffix in {".py", ".rs"} and len(p.read_bytes().splitlines()) > 500]
    assert not big
    assert not long


@pytest.mark.parametrize("name", ["requirements.lock"])
def test_lock_files_hold_names_versions_and_hashes_only(name: str) -> None:
    """No download address: the same lock works behind any mirror."""
    assert not re.search(r"https?://|--(index|extra|find)", (ROOT / name).read_text())
