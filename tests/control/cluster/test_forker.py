"""Workers forked from one process: started, told of when they end, and gone with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from control.cluster.described import Described
from control.cluster.forker import Forked, Forker
from control.cluster.spec import WorkerSpec
from control.exit_codes import FlowError, UnavailableError
from telflow.errors import ConfigError
from tests.supervised import ROOT, WINDOWED, gone

TIES: list[asyncio.StreamWriter] = []
"""What workers are tied to their test by: they end with it."""


@pytest.fixture(autouse=True)
def _from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("WINDOWS_OUT", str(tmp_path / "out"))


def spec(folder: Path, target: Path = WINDOWED) -> WorkerSpec:
    return WorkerSpec(0, "local", 0, 1, (), str(target), folder)


def run(work: Callable[[Forker], Awaitable[None]]) -> None:
    async def whole() -> None:
        forker = Forker()
        try:
            await asyncio.wait_for(work(forker), 120)
        finally:
            forker.close()
            while TIES:
                writer = TIES.pop()
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    asyncio.run(whole())


async def fork(forker: Forker, what: WorkerSpec) -> tuple[Forked, asyncio.StreamReader]:
    ours, theirs = socket.socketpair()
    with theirs:
        forked = await forker.fork(what, theirs)
    reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 24)
    TIES.append(writer)
    return forked, reader


async def heard(reader: asyncio.StreamReader, what: str) -> dict[str, Any]:
    while True:
        said = json.loads(await reader.readline())
        if what in said:
            return dict(said[what])


def test_workers_tell_of_themselves_and_how_they_ended_is_known(tmp_path: Path) -> None:
    """One that fails by itself, one that is killed; each is a process in a session of its own."""

    async def work(forker: Forker) -> None:
        good, said = await fork(forker, spec(tmp_path))
        bad, said_bad = await fork(forker, spec(tmp_path, tmp_path / "missing.py"))
        assert (await heard(said, "ready")) == {"flow_id": "windowed"}
        assert os.getsid(good.pid) == good.pid != os.getsid(0)
        assert "missing.py" in (await heard(said_bad, "ended"))["error"]
        assert await bad.wait() == bad.status == 3
        bad.kill()  # of no effect on whoever has its number now
        good.kill()
        assert await good.wait() == -signal.SIGKILL

    run(work)


def test_workers_are_gone_with_what_they_were_forked_from_and_another_takes_its_place(tmp_path: Path) -> None:
    """It is killed: they count as killed too, and the next worker is forked from a new one."""

    async def work(forker: Forker) -> None:
        first, said = await fork(forker, spec(tmp_path))
        await heard(said, "ready")
        assert forker._server is not None
        os.kill(forker._server, signal.SIGKILL)
        assert await first.wait() == -signal.SIGKILL
        assert gone([first.pid])
        second, said = await fork(forker, spec(tmp_path))
        await heard(said, "ready")
        forker.close()
        assert gone([second.pid])

    run(work)


def test_a_target_is_described_by_another_process(tmp_path: Path) -> None:
    """A flow by its name, whatever it prints; an error there is the same error here, and one that ends it is shown."""
    (tmp_path / "telflow.yaml").write_text("storge: 1\n")
    (tmp_path / "talks.py").write_text(
        "print('hello')\nfrom bytewax.dataflow import Dataflow\nflow = Dataflow('talks')\n"
    )
    (tmp_path / "ends.py").write_text("import os\nos.write(2, b'no licence')\nos._exit(1)\n")

    async def work(forker: Forker) -> None:
        _, said = await fork(forker, spec(tmp_path))
        await heard(said, "ready")
        assert forker.describe(str(WINDOWED)) == Described("windowed")
        assert forker.describe(str(tmp_path / "talks.py")) == Described("talks")
        with pytest.raises(ConfigError, match="storage"):
            forker.describe(str(tmp_path / "telflow.yaml"))
        with pytest.raises(FlowError, match="no licence"):
            forker.describe(str(tmp_path / "ends.py"))
        with pytest.raises(UnavailableError, match="has ended"):
            Forker().describe(str(WINDOWED))

    run(work)
