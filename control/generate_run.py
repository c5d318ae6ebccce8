"""Sends load, shows its rate while it goes, and counts what arrived."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from control.account import account, loss_table, losses, totals
from control.drain import Drain, drain_on_signal, make_drainable, stop_parts
from control.endpoint import require_listener
from control.engine import run_dataflow
from control.exit_codes import LossError
from control.screen import Output, Screen
from flows.generate import GenerateSettings, build
from telflow.accounting import LEDGER

__all__ = ["run_generate"]

_RATE_EVERY_S = 0.5


def run_generate(settings: GenerateSettings, duration_s: float | None, screen: Screen) -> None:
    """Send the load until its end, for `duration_s` seconds, or until told to stop.

    Raises:
        UnavailableError: Nothing listens at the endpoint.
        LossError: A record did not arrive.
    """
    require_listener(settings.exporter)
    flow = build(settings)
    drain = Drain(on_request=lambda: stop_parts(flow))
    make_drainable(flow, drain)
    timer = threading.Timer(duration_s or 0, drain.request)
    started_s = time.monotonic()
    with drain_on_signal(drain), _rate_line(screen, settings):
        if duration_s is not None:
            timer.start()
        try:
            run_dataflow(flow)
        finally:
            timer.cancel()
    _report(screen, time.monotonic() - started_s)


@contextlib.contextmanager
def _rate_line(screen: Screen, settings: GenerateSettings) -> Iterator[None]:
    """Keep one line with what has arrived and how fast it goes on a terminal."""
    if screen.output is Output.JSON or not screen.err.is_terminal:
        yield
        return
    done = threading.Event()
    with screen.err.status(f"sending to {settings.exporter.endpoint}", refresh_per_second=4) as status:
        thread = threading.Thread(target=_update, args=(status.update, done), name="telflow-rate", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _update(show: Callable[[str], Any], done: threading.Event) -> None:
    before, before_s = 0, time.monotonic()
    while not done.wait(_RATE_EVERY_S):
        sums, now_s = totals(LEDGER), time.monotonic()
        rate = (sums.delivered - before) / (now_s - before_s)
        before, before_s = sums.delivered, now_s
        dropped = f"  dropped {sums.dropped:,}" if sums.dropped else ""
        show(f"{rate:>10,.0f} records/s  sent {sums.delivered:,}{dropped}")


def _report(screen: Screen, took_s: float) -> None:
    sums = totals(LEDGER)
    made = sums.received + sums.derived
    rate = sums.delivered / took_s
    data = {
        "made": made,
        "delivered": sums.delivered,
        "dropped": sums.dropped,
        "seconds": round(took_s, 3),
        "records_per_s": round(rate, 1),
        "accounting": account(LEDGER),
    }
    line = f"sent {sums.delivered:,} of {made:,} records in {took_s:.1f} s ({rate:,.0f}/s)"
    lost = loss_table(losses(LEDGER))
    screen.result(data, line, *([lost] if lost else []))
    if sums.delivered != made:
        raise LossError(f"{made - sums.delivered:,} of {made:,} records did not arrive")
