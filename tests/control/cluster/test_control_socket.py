"""The socket between commands and a supervisor: for its user, with clear words when nobody answers."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from control.cluster.control_socket import ask, choose, serve, sockets
from control.exit_codes import UnavailableError
from telflow.errors import TelflowError


@pytest.fixture(autouse=True)
def _runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


async def answer(request: dict[str, Any]) -> dict[str, Any]:
    if "fail" in request:
        raise TelflowError("it cannot do that")
    return {"said": request}


def test_a_request_is_answered_and_a_refusal_is_told() -> None:
    """The socket is its owner's only, and gone at the end."""

    async def run() -> None:
        async with serve("my flow", answer) as path:
            assert path.name == "my_flow.sock"
            assert path.stat().st_mode & 0o077 == 0
            assert await asyncio.to_thread(ask, path, {"do": "x"}, 10) == {"said": {"do": "x"}}
            with pytest.raises(TelflowError, match="it cannot do that"):
                await asyncio.to_thread(ask, path, {"fail": True}, 10)
            assert await asyncio.to_thread(choose, None) == path
            async with serve("my flow", answer) as second:
                assert second.name == "my_flow-2.sock"
                with pytest.raises(UnavailableError, match="several: my_flow, my_flow-2"):
                    await asyncio.to_thread(choose, None)
                assert await asyncio.to_thread(choose, "my_flow-2") == second

    asyncio.run(run())
    assert sockets() == []


def test_a_supervisor_that_does_not_answer_is_told_from_one_that_is_gone(tmp_path: Path) -> None:
    """Stopped: says so after the time; gone: nobody listens."""
    path = tmp_path / "quiet.sock"
    with socket.socket(socket.AF_UNIX) as quiet:
        quiet.bind(str(path))
        quiet.listen()
        with pytest.raises(UnavailableError, match="stopped or hangs"):
            ask(path, {"do": "status"}, 0.1)
    with pytest.raises(UnavailableError, match="does not answer: Connection refused"):
        ask(path, {"do": "status"}, 0.1)
    with pytest.raises(UnavailableError, match="got none of this user"):
        choose(None)


def test_a_folder_others_may_enter_is_refused(tmp_path: Path) -> None:
    """What lies there could be anybody's."""
    folder = tmp_path / "run" / "telflow"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(UnavailableError, match="nobody else may enter"):
        sockets()
