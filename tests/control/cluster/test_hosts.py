"""The tie between hosts: only who knows the secret joins, and silence cuts it."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from control.cluster.hosts import Agent, Hosts, RemoteNode
from control.cluster.node import Event, Events
from control.exit_codes import UnavailableError

SECRET = "a secret of a test"  # noqa: S105


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def next_event(events: Events) -> Event:
    return await asyncio.wait_for(events.get(), 20)


def first(events: Events, *, silence_s: float = 20) -> tuple[Hosts, RemoteNode]:
    node = RemoteNode("b", events)
    return Hosts({"b": node}, events, SECRET, silence_s=silence_s), node


def agent(folder: Path, port: int, secret: str = SECRET) -> Agent:
    return Agent("b", ("127.0.0.1", port), secret, recovery_dir=folder, silence_s=20)


def test_a_host_that_knows_the_secret_joins_and_leaves(tmp_path: Path) -> None:
    """Joined, asked to stop, gone: in this order; `kill` and `frontiers` answer also without workers."""

    async def run() -> list[dict[str, Any]]:
        events: Events = asyncio.Queue()
        hosts, node = first(events)
        port = free_port()
        async with hosts.listen("127.0.0.1", port):
            other = agent(tmp_path, port)
            running = asyncio.create_task(other.run())
            seen = [(await next_event(events)).message]
            await node.kill()
            assert await node.frontiers() == {}
            other.stop()
            seen += [(await next_event(events)).message for _ in range(2)]
            await asyncio.wait_for(running, 20)
        return seen

    joined, asked, lost = asyncio.run(run())
    assert (joined, asked, list(lost)) == ({"joined": True}, {"asked": "stop"}, ["lost"])


def test_a_host_with_another_secret_is_refused_on_both_sides(tmp_path: Path) -> None:
    """It gives up with the reason; the first host has seen nobody."""

    async def run() -> None:
        events: Events = asyncio.Queue()
        hosts, _ = first(events)
        port = free_port()
        async with hosts.listen("127.0.0.1", port):
            with pytest.raises(UnavailableError, match="same secret"):
                await asyncio.wait_for(agent(tmp_path, port, "another secret").run(), 20)
        assert events.empty()

    asyncio.run(run())


def test_a_first_host_that_does_not_know_the_secret_is_not_obeyed(tmp_path: Path) -> None:
    """Whoever took its address: its proof is wrong."""

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"challenge": "00"}\n')
        await reader.readline()
        writer.write(json.dumps({"proof": "0" * 64}).encode() + b"\n")
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(impostor, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnavailableError, match="does not know it"):
            await asyncio.wait_for(agent(tmp_path, port).run(), 20)
        await asyncio.wait_for(ended.wait(), 20)
        server.close()
        await server.wait_closed()

    asyncio.run(run())


@pytest.mark.parametrize("line", [b"not json\n", b"[]\n", b'{"host": "b"}\n', b""])
def test_what_is_no_greeting_is_no_host(line: bytes) -> None:
    """Strangers are cut off; the first host goes on."""

    async def run() -> None:
        events: Events = asyncio.Queue()
        hosts, node = first(events)
        port = free_port()
        async with hosts.listen("127.0.0.1", port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.readline()
            writer.write(line)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
            await writer.wait_closed()
            assert node.writer is None
        assert events.empty()

    asyncio.run(run())


def test_a_host_that_falls_silent_is_gone(tmp_path: Path) -> None:
    """It joined, then said nothing for the time."""

    async def run() -> Event:
        events: Events = asyncio.Queue()
        hosts, _ = first(events, silence_s=0.2)
        port = free_port()
        async with hosts.listen("127.0.0.1", port):
            quiet = agent(tmp_path, port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await quiet._greet(reader, writer)
            assert (await next_event(events)).message == {"joined": True}
            lost = await next_event(events)
            writer.close()
            await writer.wait_closed()
        return lost

    assert "lost" in asyncio.run(run()).message


def test_the_control_port_that_is_taken_is_named() -> None:
    """With address and port."""

    async def run() -> None:
        hosts, _ = first(asyncio.Queue())
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(UnavailableError, match="control_port: cannot listen on 127"):
                async with hosts.listen("127.0.0.1", taken.getsockname()[1]):
                    pass

    asyncio.run(run())
