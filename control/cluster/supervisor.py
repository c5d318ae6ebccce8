"""Keeps the workers of a cluster running: starts them, watches them, starts all again when one is lost.

A Bytewax cluster lives and dies as one: when a process ends, the others panic; when one is stopped or interrupted, the
others wait for it for ever. So every loss ends all workers, and all start again from the last epoch that each of them
had finished. What stops on purpose (SIGTERM, another number of workers, another version) is drained first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from control.cluster.judge import Loss, Member, blame, judge
from control.cluster.node import Event, Events, Frontiers, Node, Plan, free_ports
from control.cluster.places import grow_places
from control.cluster.restarts import Restarts
from control.cluster.settings import ClusterSettings
from control.cluster.spec import WorkerSpec
from control.exit_codes import ExitCode, FlowError, UnavailableError
from telflow.errors import ConfigError, TelflowError
from telflow.placement import places_of

__all__ = ["ChangeError", "Supervisor", "Version"]

_TICK_S = 0.25
_OWN_GAP_S = 2.0
"""A supervisor that was itself stopped for so long has not read what workers said, and judges nobody by it."""
_LAST_WORDS_S = 0.3
_INPUT_ENDED_S = 2.0
_FATAL: dict[int, type[TelflowError]] = {
    ExitCode.USAGE: ConfigError,
    ExitCode.FLOW: FlowError,
    ExitCode.UNAVAILABLE: UnavailableError,
}


class ChangeError(TelflowError):
    """Another number of workers or another version did not come up."""


@dataclass(frozen=True, slots=True)
class Version:
    """What runs: a flow and how many workers.

    Attributes:
        target: The flow's file or module, or a gateway's settings.
        flow_id: The flow's name.
        workers: How many.
        storage: Folder of what a gateway keeps on each host; None for a flow, which keeps nothing.
    """

    target: str
    flow_id: str
    workers: int
    storage: str | None = None


class Supervisor:
    """Runs one flow on the workers of several nodes until it ends or is told to stop.

    Attributes:
        version: What runs, or is to.
        state: `waiting` for hosts, `starting`, `running`, `draining`, `restarting` or `ended`.
        ended: What each worker said at its end, by generation and number; those of a generation in which one was lost
            are left out, as what they counted comes again.
        unsure: Records that a lost generation had lost: perhaps these came again, too.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        version: Version,
        nodes: Mapping[str, Node],
        events: Events,
        *,
        note: Callable[[str], None],
        joined: set[str] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up.

        Args:
            settings: The cluster.
            version: What to run first.
            nodes: Its hosts.
            events: What the nodes report to.
            note: Is told, for people, what happens.
            joined: Names of the nodes that are there from the start; the others report `joined`.
            now_s: A clock that never goes back.
        """
        self.version = version
        self.state = "waiting"
        self.ended: dict[tuple[int, int], dict[str, Any]] = {}
        self.unsure = 0
        self._lost_generation = 0
        self.members: list[Member] = []
        self.restarts = Restarts(settings.restarts)
        self.last_loss: dict[str, Any] | None = None
        self.generation = 0
        self._settings = settings
        self._nodes = nodes
        self._events = events
        self._joined = set(joined or ())
        self._note = note
        self._now_s = now_s
        self._stopping = False
        self._again = False  # drain, and start again
        self._soon = False  # as above, without waiting for long
        self._hurry = False
        self._has_run = False
        self._running_since_s = 0.0
        # Of the generation that runs:
        self._due_s = self._draining_since_s = 0.0
        self._going = self._finished = False
        self._input_ended_s: float | None = None
        self._lost_at_s: float | None = None
        self._before: Version | None = None  # what ran before a change that has not come up yet
        self._trying = False  # the change is being started
        self._changed: asyncio.Future[None] | None = None

    def stop(self) -> None:
        """Drain and end; asked for twice, do not wait for the drain."""
        self._hurry = self._stopping
        self._stopping = True

    async def change(self, version: Version) -> None:
        """Drain, then run another version or another number of workers; return when it runs.

        Raises:
            ChangeError: It did not come up, and what ran before runs again; or another change is under way.
        """
        if self._changed is not None or self._stopping:
            raise ChangeError("expected a cluster that runs, got one that is just being changed or stopped")
        self._check(version)
        self._changed = asyncio.get_running_loop().create_future()
        self._before, self.version = self.version, version
        self._again = True
        try:
            await self._changed
        finally:
            self._changed = None

    async def run(self) -> None:
        """Run until the flow ends or `stop` is called.

        Raises:
            ConfigError: The flow cannot start: a setting is wrong.
            FlowError: The flow cannot be loaded, or fails again and again.
            UnavailableError: Something that it needs cannot be used.
            TelflowError: Workers were lost too often, or the last drain took too long.
        """
        self._check(self.version)
        try:
            while True:
                loss = await self._generation()
                if loss is None and (self._stopping or not self._again):
                    return
                if self._stopping and loss is not None:
                    raise TelflowError(f"not drained: {loss}; the next start goes on from the last finished epoch")
                self._again = False
                if loss is not None:
                    await self._after(loss)
        finally:
            self.state = "ended"
            await self._kill()
            if self._changed is not None and not self._changed.done():
                self._changed.set_exception(ChangeError("the cluster has stopped"))

    async def _generation(self) -> Loss | None:
        """Run the workers once; returns None when they have ended well."""
        if not await self._wait_for_nodes():
            return None
        self.generation += 1
        self.state = "starting"
        await self._start()
        self._due_s = self._now_s() + self._settings.start_timeout.total_seconds()
        self._going = self._finished = self._soon = False
        self._input_ended_s = None
        tick_s = self._now_s()
        while True:
            loss = await self._listen()
            now_s = self._now_s()
            if now_s - tick_s > _OWN_GAP_S:
                for member in self.members:
                    member.heard_s = now_s
            tick_s = now_s
            loss = loss or await self._look(now_s)
            if loss is not None:
                await self._lose(loss, now_s)
                return loss
            if self._cuts_drain_short(now_s):
                await self._abandon()
                return None
            if all(member.status is not None for member in self.members):
                return None
            if self.state == "starting" and (self._stopping or self._again):
                await self._kill()
                return None
            await self._go_on(now_s)

    async def _look(self, now_s: float) -> Loss | None:
        """Find what is wrong with the workers."""
        if any(member.status for member in self.members):
            return await self._last_words()
        draining = self.state == "draining"
        loss = judge(
            self.members,
            now_s,
            silence_s=self._settings.silence_timeout.total_seconds(),
            hang_s=self._settings.hang_timeout.total_seconds(),
            draining=draining or self._finished,
        )
        if loss is None and self.state in ("starting", "draining") and (now_s > self._due_s or self._hurry):
            loss = Loss(None, f"the workers took too long {'to drain' if draining else 'to start'}")
        return loss

    async def _go_on(self, now_s: float) -> None:
        """Tell the workers what is next for them."""
        if not self._going and all(member.ready for member in self.members):
            self._going = True
            await self._order("go")
        if self.state == "starting" and all(member.runs for member in self.members):
            self._runs(now_s)
        if self.state != "running":
            return
        if self._stopping or self._again:
            self.state = "draining"
            self._draining_since_s = now_s
            self._due_s = now_s + self._settings.drain_timeout.total_seconds()
            await self._order("drain")
        elif any(member.beat.get("input_open", True) for member in self.members):
            self._input_ended_s = None
        elif self._input_ended_s is None:
            self._input_ended_s = now_s
        elif not self._finished and now_s - self._input_ended_s > _INPUT_ENDED_S:
            self._finished = True
            await self._order("finish")

    async def _wait_for_nodes(self) -> bool:
        """Wait until all hosts have joined; returns whether to go on."""
        self.members = []
        missing = set(self._nodes) - self._joined
        if missing:
            self.state = "waiting"
            self._note(f"waiting for {', '.join(sorted(missing))}")
        while set(self._nodes) - self._joined:
            await self._listen()
            if self._stopping:
                return False
        return not self._stopping

    def _check(self, version: Version) -> None:
        hosts = len(self._settings.hosts)
        if version.storage is not None and version.workers < hosts:
            raise ChangeError(
                f"expected at least one worker on each of {hosts} hosts, got {version.workers}: what a host has "
                "received and not sent yet lies on its own disk"
            )
        if version.storage != self.version.storage:
            raise ChangeError(
                f"expected the storage {self.version.storage}, got {version.storage}: what was received and not sent "
                "yet would stay behind"
            )

    async def _start(self) -> None:
        settings, version = self._settings, self.version
        self._trying = self._before is not None
        placed = settings.placed(version.workers)
        places: dict[str, int] = {}
        if version.storage is not None:
            places = grow_places(
                settings.recovery_dir_of(settings.first), {host: placed.count(host) for host in settings.hosts}
            )
        addresses = self._addresses(placed)
        now_s = self._now_s()
        self.members = [Member(n, host, addresses[n], now_s) for n, host in enumerate(placed)]
        for number, (name, node) in enumerate(self._nodes.items()):
            mine = [n for n, host in enumerate(placed) if host == name]
            share = [places_of(places, name, number, len(mine)) if places else ((), ()) for number in range(len(mine))]
            workers = tuple(
                WorkerSpec(
                    index=n,
                    host=name,
                    local_index=n - mine[0],
                    local_workers=len(mine),
                    addresses=tuple(addresses) if len(addresses) > 1 else (),
                    target=version.target,
                    recovery_dir=settings.recovery_dir_of(name).absolute(),
                    backup_interval_s=settings.backup_interval.total_seconds(),
                    places=share[n - mine[0]][0],
                    here=share[n - mine[0]][1],
                )
                for n in mine
            )
            await node.start(Plan(self.generation, version.flow_id, workers, (number, len(self._nodes))))

    def _addresses(self, placed: list[str]) -> list[str]:
        settings = self._settings
        if not settings.port:
            address = settings.hosts[placed[0]].address
            return [f"{_bracketed(address)}:{port}" for port in free_ports(address, len(placed))]
        seen: dict[str, int] = {}
        made = []
        for host in placed:
            # Hosts that are one machine in truth (two loopback addresses) each have an address of their own.
            made.append(f"{_bracketed(settings.hosts[host].address)}:{settings.port + seen.setdefault(host, 0)}")
            seen[host] += 1
        return made

    async def _listen(self) -> Loss | None:
        """Take in what nodes report, waiting a moment for the first; returns what only a node can know."""
        loss: Loss | None = None
        try:
            event = await asyncio.wait_for(self._events.get(), _TICK_S)
        except TimeoutError:
            return None
        while True:
            loss = self._take(event) or loss
            if self._events.empty():
                return loss
            event = self._events.get_nowait()

    def _take(self, event: Event) -> Loss | None:
        if event.worker < 0:
            return self._take_of_node(event)
        if event.generation == self.generation and self.members:
            self._take_of_worker(self.members[event.worker], event.message)
        return None

    def _take_of_node(self, event: Event) -> Loss | None:
        message = event.message
        if "joined" in message:
            self._joined.add(event.node)
        elif "lost" in message and event.node in self._joined:
            self._joined.discard(event.node)
            return Loss(None, f"host {event.node} is gone: {message['lost']}")
        elif "asked" in message:
            self._joined.discard(event.node)
            self._note(f"host {event.node} leaves")
            self._again, self._soon = True, False
        elif "failed" in message and event.generation == self.generation:
            return Loss(None, message["failed"]["error"], int(ExitCode.UNAVAILABLE))
        return None

    def _take_of_worker(self, member: Member, message: dict[str, Any]) -> None:
        member.heard_s = self._now_s()
        if "started" in message:
            member.pid = message["started"]["pid"]
        elif "ready" in message:
            member.ready = True
        elif "beat" in message:
            member.beat = message["beat"]
        elif "asked" in message:
            self._note(f"worker {member.index} got {message['asked']}: all drain and start again")
            self._soon = self._soon or not self._again  # a host that leaves, and has told its workers, is waited for
            self._again = True
        elif "ended" in message:
            member.ended = message["ended"]
            if self.generation != self._lost_generation:
                self.ended[self.generation, member.index] = message["ended"]
        elif "exit" in message:
            member.status = message["exit"]["status"]

    async def _last_words(self) -> Loss:
        """Wait a moment for what else ends, so that the one at fault can be told from those it took along."""
        until_s = self._now_s() + _LAST_WORDS_S
        while self._now_s() < until_s:
            await self._listen()
        return blame(self.members)

    def _runs(self, now_s: float) -> None:
        self.state = "running"
        self._has_run = True
        self._running_since_s = now_s
        if self.last_loss is not None and self._lost_at_s is not None:
            self.last_loss["down_s"] = round(now_s - self._lost_at_s, 3)
            self._lost_at_s = None
        self._before = None
        if self._changed is not None and not self._changed.done() and not self._again:
            self._changed.set_result(None)
        self._note(f"{len(self.members)} workers run")

    async def _lose(self, loss: Loss, now_s: float) -> None:
        self.last_loss = {"worker": loss.worker, "reason": str(loss), "time_unix_nano": time.time_ns()}
        self._lost_at_s = now_s
        if self.state == "running":
            self.restarts.ran(now_s - self._running_since_s)
        self._note(str(loss))
        await self._abandon()

    def _cuts_drain_short(self, now_s: float) -> bool:
        """Whether a drain that only precedes a new start has taken long enough."""
        if self.state != "draining" or not self._soon or self._stopping or self._changed is not None:
            return False
        cut = now_s - self._draining_since_s > self._settings.restart_drain_timeout.total_seconds()
        if cut and any(member.status is None for member in self.members):
            self._note("not drained yet: all start again from the last finished epoch")
            return True
        return False

    async def _abandon(self) -> None:
        """End all workers at once; what they did since the last finished epoch is done again."""
        self.unsure += sum(member.lost_records for member in self.members)
        self._lost_generation = self.generation
        self.ended = {key: said for key, said in self.ended.items() if key[0] != self.generation}
        await self._kill()

    async def _after(self, loss: Loss) -> None:
        """Wait before the next start, or give up."""
        if self._before is not None:
            if not self._trying:  # what ran before did not drain; the change starts from its last finished epoch
                return
            self.version, self._before = self._before, None
            self._note("what ran before is started again")
            if self._changed is not None and not self._changed.done():
                self._changed.set_exception(ChangeError(f"it did not come up, and what ran before runs again: {loss}"))
            return
        fatal = _FATAL.get(loss.code)
        if not self._has_run and fatal is not None:
            raise fatal(loss.reason.removeprefix("failed: "))
        wait_s = self.restarts.next_wait_s(now_s=self._now_s())
        if wait_s is None:
            kind = FlowError if loss.code == ExitCode.FLOW else TelflowError
            allowed = self._settings.restarts
            raise kind(f"given up after {allowed.limit} restarts within {allowed.within}; the last loss: {loss}")
        self.state = "restarting"
        self._note(f"all workers start again{f' in {wait_s:g} s' if wait_s else ''}")
        until_s = self._now_s() + wait_s
        while self._now_s() < until_s and not self._stopping:
            await self._listen()

    async def _order(self, order: str) -> None:
        for node in self._nodes.values():
            await node.order(order)

    async def _kill(self) -> None:
        await asyncio.gather(*(node.kill() for node in self._nodes.values()))

    async def status(self) -> dict[str, Any]:
        """Return how the cluster is, for `telflow status`."""
        known: Frontiers = {}
        for found in await asyncio.gather(*(node.frontiers() for node in self._nodes.values())):
            for worker, at in found.items():
                known[worker] = max(at, known.get(worker, (0, 0)))
        # What is known of a worker may be of an earlier run: each host tells what its own files say.
        run = max((run for run, _ in known.values()), default=0)
        reached = {worker: epoch for worker, (its_run, epoch) in known.items() if its_run == run}
        newest = max(reached.values(), default=0)
        now_s = self._now_s()
        placed = self._settings.placed(self.version.workers)
        return {
            "flow": self.version.flow_id,
            "target": self.version.target,
            "state": self.state,
            "generation": self.generation,
            "workers_wanted": self.version.workers,
            "restarts": self.restarts.total,
            "last_loss": self.last_loss,
            "epoch": min(reached.values(), default=None),
            "recovery_dir": str(self._settings.recovery_dir_of(self._settings.first).absolute()),
            "nodes": [
                {
                    "name": name,
                    "address": host.address,
                    "state": "joined" if name in self._joined else "missing",
                    "workers": placed.count(name),
                }
                for name, host in self._settings.hosts.items()
            ],
            "workers": [
                {
                    "index": member.index,
                    "node": member.node,
                    "pid": member.pid,
                    "address": member.address,
                    "state": self.state if self.state == "draining" and member.status is None else member.state,
                    "heard_s_ago": round(now_s - member.heard_s, 3),
                    "progress_s_ago": member.beat.get("progress_age_s"),
                    "epoch": reached.get(member.index),
                    "epochs_behind": None if member.index not in reached else newest - reached[member.index],
                    "rss_bytes": member.beat.get("rss_bytes"),
                    "endpoints": member.beat.get("endpoints", {}),
                    **member.beat.get("counts", {}),
                }
                for member in self.members
            ],
        }


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
