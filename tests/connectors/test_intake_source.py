"""The intake's source: everything appended crosses the dataflow, which ends when the intake is closed and empty."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from connectors.intake_source import IntakeSource
from telflow import Signal, TelemetryBatch
from telflow.delivery.intake import MemoryIntake, RequestMeta

META = RequestMeta(None, Signal.LOGS, "protobuf", 0)
EMPTY = TelemetryBatch.empty(Signal.LOGS)


def test_a_dataflow_gets_all_batches_in_order_and_drains() -> None:
    """Batches appended before, while and just before closing all arrive; then the flow ends."""
    intake = MemoryIntake()
    sent = [TelemetryBatch.empty(signal) for signal in (*Signal, *Signal)]
    for batch in sent[:2]:
        intake.append(batch, META)

    def feed() -> None:
        for batch in sent[2:]:
            intake.append(batch, META)
        intake.close()

    got: list[TelemetryBatch] = []
    flow = Dataflow("drain")
    op.output("out", op.input("in", flow, IntakeSource(intake)), TestingSink(got))
    thread = threading.Thread(target=feed)
    thread.start()
    run_main(flow)
    thread.join()
    assert list(map(id, got)) == list(map(id, sent))


def test_the_partition_counts_what_it_handed_over() -> None:
    """Its snapshot is the number of batches taken, continued after a resume."""
    intake = MemoryIntake()
    intake.append(EMPTY, META)
    source = IntakeSource(intake, partition="intake-3", wait_s=0)
    assert source.list_parts() == ["intake-3"]
    part = source.build_part("in", "intake-3", 41)
    assert part.next_batch() == [EMPTY]
    assert part.snapshot() == 42
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
    batch = _one_record()
    for _ in range(2):
        intake.append(batch, META)
    source = IntakeSource(intake, wait_s=0, max_bytes_per_poll=1, epoch_budget_bytes=batch.num_bytes)
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


def _one_record() -> TelemetryBatch:
    from tests.oracle import REQUESTS, batch_from_message  # noqa: PLC0415

    request = REQUESTS[Signal.LOGS]()
    request.resource_logs.add().scope_logs.add().log_records.add()  # type: ignore[attr-defined]
    return batch_from_message(request, Signal.LOGS)
