"""tap: sees everything, harms nothing."""

from __future__ import annotations

import logging

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from operators import Tap, tap
from telflow import TelemetryBatch
from tests.batches import spans

BATCHES = [spans([{"n": i}], first=i) for i in range(3)]


def run(function: object) -> list[TelemetryBatch]:
    out: list[TelemetryBatch] = []
    flow = Dataflow("flow")
    assert callable(function)
    op.output("out", tap("look", op.input("in", flow, TestingSource(BATCHES)), function), TestingSink(out))
    run_main(flow)
    return out


def test_every_batch_is_seen_and_passed_on() -> None:
    """The function sees what flows, and the very batches go on."""
    seen: list[TelemetryBatch] = []
    out = run(seen.append)
    assert all(a is b is c for a, b, c in zip(seen, out, BATCHES, strict=True))


def test_a_failing_function_does_not_stop_the_flow(caplog: pytest.LogCaptureFixture) -> None:
    """All batches pass; the failure is logged once, with step, function and its trace."""

    def look(_: TelemetryBatch) -> None:
        raise RuntimeError("no room")

    with caplog.at_level(logging.ERROR):
        assert run(look) == BATCHES
    assert len(caplog.records) == 1
    assert "step 'flow.look': function " in caplog.text
    assert "look raised on 1 records of traces" in caplog.text
    assert "RuntimeError: no room" in caplog.text


def test_failures_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Every failure counts, also those that are not logged."""
    show = Tap("look", lambda _: 1 / 0)
    for batch in BATCHES:
        show(batch)
    assert show.failures == 3
    assert len(caplog.records) == 1
