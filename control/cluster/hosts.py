"""The tie between the first host and the others: one TCP connection each, lines of JSON, proved by a common secret.

Both sides prove that they know the secret (HMAC-SHA256 over the other's random number and both names), so that neither
an unknown host joins nor a host obeys an unknown one. What is said is not encrypted, nor is what workers exchange: the
hosts are on a private network.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from control.cluster.forker import Forker
from control.cluster.node import Event, Events, Frontiers, LocalNode, Plan
from control.exit_codes import UnavailableError

__all__ = ["Agent", "Hosts", "RemoteNode"]

_LINE_BYTES = 64 << 20
_HELLO_TIMEOUT_S = 5.0
_SAY_EVERY_S = 1.0
_AGAIN_S = 1.0
_ACCEPT_STEPS = 10


class RemoteNode:
    """The workers of another host, as the first one sees them."""

    def __init__(self, name: str, events: Events) -> None:
        """Build it; it can do nothing before its host has joined."""
        self.name = name
        self.events = events
        self.writer: asyncio.StreamWriter | None = None
        self.known_frontiers: Frontiers = {}
        self.killed = asyncio.Event()

    async def start(self, plan: Plan) -> None:
        """See `Node.start`."""
        await self._say({"start": plan.to_json()})

    async def order(self, order: str) -> None:
        """See `Node.order`."""
        await self._say({"order": order})

    async def kill(self) -> None:
        """See `Node.kill`; a host that is gone ends its workers by itself."""
        self.killed.clear()
        if await self._say({"kill": True}):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.killed.wait(), _HELLO_TIMEOUT_S)

    async def frontiers(self) -> Frontiers:
        """See `Node.frontiers`."""
        return self.known_frontiers

    async def _say(self, message: dict[str, Any]) -> bool:
        if self.writer is None:
            return False
        with contextlib.suppress(OSError):
            await _write(self.writer, message)
            return True
        return False


class Hosts:
    """The first host's side."""

    def __init__(self, nodes: Mapping[str, RemoteNode], events: Events, secret: str, *, silence_s: float) -> None:
        """Set up.

        Args:
            nodes: The other hosts.
            events: Where it is told who joins and who is gone.
            secret: What all know.
            silence_s: After this time without a word a host is gone.
        """
        self._nodes = nodes
        self._events = events
        self._secret = secret
        self._silence_s = silence_s
        self._connections: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listen(self, address: str, port: int) -> AsyncIterator[None]:
        """Let hosts join while the block runs.

        Raises:
            UnavailableError: The port is taken.
        """
        try:
            server = await asyncio.start_server(self._accept, address, port, limit=_LINE_BYTES)
        except OSError as error:
            raise UnavailableError(f"control_port: cannot listen on {address}:{port}: {error.strerror}") from error
        try:
            yield
        finally:
            for _ in range(
                _ACCEPT_STEPS
            ):  # asyncio leaves open what it has accepted, but not handed over, at the close
                await asyncio.sleep(0)
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the stream's own
        self._connections.add(task)
        node = None
        try:
            name = await asyncio.wait_for(self._greet(reader, writer), _HELLO_TIMEOUT_S)
            node = self._nodes.get(name)
            if node is None or node.writer is not None:
                node = None
                return
            node.writer = writer
            await self._events.put(Event(name, 0, -1, {"joined": True}))
            await self._hear(node, reader)
        except (OSError, ValueError, KeyError, TimeoutError, asyncio.IncompleteReadError) as error:
            await self._gone(node, str(error) or type(error).__name__)
        else:
            await self._gone(node, "its connection was closed")
        finally:
            if node is not None:
                node.writer = None
                node.killed.set()
            await _close(writer)
            self._connections.discard(task)

    async def _gone(self, node: RemoteNode | None, why: str) -> None:
        if node is not None:
            node.writer = None
            await self._events.put(Event(node.name, 0, -1, {"lost": why}))

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        mine = secrets.token_hex(32)
        await _write(writer, {"challenge": mine})
        said = await _read(reader)
        name, theirs = str(said["host"]), str(said["challenge"])
        if not hmac.compare_digest(str(said["proof"]), _proof(self._secret, "host", name, mine, theirs)):
            raise PermissionError("it does not know the secret")
        await _write(writer, {"proof": _proof(self._secret, "first", name, mine, theirs)})
        return name

    async def _hear(self, node: RemoteNode, reader: asyncio.StreamReader) -> None:
        while True:
            said = await asyncio.wait_for(_read(reader), self._silence_s)
            if "event" in said:
                generation, worker, message = said["event"]
                await self._events.put(Event(node.name, generation, worker, message))
            elif "frontiers" in said:
                node.known_frontiers = {int(w): (run, epoch) for w, (run, epoch) in said["frontiers"].items()}
                if node.writer is not None:
                    await _write(node.writer, {"heard": True})
            elif "killed" in said:
                node.killed.set()


class Agent:
    """Another host's side: does what the first one says, and joins again when the tie was cut."""

    def __init__(
        self,
        name: str,
        first: tuple[str, int],
        secret: str,
        *,
        recovery_dir: Path,
        silence_s: float,
        note: Callable[[str], None] | None = None,
        forker: Forker | None = None,
    ) -> None:
        """Set up.

        Args:
            name: This host.
            first: Where the first one listens.
            secret: What all know.
            recovery_dir: Folder of the state here.
            silence_s: After this time without a word the first host is gone.
            note: Is told, for people, what happens.
            forker: Starts the workers here.
        """
        self._name = name
        self._first = first
        self._secret = secret
        self._recovery_dir = recovery_dir
        self._silence_s = silence_s
        self._note = note or _say_nothing
        self._events: Events = asyncio.Queue()
        self._node = LocalNode(name, self._events, forker)
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    def stop(self) -> None:
        """Leave: the first host drains all workers, then this one ends; asked for twice, end at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def run(self) -> None:
        """Serve the first host until `stop`.

        Raises:
            UnavailableError: The first host does not know the same secret.
        """
        while not self._stopping.is_set():
            try:
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection(*self._first, limit=_LINE_BYTES), _HELLO_TIMEOUT_S
                )
            except (OSError, TimeoutError):
                await self._pause()
                continue
            try:
                await asyncio.wait_for(self._greet(reader, writer), _HELLO_TIMEOUT_S)
                self._note(f"{self._name}: joined {self._first[0]}")
                await self._serve(reader, writer)
            except PermissionError as error:
                raise UnavailableError(f"{self._first[0]}:{self._first[1]}: {error}") from error
            except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
                self._note(f"{self._name}: the first host is gone; the workers here end until it is back")
            finally:
                await self._node.kill()
                await _close(writer)
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _AGAIN_S)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, mine = str((await _read(reader))["challenge"]), secrets.token_hex(32)
        proof = _proof(self._secret, "host", self._name, theirs, mine)
        await _write(writer, {"host": self._name, "challenge": mine, "proof": proof})
        said = await reader.readline()
        if not said:
            raise PermissionError("expected a first host with the same secret, it refused this one")
        expected = _proof(self._secret, "first", self._name, theirs, mine)
        if not hmac.compare_digest(str(json.loads(said)["proof"]), expected):
            raise PermissionError("expected a first host with the same secret, got one that does not know it")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward events and obey orders until the tie is cut or this host has left."""
        tasks = [
            asyncio.create_task(work)
            for work in (self._forward(writer), self._report(writer), self._obey(reader, writer), self._leave(writer))
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, writer: asyncio.StreamWriter) -> None:
        while True:
            event = await self._events.get()
            await _write(writer, {"event": [event.generation, event.worker, event.message]})

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await _write(writer, {"frontiers": await self._node.frontiers()})
            await asyncio.sleep(_SAY_EVERY_S)

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            # Its answers to the reports come every second, whatever else it says.
            said = await asyncio.wait_for(_read(reader), self._silence_s)
            if "start" in said:
                plan = Plan.from_json(said["start"])
                mine = tuple(replace(worker, recovery_dir=self._recovery_dir) for worker in plan.workers)
                await self._node.start(replace(plan, workers=mine))
            elif "order" in said:
                await self._node.order(str(said["order"]))
            elif "kill" in said:
                await self._node.kill()
                await _write(writer, {"killed": True})

    async def _leave(self, writer: asyncio.StreamWriter) -> None:
        await self._stopping.wait()
        await _write(writer, {"event": [0, -1, {"asked": "stop"}]})
        gone = asyncio.create_task(self._node.wait())
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait([gone, hurry], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            hurry.cancel()


def _say_nothing(text: str) -> None:
    del text


def _proof(secret: str, role: str, name: str, first: str, second: str) -> str:
    text = f"{role}\n{name}\n{first}\n{second}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _write(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write((json.dumps(message) + "\n").encode())
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> dict[str, Any]:
    line = await reader.readline()
    if not line:
        raise asyncio.IncompleteReadError(line, None)
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("expected a line with an object")  # noqa: TRY004 - of the peer's text, not a type here
    return message
