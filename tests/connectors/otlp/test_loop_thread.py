"""A loop in a thread: results, errors, and an end that leaves no task behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from connectors.otlp.loop_thread import LoopThread


def test_results_and_errors_come_back_to_the_caller() -> None:
    """As if the coroutine had run here."""

    async def where() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise ValueError("no")

    loop = LoopThread("elsewhere")
    assert loop.run(where()) == "elsewhere"
    with pytest.raises(ValueError, match="no"):
        loop.run(fail())
    loop.stop()


def test_a_stop_cancels_what_still_runs() -> None:
    """The task sees its cancellation and can tidy up."""
    tidied, started = threading.Event(), threading.Event()

    async def endless() -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            tidied.set()

    loop = LoopThread("endless")
    future = loop.submit(endless())
    assert started.wait(30)
    loop.stop()
    assert tidied.is_set()
    assert future.cancelled()
