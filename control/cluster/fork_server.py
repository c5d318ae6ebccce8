"""The process that workers are forked from: it has imported everything, so that a worker starts in a moment.

    python -P -m control.cluster.fork_server PARENT CHANNEL TARGET [--debug]

Importing takes two seconds of processor time, which would be most of the time that a restart takes. The server runs
nothing of a flow and starts no thread: what a flow imports, opens and starts, its workers do after they were forked.
(Arrow and its allocator, whose threads there are, restart them after a fork.)

On its channel it is asked to fork, with a descriptor beside the request: ``{"spec": ...}`` for a worker and its own
channel; it answers ``{"pid": ...}``. Or ``{"describe": ...}`` for a process that only loads a target, writes what it is
(`control.cluster.described`) and ends. It tells of each end, ``{"pid": ..., "status": ...}``. It ends with its parent,
and its workers with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from control.cluster.described import tell_description
from control.cluster.pulse import die_with
from control.cluster.spec import WorkerSpec
from control.exit_codes import ExitCode
from control.flow_file import is_settings_file
from control.screen import ACTIVE

__all__ = ["main", "serve"]

_REQUEST_BYTES = 1 << 20


def serve(channel: socket.socket) -> None:
    """Fork as asked until the other side is gone."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the supervisor says when it is over
    while True:
        readable, _, _ = select.select([channel.fileno(), reading], [], [])
        if reading in readable:
            os.read(reading, 4096)
            _tell_ends(channel)
        if channel.fileno() in readable:
            data, descriptors, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, 1)
            if not data:
                return
            request = json.loads(data)
            pid = os.fork()
            if not pid:
                os.close(reading)
                os.close(writing)
                channel.close()
                _be(request, descriptors[0])
            os.close(descriptors[0])
            if "spec" in request:
                _tell(channel, {"pid": pid})


def _tell_ends(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _tell(channel, {"pid": pid, "status": os.waitstatus_to_exitcode(status)})


def _tell(channel: socket.socket, message: dict[str, int]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")


def _be(request: dict[str, Any], descriptor: int) -> None:
    """Do in the child of a fork what was asked for; never returns."""
    code = int(ExitCode.BUG)
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()  # Ctrl-C in a terminal is for the supervisor, which drains
        if "spec" in request:
            _be_worker(request["spec"], descriptor)
        else:
            die_with(os.getppid())
            tell_description(request["describe"], descriptor)
            code = int(ExitCode.OK)
    except BaseException:  # noqa: BLE001 - a bug: say so; the server's own code must not go on here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _be_worker(specification: str, channel: int) -> None:
    from control.cluster.worker import run_worker
    from control.panic_noise import without_panic_noise

    spec = replace(WorkerSpec.from_json(specification), parent=os.getppid(), channel=channel)
    if ACTIVE.debug:
        run_worker(spec.to_json())
    else:
        with without_panic_noise():
            run_worker(spec.to_json())


def main(arguments: Sequence[str]) -> None:
    """Import what workers need, then serve."""
    parent, descriptor, target, *options = arguments
    die_with(int(parent))
    ACTIVE.debug = "--debug" in options
    from control.engine import one_thread_per_library

    one_thread_per_library()

    import control.cluster.worker

    if not target or is_settings_file(target):
        import control.cluster.gateway_worker  # noqa: F401 - imported for the workers

    serve(socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    main(sys.argv[1:])
