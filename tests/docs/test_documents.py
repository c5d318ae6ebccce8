"""Every snippet and command in the documents runs as it stands."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from tests.kafka_broker import run_broker

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
# Setting up a checkout: what runs these tests has done it.
_NOT_HERE = {"make", "git", "cd", "source"}


@dataclass(frozen=True)
class Block:
    """One fenced code block of a document."""

    document: Path
    line: int
    section: int
    language: str
    body: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def _blocks() -> list[Block]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for m in _BLOCK.finditer(text):
            line = text.count("\n", 0, m.start()) + 1
            section = text.count("\n## ", 0, m.start())
            found.append(Block(document, line, section, m["language"], m["body"]))
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
    """From one empty folder: files named in a first comment are saved, Python runs, shell commands run.

    A gateway that a section starts runs until the section ends; then it is told to stop and must end with 0. Commands
    whose program is not on this machine are left out, and the test is then told as skipped, though the rest has run.
    """
    left_out: list[str] = []
    with ExitStack() as gateways, _broker(document, tmp_path), _Session(tmp_path) as session:
        section = 0
        for block in (b for b in BLOCKS if b.document == document):
            if block.section != section:
                gateways.close()
                section = block.section
            named = re.match(r"# ([\w./-]+\.(?:py|yaml))\n", block.body)
            if named:
                (tmp_path / named[1]).write_text(block.body)
            if block.language == "python":
                session.run(block)
            elif block.language == "sh":
                left_out += _shell(block, tmp_path, gateways)
    if left_out:
        pytest.skip("; ".join(dict.fromkeys(left_out)))


def _shell(block: Block, folder: Path, gateways: ExitStack) -> list[str]:
    """Run a block's commands; returns what was left out and why."""
    left_out = []
    for command in _commands(block.body):
        if re.fullmatch(r"telflow run( \S+\.yaml)?", command):
            gateways.enter_context(_gateway(command.split(), folder, block))
        elif re.fullmatch(r"telflow run .*(--workers|--cluster) .*", command):
            gateways.enter_context(_cluster(command.split(), folder, block))
        elif command.split()[0] in _NOT_HERE:
            continue
        elif missing := _missing(command):
            left_out.append(f"{block}: no {missing} on this machine")
        else:
            _run(["bash", "-euo", "pipefail", "-c", command], folder, block)
    return left_out


class _Session:
    """One Python process for all snippets of a document, as a reader would type them into one."""

    _LOOP = (
        "import json, sys, traceback\n"
        "out, names = sys.stdout, {'__name__': '__main__'}\n"
        "sys.stdout = sys.stderr\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        exec(compile(json.loads(line), '<snippet>', 'exec'), names)\n"
        "        said = ''\n"
        "    except BaseException:\n"
        "        said = traceback.format_exc()\n"
        "    print(json.dumps(said), file=out, flush=True)\n"
    )

    def __init__(self, folder: Path) -> None:
        self._python = subprocess.Popen(
            [sys.executable, "-c", self._LOOP],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._python.communicate(timeout=60)

    def run(self, block: Block) -> None:
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps(block.body) + "\n")
        self._python.stdin.flush()
        error = json.loads(self._python.stdout.readline())
        assert not error, f"{block}: {error}"


@contextmanager
def _broker(document: Path, folder: Path) -> Iterator[None]:
    """Run a Kafka broker on its default port for the document that expects one; skipped without Java."""
    if document.name != "kafka.md":
        yield
        return
    with (Path(tempfile.gettempdir()) / "telflow-default-broker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with run_broker(folder / "kafka", 9092, **{"auto.create.topics.enable": "true"}):
            yield


@contextmanager
def _gateway(command: list[str], folder: Path, block: Block) -> Iterator[None]:
    """Run a gateway on its default ports, which only one test at a time may do."""
    with (Path(tempfile.gettempdir()) / "telflow-default-ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = subprocess.Popen(
            [*command, "--output", "json"], cwd=folder, env=_environment(), stdout=subprocess.PIPE
        )
        try:
            assert running.stdout is not None
            assert b"started" in running.stdout.readline(), f"{block}: {command}"
            yield
            running.terminate()
            assert running.wait(60) == 0, f"{block}: {command}"
        finally:
            running.kill()
            running.communicate()


@contextmanager
def _cluster(command: list[str], folder: Path, block: Block) -> Iterator[None]:
    """Run one host of a cluster; the document's next commands wait until it runs."""
    with subprocess.Popen(command, cwd=folder, env=_environment()) as running:
        try:
            yield
            running.terminate()
            assert running.wait(60) == 0, f"{block}: {command}"
        finally:
            running.kill()


def _commands(body: str) -> list[str]:
    joined = re.sub(r"\\\n", " ", body)
    stripped = (re.sub(r"\s+#\s.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def _missing(command: str) -> str:
    """The first program of a pipeline that neither this machine nor the shell has; nothing when all are there."""
    words = list(shlex.shlex(command, posix=True, punctuation_chars=True))
    begins = [0, *(at + 1 for at, word in enumerate(words) if word in {"|", "||", "&&", ";"})]
    for program in (words[at] for at in begins if at < len(words)):
        found = subprocess.run(
            ["bash", "-c", 'type "$1"', "-", program], env=_environment(), capture_output=True, check=False
        )
        if found.returncode:
            return program
    return ""


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
