"""The generator in a dataflow: at its rate, resumable, countable, stoppable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from connectors.generator import GeneratorSettings, GeneratorSource, generate_batches
from telflow import Signal, TelemetryBatch
from telflow.accounting import Balance, Ledger
from telflow.codec import encode

SETTINGS = GeneratorSettings(total_records=1000, batch_records=300, records_per_s=0, start_time_unix_nano=0)


def test_a_dataflow_gets_exactly_the_batches() -> None:
    """All of them, in order, counted as received; then the flow ends."""
    ledger, got = Ledger(), list[TelemetryBatch]()
    flow = Dataflow("generate")
    op.output("out", op.input("in", flow, GeneratorSource(SETTINGS, ledger=ledger)), TestingSink(got))
    run_main(flow)
    assert [encode(b) for b in got] == [encode(b) for b in generate_batches(SETTINGS)]
    assert ledger.balance()["tenant-1", Signal.TRACES] == Balance(received=400)


def test_a_resumed_source_goes_on_with_the_next_batch_and_the_same_start_time() -> None:
    """Two halves are the whole, also when the start time was taken from the clock."""
    settings = SETTINGS.model_copy(update={"start_time_unix_nano": None})
    clock = iter([10**18, 2 * 10**18])
    source = GeneratorSource(settings, ledger=Ledger(), now_unix_nano=lambda: next(clock))
    first = source.build_part("in", "generator", None)
    got = [*first.next_batch(), *first.next_batch()]
    resumed = source.build_part("in", "generator", first.snapshot())
    got += [*resumed.next_batch(), *resumed.next_batch()]
    with pytest.raises(StopIteration):
        resumed.next_batch()
    whole = generate_batches(settings.model_copy(update={"start_time_unix_nano": 10**18}))
    assert [encode(b) for b in got] == [encode(b) for b in whole]


def test_the_rate_is_kept_and_a_long_delay_is_not_made_up_for() -> None:
    """300 records at 100 per second: one batch every 3 s; after a minute's pause there is no burst of twenty."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    settings = GeneratorSettings(batch_records=300, records_per_s=100, start_time_unix_nano=0)
    source = GeneratorSource(settings, ledger=Ledger(), now=lambda: now)
    part = source.build_part("in", "generator", None)
    assert len(list(part.next_batch())) == 1
    assert part.next_batch() == []
    assert part.next_awake() == now + timedelta(seconds=3)
    now += timedelta(seconds=60)
    assert len(list(part.next_batch())) == 1
    assert part.next_awake() == now + timedelta(seconds=2)


def test_without_a_rate_the_engine_calls_at_once() -> None:
    """No time to wait for."""
    assert GeneratorSource(SETTINGS, ledger=Ledger()).build_part("in", "generator", None).next_awake() is None


def test_a_stopped_source_ends() -> None:
    """An endless generator can be drained."""
    source = GeneratorSource(ledger=Ledger())
    part = source.build_part("in", "generator", None)
    assert len(list(part.next_batch())) == 1
    source.stop()
    with pytest.raises(StopIteration):
        part.next_batch()
