"""The worker's side of its tie to the supervisor: life signs out, orders in, and an end when the supervisor is gone."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from typing_extensions import override

from telflow.liveness import LIVENESS, Liveness

__all__ = ["HEARTBEAT_STEP", "HeartbeatSource", "Pulse", "add_heartbeat", "die_with"]

HEARTBEAT_STEP = "telflow_heartbeat"
"""Id of the step that is added to the flow of a cluster."""

_LOOK_EVERY_S = 0.25
_LOOK_FIRST_S = 0.05
"""Until the dataflow has begun: whoever waits for it is told at once."""
_BEAT_EVERY_S = 0.5
_STOPPED_S = 2.0
"""Between two looks, which are as far apart as `_LOOK_EVERY_S` else: the whole process was stopped."""
_ASK_EVERY = timedelta(milliseconds=200)
_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, even while it is stopped."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) or os.getppid() != parent:
        os._exit(1)


class HeartbeatSource(DynamicSource[Any]):
    """A source without data: as the dataflow goes round, the engine asks it on every worker, on the worker's thread."""

    def __init__(self, ended: Callable[[], bool], liveness: Liveness = LIVENESS) -> None:
        """Describe the source.

        Args:
            ended: Says when it is to end, so that the flow can.
            liveness: Is told of the progress.
        """
        self._ended = ended
        self._liveness = liveness

    @override
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Heartbeat:
        self._liveness.progressed()
        return _Heartbeat(self._ended, self._liveness)


class _Heartbeat(StatelessSourcePartition[Any]):
    def __init__(self, ended: Callable[[], bool], liveness: Liveness) -> None:
        self._ended = ended
        self._liveness = liveness

    @override
    def next_batch(self) -> Iterable[Any]:
        self._liveness.progressed()
        if self._ended():
            raise StopIteration
        return ()

    @override
    def next_awake(self) -> datetime:
        return datetime.now(UTC) + _ASK_EVERY


def add_heartbeat(flow: Dataflow, ended: Callable[[], bool]) -> None:
    """Add a heartbeat to a flow before it runs."""
    op.input(HEARTBEAT_STEP, flow, HeartbeatSource(ended))


class Pulse:
    """A thread that tells the supervisor how the worker is, and does what it says.

    Attributes:
        finish: Set when all input of the cluster has ended.
    """

    def __init__(self, channel: socket.socket, facts: Callable[[], dict[str, Any]]) -> None:
        """Set up; `start` begins.

        Args:
            channel: The socket to the supervisor.
            facts: Further content of a life sign.
        """
        self.finish = False
        self._channel = channel
        self._facts = facts
        self._go = threading.Event()
        self._sending = threading.Lock()
        self._on_drain: Callable[[], None] = lambda: None
        self._drain_asked = False
        self._thread = threading.Thread(target=self._run, name="telflow-pulse", daemon=True)

    def start(self) -> None:
        """Begin to send life signs."""
        self._channel.setblocking(False)
        self._thread.start()

    def on_drain(self, drain: Callable[[], None]) -> None:
        """Set what an order to drain does; one that came before is done now."""
        self._on_drain = drain
        if self._drain_asked:
            drain()

    def wait_for_go(self) -> None:
        """Wait until the supervisor says that the workers are to join."""
        self._go.wait()

    def tell(self, **message: Any) -> None:
        """Send the supervisor a message. While it does not read, life signs are left out and other messages wait."""
        data = (json.dumps(message) + "\n").encode()
        with self._sending:
            while data:
                try:
                    data = data[self._channel.send(data) :]
                except BlockingIOError:
                    if "beat" in message and len(data) == len(json.dumps(message)) + 1:
                        return
                    select.select([], [self._channel], [], 1.0)
                except OSError:
                    return  # the supervisor is gone, and so will be this process

    def _run(self) -> None:
        received = b""
        began = False
        due_s = 0.0
        looked_s = time.monotonic()
        while True:
            if time.monotonic() - looked_s > _STOPPED_S:
                LIVENESS.resumed()
            looked_s = time.monotonic()
            look = LIVENESS.look()
            begins = not began and look.progress_age_s is not None
            began = began or begins
            if begins or time.monotonic() >= due_s:
                due_s = time.monotonic() + _BEAT_EVERY_S
                beat = {"progress_age_s": look.progress_age_s, "call_s": look.call_s, "where": look.where}
                self.tell(beat=beat | {"rss_bytes": _rss_bytes()} | self._facts())
            readable, _, _ = select.select([self._channel], [], [], _LOOK_EVERY_S if began else _LOOK_FIRST_S)
            if not readable:
                continue
            try:
                data = self._channel.recv(65_536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:  # nobody is left who would start this worker again with the others
                os.kill(os.getpid(), signal.SIGKILL)
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                self._obey(line.decode())

    def _obey(self, order: str) -> None:
        if order == "go":
            self._go.set()
        elif order == "finish":
            self.finish = True
        elif order == "drain":
            self._drain_asked = True
            self._on_drain()


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()
