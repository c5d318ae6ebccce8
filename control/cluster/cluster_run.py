"""`telflow run` with several workers: a supervisor on the first host, helpers of it on the others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from control.account import merged_accounts, merged_losses
from control.cluster.control_socket import serve
from control.cluster.forker import Forker
from control.cluster.hosts import Agent, Hosts, RemoteNode
from control.cluster.node import Events, LocalNode, Node
from control.cluster.settings import LOCAL, ClusterSettings, one_host, refuse_public
from control.cluster.supervisor import Supervisor, Version
from control.recovery_store import locked
from control.screen import Output, Screen
from telflow.configuration import load
from telflow.errors import ConfigError, TelflowError

__all__ = ["ClusterEnd", "run_cluster", "state_dir"]


@dataclass(frozen=True, slots=True)
class ClusterEnd:
    """What has become of the records of a run.

    Attributes:
        accounting: Rows of `control.account.account`, of all workers that came to their end.
        losses: Rows of `control.account.losses`, likewise.
        unsure: Further records that workers had lost before all were started again: these may have come again.
        restarts: How often all were started again after a loss.
    """

    accounting: list[dict[str, Any]]
    losses: list[dict[str, Any]]
    unsure: int
    restarts: int


def run_cluster(
    target: str,
    screen: Screen,
    *,
    workers: int | None = None,
    cluster_file: Path | None = None,
    host: str | None = None,
    recovery_dir: Path | None = None,
    backup_interval: timedelta = timedelta(),
) -> ClusterEnd | None:
    """Run a flow on several workers until it ends or is told to stop.

    Args:
        target: The flow's file or module, or a gateway's settings; empty: the usual settings.
        screen: Where to say what happens.
        workers: How many on this host; instead of a cluster file.
        cluster_file: The cluster's hosts.
        host: Which of them this one is; without it the only one, or the one whose address is this host's.
        recovery_dir: Folder of the flow's state; instead of that of the cluster file or the user's state home.
        backup_interval: How long old state is kept; without a cluster file.

    Returns:
        What the first host knows at the end; None on the others.

    Raises:
        ConfigurationError: The cluster file is wrong.
        ConfigError: An option does not fit, or an address is public.
        FlowError: The flow cannot be loaded, or fails again and again.
        UnavailableError: A folder or port cannot be used.
        TelflowError: Workers were lost too often.
    """
    settings = None if cluster_file is None else load(cluster_file, ClusterSettings)
    me = LOCAL if settings is None else _this_host(settings, host)
    # For settings that are the same file on all hosts: `${env:TELFLOW_HOST}`; workers inherit it.
    os.environ["TELFLOW_HOST"] = me
    os.environ["TELFLOW_ADDRESS"] = "127.0.0.1" if settings is None else settings.hosts[me].address
    with Forker(target) as forker:
        described = forker.describe(target)
        flow_id = described.flow_id
        if settings is not None:
            if recovery_dir is not None:
                settings = settings.model_copy(update={"recovery_dir": recovery_dir})
        else:
            own = Path(described.recovery_dir) if described.recovery_dir is not None else state_dir(flow_id)
            settings = one_host(workers or 1, recovery_dir or own, backup_interval)
        refuse_public(settings)
        version = Version(target, flow_id, workers or settings.workers, described.storage)
        with locked(settings.recovery_dir_of(me), f"the flow {flow_id}"):
            if me == settings.first:
                return asyncio.run(_supervise(settings, version, me, screen, forker))
            asyncio.run(_help(settings, me, screen, forker))
            return None


def state_dir(flow_id: str) -> Path:
    """Return where the state of a flow is kept that names no folder: below the user's state home."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "telflow" / flow_id / "recovery"


async def _supervise(
    settings: ClusterSettings, version: Version, me: str, screen: Screen, forker: Forker
) -> ClusterEnd:
    events: Events = asyncio.Queue()
    nodes: dict[str, Node] = {}
    for name in settings.hosts:
        nodes[name] = LocalNode(name, events, forker) if name == me else RemoteNode(name, events)

    def note(text: str) -> None:
        if screen.output is Output.JSON:
            screen.result({"event": "note", "text": text})
        else:
            screen.note(text)

    supervisor = Supervisor(settings, version, nodes, events, joined={me}, note=note)

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        match request:
            case {"do": "status"}:
                return {"supervisor_pid": os.getpid(), **await supervisor.status()}
            case {"do": "scale", "workers": int(count)} if count >= 1:
                await supervisor.change(replace(supervisor.version, workers=count))
            case {"do": "roll", "target": str(target)}:
                version = replace(supervisor.version, target=target)
                if version.storage is not None:
                    version = replace(version, storage=(await asyncio.to_thread(forker.describe, target)).storage)
                await supervisor.change(version)
            case _:
                raise TelflowError(f"expected an order, got {request}")
        return {"flow": supervisor.version.flow_id, "workers": supervisor.version.workers}

    name = version.flow_id if me == LOCAL else f"{version.flow_id}@{me}"
    async with _hosts(settings, nodes, events), serve(name, answer):
        with _signals(supervisor.stop):
            await supervisor.run()
    ended = supervisor.ended
    latest = [said["accounting"] for (generation, _), said in ended.items() if generation == supervisor.generation]
    accounts = merged_accounts(latest)
    if screen.output is Output.JSON:
        screen.result({"event": "stopped", "accounting": accounts, "restarts": supervisor.restarts.total})
    else:
        screen.note(f"{version.flow_id}: ended; restarts: {supervisor.restarts.total}")
    return ClusterEnd(
        merged_accounts(said["accounting"] for said in ended.values()),
        merged_losses(said["losses"] for said in ended.values()),
        supervisor.unsure,
        supervisor.restarts.total,
    )


@contextlib.asynccontextmanager
async def _hosts(settings: ClusterSettings, nodes: dict[str, Node], events: Events) -> AsyncIterator[None]:
    """Let the other hosts join while the block runs."""
    remote = {name: node for name, node in nodes.items() if isinstance(node, RemoteNode)}
    if not remote or settings.secret is None:
        yield
        return
    address = settings.hosts[settings.first].address
    secret = settings.secret.get_secret_value()
    async with Hosts(remote, events, secret, silence_s=settings.silence_timeout.total_seconds()).listen(
        address, settings.control_port
    ):
        yield


async def _help(settings: ClusterSettings, me: str, screen: Screen, forker: Forker) -> None:
    assert settings.secret is not None  # noqa: S101 - the settings have checked it
    agent = Agent(
        me,
        (settings.hosts[settings.first].address, settings.control_port),
        settings.secret.get_secret_value(),
        recovery_dir=settings.recovery_dir_of(me).absolute(),
        silence_s=settings.silence_timeout.total_seconds(),
        note=screen.note,
        forker=forker,
    )
    with _signals(agent.stop):
        await agent.run()


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Any:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _this_host(settings: ClusterSettings, host: str | None) -> str:
    if host is None and len(settings.hosts) == 1:
        return settings.first
    if host is None:
        raise ConfigError(f"--host: expected which host this is, one of {', '.join(settings.hosts)}")
    if host not in settings.hosts:
        raise ConfigError(f"--host: expected one of {', '.join(settings.hosts)}, got {host}")
    return host
