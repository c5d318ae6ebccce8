"""Every snippet and command in the documents runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)

# Commands that need no run here because a test of their own runs them.
_COVERED_ELSEWHERE = {
    "make": "tests/test_makefile.py, or running this very suite",
    "telflow run": "tests/control/test_gateway_process.py keeps a gateway up and stops it",
}


@dataclass(frozen=True)
class Block:
    """One fenced code block of a document."""

    document: Path
    line: int
    language: str
    info: str
    body: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def _blocks() -> list[Block]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for m in _BLOCK.finditer(text):
            line = text.count("\n", 0, m.start()) + 1
            found.append(Block(document, line, m["language"], m["info"].strip(), m["body"]))
    return found


def _environment() -> dict[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
    }


BLOCKS = _blocks()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_a_documents_snippets_run_in_order(document: Path, tmp_path: Path) -> None:
    """From one empty folder: files named in a first comment are saved, Python runs, shell commands run."""
    for block in (b for b in BLOCKS if b.document == document):
        if block.language in {"python", "yaml"}:
            named = re.match(r"# ([\w./-]+\.(?:py|yaml))\n", block.body)
            if named:
                (tmp_path / named[1]).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / named[1]).write_text(block.body)
            if block.language == "python":
                target = named[1] if named else "snippet.py"
                (tmp_path / target).write_text(block.body)
                _run([sys.executable, target], tmp_path, block)
        elif block.language == "sh":
            for command in _commands(block.body):
                if not any(command == c or command.startswith(f"{c} ") for c in ("make", "git", "cd")):
                    _run(["bash", "-euo", "pipefail", "-c", command], tmp_path, block)


def _commands(body: str) -> list[str]:
    joined = re.sub(r"\\\n", " ", body)
    stripped = (re.sub(r"\s+#\s.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def _run(command: list[str], folder: Path, block: Block) -> None:
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{block}: {command[-1]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """A relative link names a file that exists."""
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing
