"""The workers of one host: started, listened to, told what to do, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from control.cluster.forker import Forked, Forker
from control.cluster.spec import WorkerSpec
from control.recovery_store import part_files, prepare_store, wait_until_unused
from telflow.errors import TelflowError

__all__ = ["Event", "Events", "Frontiers", "LocalNode", "Node", "Plan", "free_ports", "frontiers"]

_MESSAGE_BYTES = 64 << 20
_BETWEEN_STARTS_S = 0.05


@dataclass(frozen=True, slots=True)
class Event:
    """Something a node reports.

    Attributes:
        node: Its name.
        generation: Of which start of the workers; 0 for the node itself.
        worker: Which worker; -1 for the node itself.
        message: What: a worker's own `beat`, `ready`, `ended`, `asked`; `started` with its process id; `exit` with its
            exit status; a node's `joined` or `lost`, or `failed` with why its workers cannot be started.
    """

    node: str
    generation: int
    worker: int
    message: dict[str, Any]


Events = asyncio.Queue[Event]
Frontiers = dict[int, tuple[int, int]]
"""By worker: the number of its run and the epoch it has reached in it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a node is to start.

    Attributes:
        generation: Number of this start.
        flow_id: Name of the flow.
        workers: Its workers.
        part: Which of the state's files this host keeps, and of how many.
    """

    generation: int
    flow_id: str
    workers: tuple[WorkerSpec, ...]
    part: tuple[int, int] = (0, 1)

    def to_json(self) -> dict[str, Any]:
        """Write it for another host."""
        workers = [worker.to_json() for worker in self.workers]
        return {
            "generation": self.generation,
            "flow_id": self.flow_id,
            "workers": workers,
            "part": list(self.part),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Read what `to_json` wrote."""
        workers = tuple(WorkerSpec.from_json(text) for text in data["workers"])
        first, count = data["part"]
        return cls(data["generation"], data["flow_id"], workers, (first, count))


class Node(Protocol):
    """The workers of one host, here or elsewhere; what happens to them comes as events."""

    async def start(self, plan: Plan) -> None:
        """Start workers; none may be left of an earlier plan."""
        ...

    async def order(self, order: str) -> None:
        """Tell all workers: `go`, `drain` or `finish`."""
        ...

    async def kill(self) -> None:
        """End all workers at once, and wait until they are gone."""
        ...

    async def frontiers(self) -> Frontiers:
        """Return the epoch each worker has reached, as far as this host's files say."""
        ...


@dataclass(slots=True)
class _Process:
    spec: WorkerSpec
    process: Forked
    writer: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class LocalNode:
    """The workers of this host.

    They die with the calling process; `start` must be called on its main thread, whose end the kernel takes for that of
    the parent.
    """

    def __init__(self, name: str, events: Events, forker: Forker | None = None) -> None:
        """Build a node without workers.

        Args:
            name: Its name.
            events: What it reports to.
            forker: Starts its workers.
        """
        self._name = name
        self._events = events
        self._forker = forker or Forker()
        self._processes: list[_Process] = []
        self._recovery_dir: Path | None = None

    async def wait(self) -> None:
        """Wait until all workers have ended by themselves."""
        for process in self._processes:
            await process.process.wait()

    async def start(self, plan: Plan) -> None:
        """See `Node.start`.

        Raises:
            UnavailableError: The state's folder cannot be used.
        """
        if not plan.workers:
            return
        self._recovery_dir = folder = plan.workers[0].recovery_dir
        index, count = plan.part
        try:
            prepare_store(folder, plan.flow_id, index=index, count=count)
            await asyncio.to_thread(wait_until_unused, folder)
        except TelflowError as error:
            await self._put(plan.generation, -1, failed={"error": str(error)})
            return
        self._processes = []
        try:
            for spec in plan.workers:
                self._processes.append(await self._spawn(plan.generation, spec))
        except TelflowError as error:
            await self._put(plan.generation, -1, failed={"error": str(error)})

    async def order(self, order: str) -> None:
        """See `Node.order`."""
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.writer.write(f"{order}\n".encode())
            if order == "go":  # the lower of two workers listens, and the higher would wait a second to try again
                await asyncio.sleep(_BETWEEN_STARTS_S)

    async def kill(self) -> None:
        """See `Node.kill`."""
        for process in self._processes:
            process.process.kill()
        for process in self._processes:
            await process.process.wait()
            for task in process.tasks:
                await task
            process.writer.close()
        self._processes = []

    async def frontiers(self) -> Frontiers:
        """See `Node.frontiers`."""
        return {} if self._recovery_dir is None else await asyncio.to_thread(frontiers, self._recovery_dir)

    async def _spawn(self, generation: int, spec: WorkerSpec) -> _Process:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await self._forker.fork(spec, theirs)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_MESSAGE_BYTES)
        started = _Process(spec, process, writer)
        await self._put(generation, spec.index, started={"pid": process.pid})
        reading = asyncio.create_task(self._read(generation, spec.index, reader))
        started.tasks = [reading, asyncio.create_task(self._wait(generation, spec.index, process, reading))]
        return started

    async def _read(self, generation: int, worker: int, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            async for line in reader:
                await self._put(generation, worker, **json.loads(line))

    async def _wait(self, generation: int, worker: int, process: Forked, reading: asyncio.Task[None]) -> None:
        status = await process.wait()
        await reading  # what it said before its end comes first
        await self._put(generation, worker, exit={"status": status})

    async def _put(self, generation: int, worker: int, **message: Any) -> None:
        await self._events.put(Event(self._name, generation, worker, message))


def frontiers(folder: Path) -> Frontiers:
    """Return the epoch each worker has reached in its last run, from the files of one folder.

    Not to be called in a process that runs the engine, which has its own copy of SQLite.
    """
    found: Frontiers = {}
    for path in part_files(folder):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(path)) as connection:
            for run, worker, epoch in connection.execute("SELECT ex_num, worker_index, worker_frontier FROM fronts"):
                found[worker] = max((run, epoch), found.get(worker, (0, 0)))
    return found


def _read_only(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    connection.execute("PRAGMA busy_timeout=2000")
    return connection


def free_ports(address: str, count: int) -> list[int]:
    """Return ports that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((address, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
