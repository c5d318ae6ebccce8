"""The local socket through which commands talk to a supervisor: for its own user only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from control.exit_codes import UnavailableError
from telflow.errors import TelflowError

__all__ = ["ask", "choose", "serve", "sockets"]

_SUFFIX = ".sock"
_ANSWER_BYTES = 16 << 20
_LAST_ANSWERS_S = 1.0
_ACCEPT_STEPS = 10
Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def _folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "telflow" if runtime else Path(tempfile.gettempdir()) / f"telflow-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UnavailableError(f"{folder}: expected a folder of this user that nobody else may enter")
    return folder


@contextlib.asynccontextmanager
async def serve(name: str, answer: Answer) -> AsyncIterator[Path]:
    """Answer commands while the block runs.

    Args:
        name: What runs here, and on which host; a second one of the same name gets a number.
        answer: Turns a request into an answer; what it raises of telflow's errors is told to the command.
    """
    base = re.sub(r"[^A-Za-z0-9_.@-]", "_", name)
    path, number = _folder() / f"{base}{_SUFFIX}", 1
    while path.exists() and _connects(path):
        number += 1
        path = path.with_name(f"{base}-{number}{_SUFFIX}")
    path.unlink(missing_ok=True)

    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            handlers.add(task)
            task.add_done_callback(handlers.discard)
        try:
            await talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            if _peer_uid(writer.get_extra_info("socket")) in (0, os.getuid()):
                request = json.loads(await reader.readline())
                try:
                    said = await answer(request)
                except TelflowError as error:
                    said = {"error": str(error)}
                writer.write((json.dumps(said) + "\n").encode())
                await writer.drain()

    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(handle, path)
    finally:
        os.umask(before)
    try:
        yield path
    finally:
        for _ in range(_ACCEPT_STEPS):  # asyncio leaves open what it has accepted, but not handed over, at the close
            await asyncio.sleep(0)
        server.close()
        path.unlink(missing_ok=True)
        if handlers:  # who waits for a change is still told that it did not come
            _, unfinished = await asyncio.wait(handlers, timeout=_LAST_ANSWERS_S)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)


def sockets() -> list[Path]:
    """Return the sockets of the supervisors that run here."""
    return sorted((path for path in _folder().glob(f"*{_SUFFIX}") if _connects(path)), key=lambda path: path.stem)


def choose(flow: str | None) -> Path:
    """Return the socket of a flow; of the only one that runs, when none is named.

    Raises:
        UnavailableError: There is none, or more than one.
    """
    found = sockets()
    if flow is not None:
        found = [path for path in found if flow in (path.stem, path.stem.partition("@")[0])]
    if not found:
        raise UnavailableError(
            f"expected a cluster that runs{f' {flow}' if flow else ''}, got none of this user\n"
            "  hint: `telflow run FLOW --workers 2` starts one"
        )
    if len(found) > 1:
        names = ", ".join(path.stem for path in found)
        raise UnavailableError(f"expected one cluster, got several: {names}\n  hint: name one with --flow")
    return found[0]


def ask(path: Path, request: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
    """Send a supervisor a request and return its answer.

    Args:
        path: Its socket.
        request: What is asked.
        timeout_s: How long to wait; None: until it answers.

    Raises:
        UnavailableError: It does not answer: it is stopped, hangs, or has just ended.
        TelflowError: It says that it cannot do that.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout_s)
            client.connect(str(path))
            client.sendall((json.dumps(request) + "\n").encode())
            data = b""
            while not data.endswith(b"\n") and len(data) < _ANSWER_BYTES:
                more = client.recv(65_536)
                if not more:
                    break
                data += more
    except TimeoutError as error:
        raise UnavailableError(
            f"the supervisor of {path.stem} does not answer: it is stopped or hangs. Its workers go on.\n"
            "  hint: `kill -CONT` wakes one that was stopped; one that is killed takes its workers along"
        ) from error
    except OSError as error:
        raise UnavailableError(f"the supervisor of {path.stem} does not answer: {error.strerror}") from error
    if not data:
        raise UnavailableError(f"the supervisor of {path.stem} ended before it answered")
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        raise TelflowError(answer["error"])
    return answer


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except BlockingIOError:  # its queue is full: somebody is there
            return True
        except OSError:
            return False
    return True


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
