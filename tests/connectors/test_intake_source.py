"""The intake's source: everything appended crosses the dataflow, which ends when the intake is closed and empty."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import StatefulSourcePartition
from bytewax.testing import TestingSink, run_main

from bench.payloads import payload
from connectors.intake_source import IntakeSource
from telflow import Signal, TelemetryBatch
from telflow.codec import decode_many
from telflow.delivery.intake import MemoryIntake, RequestMeta
from tests.same import assert_same_batch


def request(seed: int = 0, signal: Signal = Signal.LOGS) -> RequestMeta:
    return RequestMeta(None, signal, "protobuf", 0, payload=payload(signal, 3, seed))


def test_a_dataflow_gets_all_requests_in_order_and_drains() -> None:
    """Requests accepted before, while and just before closing all arrive; then the flow ends."""
    intake = MemoryIntake()
    sent = [request(seed) for seed in range(6)]
    for one in sent[:2]:
        intake.accept(one)

    def feed() -> None:
        for one in sent[2:]:
            intake.accept(one)
        intake.close()

    got: list[TelemetryBatch] = []
    flow = Dataflow("drain")
    op.output("out", op.input("in", flow, IntakeSource(intake)), TestingSink(got))
    thread = threading.Thread(target=feed)
    thread.start()
    run_main(flow)
    thread.join()
    assert_same_batch(TelemetryBatch.concat(got), decode_many([one.payload for one in sent], Signal.LOGS))


def test_an_intake_without_positions_leaves_the_state_as_it_is() -> None:
    """So that a run without a log between two with one does not lose the place in it."""
    intake = MemoryIntake()
    intake.accept(request())
    source = IntakeSource(intake, partition="intake-3", wait_s=0)
    assert source.list_parts() == ["intake-3"]
    part = source.build_part("in", "intake-3", 41)
    assert len(list(part.next_batch())) == 1
    assert part.snapshot() == 41
    assert part.next_batch() == []


def test_the_source_asks_to_be_called_again_at_once() -> None:
    """The engine's timer never delays a batch."""
    part = IntakeSource(MemoryIntake(), wait_s=0).build_part("in", "intake", None)
    part.next_batch()
    awake = part.next_awake()
    assert awake is not None
    assert awake < datetime(2000, 1, 1, tzinfo=UTC)


def test_an_epoch_takes_no_more_than_its_budget() -> None:
    """When the budget is spent the source rests until the next snapshot."""
    intake = MemoryIntake()
    for signal in (Signal.LOGS, Signal.TRACES):
        intake.accept(request(signal=signal))
    source = IntakeSource(intake, wait_s=0, max_bytes_per_poll=1, epoch_budget_bytes=1)
    part = source.build_part("in", "intake", None)
    assert len(list(part.next_batch())) == 1
    assert part.next_batch() == []
    assert part.next_awake() is None
    part.snapshot()
    assert len(list(part.next_batch())) == 1


def test_the_end_of_a_closed_intake_is_the_end_of_the_source() -> None:
    """StopIteration, which is how a drain reaches the engine."""
    intake = MemoryIntake()
    part = IntakeSource(intake, wait_s=0).build_part("in", "intake", None)
    intake.close()
    with pytest.raises(StopIteration):
        part.next_batch()


def test_what_others_have_left_is_emptied_and_ends_when_it_may_be_erased() -> None:
    """A partition of a worker that is no more: read, kept until its last position is committed, then over."""
    own, left = MemoryIntake(), MemoryIntake()
    left.accept(request())
    left.close()
    committed = []
    source = IntakeSource(
        own, partition="intake@1", wait_s=0, others={"intake@2": left}, on_committed=lambda: committed.append(1)
    )
    assert source.list_parts() == ["intake@1", "intake@2"]
    mine, other = (source.build_part("in", part, None) for part in source.list_parts())
    assert len(list(other.next_batch())) == 1
    with pytest.raises(StopIteration):
        other.next_batch()
    assert not committed
    mine.next_batch()
    mine.snapshot()
    assert not committed
    mine.next_batch()
    assert committed == [1]


def test_beside_peers_a_source_waits_quietly_for_their_ends_of_epochs() -> None:
    """Else the engine would go round without a pause; before an epoch's end it asks to be called again at once."""
    intake = MemoryIntake()

    def started(epoch_s: float) -> StatefulSourcePartition[TelemetryBatch, int]:
        return IntakeSource(intake, wait_s=0, epoch_s=epoch_s).build_part("in", "intake", None)

    def pause_s(batches: int) -> float:
        before = datetime.now(UTC)
        assert len(list(part.next_batch())) == batches
        awake = part.next_awake()
        assert awake is not None
        return max(0.0, (awake - before).total_seconds())

    part = started(3600)
    assert pause_s(0) == 0
    part = started(0.3)
    threading.Event().wait(0.3)
    assert pause_s(0) >= 0.9 * 0.25 * 0.3  # a quarter of an epoch is taken for the first wait
    part.snapshot()
    threading.Event().wait(0.4)  # which in truth is longer, as is the next epoch
    assert pause_s(0) >= 0.25 * 0.3  # without data by the longest, but no longer than that
    part.snapshot()
    threading.Event().wait(0.4)
    intake.accept(request())
    assert pause_s(1) >= 0.9 * 0.25 * 0.3  # with data by the shortest
