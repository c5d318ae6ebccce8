"""The intake: bounded, in order, and nothing acknowledged is lost when it closes."""

from __future__ import annotations

import threading
import time

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from bench.payloads import payload
from telflow import Signal, TelemetryBatch
from telflow.codec import decode_many
from telflow.delivery import intake as intake_module
from telflow.delivery.intake import BATCH_OVERHEAD_BYTES, MemoryIntake, Overloaded, RequestMeta
from telflow.errors import DecodeError
from tests.delivery import memory_at
from tests.same import assert_same_batch

ALL = 1 << 40


def request(seed: int = 0, *, signal: Signal = Signal.LOGS, tenant: str = "acme", records: int = 4) -> RequestMeta:
    return RequestMeta(tenant, signal, "protobuf", 0, payload=payload(signal, records, seed))


def rows(batches: list[TelemetryBatch]) -> int:
    return sum(batch.num_rows for batch in batches)


def test_requests_are_taken_in_order_of_arrival_and_free_their_room() -> None:
    """What came since the last take is one batch of each signal; an emptied intake holds nothing."""
    intake = MemoryIntake()
    requests = [request(i, tenant=tenant) for i, tenant in enumerate(("acme", "beta", "acme"))]
    assert [intake.accept(one) for one in requests] == [4, 4, 4]
    assert intake.accept(request(9, signal=Signal.TRACES)) == 4
    assert intake.held_bytes > 2 * BATCH_OVERHEAD_BYTES
    found = {batch.signal: batch for batch in intake.take(timeout_s=0, max_bytes=ALL)}
    tenants = [one.tenant for one in requests]
    assert_same_batch(found[Signal.LOGS], decode_many([r.payload for r in requests], Signal.LOGS, tenants=tenants))
    assert found[Signal.TRACES].num_rows == 4
    assert intake.held_bytes == 0
    assert intake.take(timeout_s=0, max_bytes=ALL) == []


def test_beyond_its_limit_the_intake_refuses_and_keeps_what_it_has() -> None:
    """The hard limit: Overloaded with a retry hint, and room again after a take."""
    probe = MemoryIntake()
    probe.accept(request())
    intake = MemoryIntake(probe.held_bytes, retry_after_s=2.5)
    intake.accept(request())
    with pytest.raises(Overloaded, match="memory budget") as refused:
        intake.accept(request())
    assert refused.value.retry_after_s == 2.5
    assert refused.value.retryable
    with pytest.raises(Overloaded):
        intake.admit(1)
    assert rows(intake.take(timeout_s=0, max_bytes=1)) == 4
    intake.admit(1)
    intake.accept(request())


def test_with_the_memory_of_the_process_spent_it_refuses_while_anything_waits() -> None:
    """The hard limit is the process's, whatever the intake itself holds; an empty one stops nobody for ever."""
    intake = MemoryIntake(memory=memory_at(0.99))
    for _ in range(3):
        intake.accept(request())
        with pytest.raises(Overloaded, match="memory budget") as refused:
            intake.accept(request())
        assert refused.value.retryable
        assert rows(intake.take(timeout_s=0, max_bytes=ALL)) == 4


def test_near_the_memory_of_the_process_it_holds_an_eighth() -> None:
    """The soft limit: there is no disk to go to, so it refuses earlier."""
    probe = MemoryIntake()
    probe.accept(request())
    intake = MemoryIntake(8 * probe.held_bytes, memory=memory_at(0.9))
    intake.accept(request())
    with pytest.raises(Overloaded):
        intake.accept(request())


def test_take_stops_before_its_byte_limit_but_always_gives_one() -> None:
    """A batch larger than the limit is still handed over, alone, and the others wait."""
    intake = MemoryIntake()
    for signal in Signal:
        intake.accept(request(signal=signal))
    assert len(intake.take(timeout_s=0, max_bytes=1)) == 1
    assert intake.held_bytes > 2 * BATCH_OVERHEAD_BYTES
    assert len(intake.take(timeout_s=0, max_bytes=ALL)) == 2
    assert intake.held_bytes == 0


def test_a_batch_grows_to_a_limit() -> None:
    """Under load many requests make few batches, none of which is without end, and no record is missing."""
    intake = MemoryIntake()
    for seed in range(20):
        intake.accept(request(seed % 3, records=1000))
    sizes = []
    while batches := intake.take(timeout_s=0, max_bytes=1):
        sizes += [batch.num_rows for batch in batches]
    assert sum(sizes) == 20_000
    assert max(sizes) <= 8192
    assert len(sizes) <= 4


def test_a_bad_request_is_refused_and_leaves_nothing() -> None:
    """The requests before and after it are whole."""
    intake = MemoryIntake()
    intake.accept(request(1))
    broken = request(2)
    with pytest.raises(DecodeError):
        intake.accept(RequestMeta("acme", Signal.LOGS, "protobuf", 0, payload=broken.payload[:-1]))
    intake.accept(request(3))
    (batch,) = intake.take(timeout_s=0, max_bytes=ALL)
    wanted = decode_many([request(1).payload, request(3).payload], Signal.LOGS, tenants=["acme"] * 2)
    assert_same_batch(batch, wanted)
    assert intake.held_bytes == 0


def test_requests_without_records_take_no_room_for_good() -> None:
    """Any number of envelopes with different resources and nothing in them is acknowledged and forgotten."""
    intake = MemoryIntake(1 << 20)
    for number in range(2000):
        message = ExportLogsServiceRequest()
        message.resource_logs.add().resource.attributes.add(key=f"key {number}")
        empty = message.SerializeToString()
        assert intake.accept(RequestMeta(None, Signal.LOGS, "protobuf", 0, payload=empty)) == 0
    assert intake.held_bytes == 0
    assert intake.take(timeout_s=0, max_bytes=ALL) == []


def test_a_waiting_take_is_woken_by_a_request() -> None:
    """Data does not wait for the end of the source's wait."""
    intake = MemoryIntake()
    taken: list[TelemetryBatch] = []
    thread = threading.Thread(target=lambda: taken.extend(intake.take(timeout_s=60, max_bytes=ALL)))
    thread.start()
    time.sleep(0.01)
    intake.accept(request())
    thread.join(timeout=30)
    assert rows(taken) == 4


def test_an_empty_intake_gives_nothing_after_the_wait() -> None:
    """An idle source gets an empty list, not an error."""
    intake = MemoryIntake()
    assert intake.take(timeout_s=0.001, max_bytes=1) == []
    assert not intake.drained


def test_a_closed_intake_refuses_new_data_and_gives_out_the_old() -> None:
    """Closing loses nothing that was acknowledged."""
    intake = MemoryIntake()
    intake.accept(request())
    intake.close()
    with pytest.raises(Overloaded, match="shutting down"):
        intake.accept(request())
    assert not intake.drained
    assert rows(intake.take(timeout_s=1, max_bytes=ALL)) == 4
    assert intake.drained


def test_many_threads_lose_nothing() -> None:
    """Eight senders and a taker at once: every accepted record is taken once, and the room is free in the end."""
    intake = MemoryIntake()
    one = request(records=100)
    taken: list[TelemetryBatch] = []

    def take() -> None:
        while not intake.drained:
            taken.extend(intake.take(timeout_s=0.001, max_bytes=1 << 20))

    def send() -> None:
        for _ in range(30):
            intake.accept(one)

    taker = threading.Thread(target=take)
    senders = [threading.Thread(target=send) for _ in range(8)]
    for thread in (taker, *senders):
        thread.start()
    for thread in senders:
        thread.join()
    intake.close()
    taker.join(60)
    assert rows(taken) == 8 * 30 * 100
    assert intake.held_bytes == 0


def test_a_batch_that_is_not_full_grows_while_the_source_lingers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The take ends when the batch is full, when the time is over, and at once when the intake is closed."""
    monkeypatch.setattr(intake_module, "_BATCH_ROWS", 12)
    intake = MemoryIntake()
    intake.accept(request())

    def more() -> None:
        for seed in (1, 2):
            time.sleep(0.05)
            intake.accept(request(seed))

    sender = threading.Thread(target=more)
    sender.start()
    assert [batch.num_rows for batch in intake.take(timeout_s=0, max_bytes=ALL, linger_s=30)] == [12]
    sender.join()
    intake.accept(request())
    assert rows(intake.take(timeout_s=0, max_bytes=ALL, linger_s=0.01)) == 4
    assert intake.take(timeout_s=0, max_bytes=ALL, linger_s=30) == []
    intake.accept(request())
    intake.close()
    assert rows(intake.take(timeout_s=30, max_bytes=ALL, linger_s=30)) == 4
