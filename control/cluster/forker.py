"""The supervisor's side of the process that workers are forked from."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Self

from control.cluster import fork_server
from control.cluster.described import Described, description_from
from control.cluster.spec import WorkerSpec
from control.exit_codes import UnavailableError
from control.screen import ACTIVE

__all__ = ["Forked", "Forker"]


class Forked:
    """A worker's process.

    Attributes:
        pid: Its number.
        status: How it ended, as in `subprocess`; None while it runs.
    """

    def __init__(self, pid: int) -> None:
        """Note a process that runs."""
        self.pid = pid
        self.status: int | None = None
        self._ended = asyncio.Event()

    def kill(self) -> None:
        """End it at once."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Return how it ended, when it has."""
        await self._ended.wait()
        assert self.status is not None  # noqa: S101 - set before the event
        return self.status

    def end(self, status: int) -> None:
        """Note its end."""
        self.status = status
        self._ended.set()


class Forker:
    """Starts workers by forking a process that has everything imported; starts that when needed.

    It, and so all workers, die with the thread that started it: the main one.
    """

    def __init__(self, target: str = "") -> None:
        """Build one that has started nothing.

        Args:
            target: What workers will run: a flow, or a gateway's settings, which need more.
        """
        self._target = target
        self._server: int | None = None
        self._channel: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: deque[asyncio.Future[Forked]] = deque()
        self._running: dict[int, Forked] = {}

    def __enter__(self) -> Self:
        """Fork that process from this one, which must not have threads at work yet: what is imported is there too."""
        self._start(self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, server: Callable[[int, int], None]) -> None:
        parent, (ours, theirs) = os.getpid(), socket.socketpair()
        with theirs, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            # Python 3.12 warns of threads, which Arrow and numpy always have.
            self._server = os.fork()
            if not self._server:
                try:
                    ours.close()
                    os.setsid()
                    with Path(os.devnull).open() as nothing:
                        os.dup2(nothing.fileno(), 0)
                    server(parent, theirs.fileno())
                except BaseException:  # noqa: BLE001 - the parent's code must not go on here
                    traceback.print_exc()
                finally:
                    os._exit(0)
        ours.setblocking(False)
        self._channel = ours

    def _arguments(self, parent: int, channel: int) -> list[str]:
        return [str(parent), str(channel), self._target, *["--debug"] * ACTIVE.debug]

    def _serve(self, parent: int, channel: int) -> None:
        fork_server.main(self._arguments(parent, channel))

    def _execute(self, parent: int, channel: int) -> None:
        """Become another program: the parent does many things at a time by now, whose halves must not go on here."""
        os.set_inheritable(channel, True)
        options = [f"-W{option}" for option in sys.warnoptions]
        command = [sys.executable, "-P", *options, "-m", "control.cluster.fork_server"]
        os.execv(command[0], [*command, *self._arguments(parent, channel)])  # noqa: S606 - our own, without a shell

    def describe(self, target: str) -> Described:
        """Find out about a target, in a process that is forked for it; waits until it has ended.

        Raises:
            ConfigError: The settings are wrong.
            FlowError: The flow cannot be loaded.
            UnavailableError: Something that it needs cannot be used, or the process to fork from has ended.
        """
        reading, writing = os.pipe()
        with os.fdopen(reading, encoding="utf-8", errors="backslashreplace") as answer:
            try:
                self._ask({"describe": target}, writing)
            finally:
                os.close(writing)
            return description_from(answer.read())

    def _ask(self, request: dict[str, str], descriptor: int) -> None:
        try:
            if self._channel is None:
                raise ConnectionResetError("the process that they are forked from has ended")
            socket.send_fds(self._channel, [json.dumps(request).encode()], [descriptor])
        except OSError as error:
            raise UnavailableError(f"workers cannot be started: {error}") from error

    async def fork(self, spec: WorkerSpec, channel: socket.socket) -> Forked:
        """Start a worker.

        Args:
            spec: What it is to run.
            channel: Its end of the socket to the supervisor.

        Raises:
            UnavailableError: The process that it is forked from has ended.
        """
        if self._channel is None:
            self._start(self._execute)
        assert self._channel is not None  # noqa: S101 - made just now
        if self._reading is None or self._reading.done():
            reader, writer = await asyncio.open_connection(sock=self._channel.dup())
            self._reading = asyncio.create_task(self._read(reader, writer))
        self._ask({"spec": spec.to_json()}, channel.fileno())
        answer: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        try:
            return await answer
        except OSError as error:
            raise UnavailableError(f"workers cannot be started: {error}") from error

    def close(self) -> None:
        """End the process, and with it the workers that are left."""
        if self._reading is not None:
            self._reading.cancel()
        self._end_server()

    def _end_server(self) -> None:
        if self._server is not None:
            os.kill(self._server, signal.SIGKILL)
            os.waitpid(self._server, 0)
            self._server = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for line in reader:
                said = json.loads(line)
                if "status" in said:
                    self._running.pop(said["pid"], Forked(0)).end(said["status"])
                else:
                    # Noted here: its end may be the next line.
                    forked = self._running[said["pid"]] = Forked(said["pid"])
                    self._answers.popleft().set_result(forked)
        finally:
            writer.close()
            self._end_server()
            for answer in self._answers:
                if not answer.done():
                    answer.set_exception(ConnectionResetError("the process that they are forked from has ended"))
            self._answers.clear()
            for forked in self._running.values():  # the kernel has ended them
                forked.end(-signal.SIGKILL)
            self._running.clear()
