"""The supervisor's side of the process that workers are forked from."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque

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

    It, and so all workers, die with the thread that called `warm_up` or the first `fork`: the main one.
    """

    def __init__(self) -> None:
        """Build one that has started nothing."""
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: deque[asyncio.Future[Forked]] = deque()
        self._running: dict[int, Forked] = {}

    def warm_up(self) -> None:
        """Start importing, if nobody has."""
        if self._server is not None and self._server.poll() is None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            warnings = [f"-W{option}" for option in sys.warnoptions]
            command = [sys.executable, "-P", *warnings, "-m", "control.cluster.fork_server"]
            command += [str(os.getpid()), str(theirs.fileno()), *["--debug"] * ACTIVE.debug]
            self._server = subprocess.Popen(  # noqa: S603 - our own program, without a shell
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )
        ours.setblocking(False)
        self._channel = ours

    async def fork(self, spec: WorkerSpec, channel: socket.socket) -> Forked:
        """Start a worker.

        Args:
            spec: What it is to run.
            channel: Its end of the socket to the supervisor.

        Raises:
            UnavailableError: The process that it is forked from has ended.
        """
        if self._reading is None or self._reading.done():
            self.warm_up()
            assert self._channel is not None  # noqa: S101 - made just now
            reader, writer = await asyncio.open_connection(sock=self._channel.dup())
            self._reading = asyncio.create_task(self._read(reader, writer))
        assert self._channel is not None  # noqa: S101
        answer: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        try:
            socket.send_fds(self._channel, [json.dumps({"spec": spec.to_json()}).encode()], [channel.fileno()])
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
            self._server.kill()
            self._server.wait()
        if self._channel is not None:
            self._channel.close()

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
