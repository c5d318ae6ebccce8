"""One worker of a cluster: a process that a supervisor starts, watches and ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import FrameType
from typing import Any

from control.account import account, losses
from control.cluster.pulse import Pulse, add_heartbeat, die_with
from control.cluster.spec import WorkerSpec
from control.drain import Drain, make_drainable, stop_parts
from control.engine import one_thread_per_library, run_dataflow
from control.exit_codes import ExitCode, code_of
from control.flow_file import load_flow
from control.recovery_store import worker_lock
from control.screen import ACTIVE
from telflow.accounting import LEDGER, Balance
from telflow.errors import TelflowError
from telflow.liveness import LIVENESS

__all__ = ["run_worker"]

_COUNTS = ("received", "delivered", "dropped", "quarantined", "throttled", "in_flight")


def run_worker(specification: str) -> None:
    """Run a worker to its end, and end the process.

    Args:
        specification: What to run, as `WorkerSpec` writes it.
    """
    spec = WorkerSpec.from_json(specification)
    die_with(spec.parent)
    level = logging.INFO if ACTIVE.debug else logging.WARNING
    form = f"%(asctime)s %(levelname)s worker {spec.index}: %(message)s"
    logging.basicConfig(level=level, format=form, stream=sys.stderr)
    one_thread_per_library()
    drain_state = _DrainState()
    pulse = Pulse(socket.socket(fileno=spec.channel), drain_state.facts)
    pulse.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _asks(pulse))
    code, error_text = ExitCode.OK, ""
    try:
        with worker_lock(spec.recovery_dir):
            _run(spec, pulse, drain_state)
    except TelflowError as error:
        code, error_text = code_of(error), str(error)
    accounts = {"accounting": account(LEDGER), "losses": losses(LEDGER)}
    pulse.tell(ended={"code": int(code), "error": error_text, **accounts})
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not through the interpreter's end: threads of a failed flow may never come back


class _DrainState:
    """What a life sign says of this worker's input and records."""

    def __init__(self) -> None:
        self.drain: Drain | None = None
        self.input_open: Callable[[], bool] = lambda: True
        self.endpoints: dict[str, str] = {}

    def facts(self) -> dict[str, Any]:
        balances: list[Balance] = list(LEDGER.balance().values())
        counts = {name: sum(getattr(balance, name) for balance in balances) for name in _COUNTS}
        return {"input_open": self.input_open(), "counts": counts, "endpoints": self.endpoints}


def _asks(pulse: Pulse) -> Callable[[int, FrameType | None], None]:
    """A worker alone cannot stop: the supervisor is told, drains all, and starts them again."""

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        name = signal.Signals(number).name
        # Not in the handler: the interrupted thread may be the one that holds the channel.
        threading.Thread(target=pulse.tell, kwargs={"asked": name}, daemon=True).start()

    return handle


def _run(spec: WorkerSpec, pulse: Pulse, state: _DrainState) -> None:
    if spec.places:
        _run_gateway(spec, pulse, state)
    else:
        _run_flow(spec, pulse, state)


def _run_gateway(spec: WorkerSpec, pulse: Pulse, state: _DrainState) -> None:
    from control.cluster.gateway_worker import endpoints, gateway_of

    gateway = gateway_of(spec)
    pulse.on_drain(gateway.drain.request)
    state.endpoints = endpoints(gateway, gateway.start())
    # No heartbeat of its own: the intake's source is asked on every worker, and epochs are shortest with one input.
    pulse.tell(ready={"flow_id": gateway.flow.flow_id})
    pulse.wait_for_go()
    backup_interval = timedelta(seconds=spec.backup_interval_s)
    gateway.run(addresses=spec.addresses, index=spec.index, backup_interval=backup_interval)


def _run_flow(spec: WorkerSpec, pulse: Pulse, state: _DrainState) -> None:
    loaded = load_flow(spec.target or "")
    flow = loaded.flow
    drain = Drain(on_request=lambda: stop_parts(flow))
    make_drainable(flow, drain)
    state.input_open = lambda: drain.open_parts > 0 or LIVENESS.look().progress_age_s is None
    add_heartbeat(flow, lambda: drain.requested or pulse.finish)
    pulse.on_drain(drain.request)
    pulse.tell(ready={"flow_id": flow.flow_id})
    pulse.wait_for_go()
    with suppress(KeyboardInterrupt):
        run_dataflow(
            flow,
            recovery_dir=spec.recovery_dir,
            backup_interval=timedelta(seconds=spec.backup_interval_s),
            addresses=spec.addresses,
            index=spec.index,
        )
