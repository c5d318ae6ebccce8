"""The intake: bounded, in order, and nothing acknowledged is lost when it closes."""

from __future__ import annotations

import threading
import time

import pytest

from telflow import Signal, TelemetryBatch
from telflow.delivery.intake import BATCH_OVERHEAD_BYTES, MemoryIntake, Overloaded, RequestMeta
from tests.oracle import REQUESTS, batch_from_message

META = RequestMeta("acme", Signal.LOGS, "protobuf", 0)


def _batch(text: str = "hello") -> TelemetryBatch:
    request = REQUESTS[Signal.LOGS]()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = text  # type: ignore[attr-defined]
    return batch_from_message(request, Signal.LOGS, "acme")


def test_batches_are_taken_in_order_of_arrival_and_free_their_room() -> None:
    """First in, first out, and an emptied intake holds nothing."""
    intake = MemoryIntake(1 << 20)
    batches = [_batch(str(i)) for i in range(5)]
    for batch in batches:
        intake.append(batch, META)
    assert intake.held_bytes > 0
    assert intake.take(timeout_s=0, max_bytes=1 << 20) == batches
    assert intake.held_bytes == 0


def test_beyond_its_limit_the_intake_refuses_and_keeps_what_it_has() -> None:
    """The hard limit: Overloaded with a retry hint, and room again after a take."""
    probe = MemoryIntake(1 << 30)
    probe.append(_batch(), META)
    intake = MemoryIntake(probe.held_bytes, retry_after_s=2.5)
    intake.append(_batch(), META)
    with pytest.raises(Overloaded, match="memory budget") as refused:
        intake.append(_batch(), META)
    assert refused.value.retry_after_s == 2.5
    assert refused.value.retryable
    with pytest.raises(Overloaded):
        intake.admit(1)
    assert len(intake.take(timeout_s=0, max_bytes=1)) == 1
    intake.admit(1)
    intake.append(_batch(), META)


def test_take_stops_before_its_byte_limit_but_always_gives_one() -> None:
    """A batch larger than the limit is still handed over, alone."""
    intake = MemoryIntake(1 << 20)
    for _ in range(3):
        intake.append(_batch(), META)
    one = _batch().num_bytes
    assert len(intake.take(timeout_s=0, max_bytes=1)) == 1
    assert len(intake.take(timeout_s=0, max_bytes=2 * one)) == 2


def test_a_waiting_take_is_woken_by_an_append() -> None:
    """Data does not wait for the end of the source's wait."""
    intake = MemoryIntake(1 << 20)
    taken: list[TelemetryBatch] = []
    thread = threading.Thread(target=lambda: taken.extend(intake.take(timeout_s=60, max_bytes=1 << 20)))
    thread.start()
    time.sleep(0.01)
    intake.append(_batch(), META)
    thread.join(timeout=30)
    assert len(taken) == 1


def test_an_empty_intake_gives_nothing_after_the_wait() -> None:
    """An idle source gets an empty list, not an error."""
    intake = MemoryIntake(1 << 20)
    assert intake.take(timeout_s=0.001, max_bytes=1) == []
    assert not intake.drained


def test_a_closed_intake_refuses_new_data_and_gives_out_the_old() -> None:
    """Closing loses nothing that was acknowledged."""
    intake = MemoryIntake(1 << 20)
    intake.append(_batch(), META)
    intake.close()
    with pytest.raises(Overloaded, match="shutting down"):
        intake.append(_batch(), META)
    assert not intake.drained
    assert len(intake.take(timeout_s=1, max_bytes=1 << 20)) == 1
    assert intake.drained


def test_many_tiny_batches_are_bounded_too() -> None:
    """What a batch takes besides its data counts: room for a hundred is not room for a thousand empty ones."""
    intake = MemoryIntake(100 * (BATCH_OVERHEAD_BYTES + 1000))
    batch = _batch()
    for _ in range(100):
        intake.append(batch, META)
    spare = 100 * (1000 - batch.num_bytes)
    assert spare < BATCH_OVERHEAD_BYTES
    with pytest.raises(Overloaded):
        intake.append(batch, META)
