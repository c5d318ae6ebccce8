"""Requests that wait for one another are decoded together, and each gets its own answer."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest

from connectors.otlp.protocol import ExportRequest, Refusal
from connectors.otlp.reception import Reception
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger
from telflow.codec import Encoding
from telflow.delivery.intake import BATCH_OVERHEAD_BYTES, MemoryIntake, RequestMeta
from tests.connectors.otlp.conftest import request_message
from tests.oracle import batch_from_message


class Gate(MemoryIntake):
    """An intake whose first append waits until it is let through."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        super().__init__(max_bytes)
        self.entered, self.let_through = threading.Event(), threading.Event()
        self.appended: list[tuple[TelemetryBatch, tuple[RequestMeta, ...]]] = []
        self.fault: Exception | None = None

    def append(self, batch: TelemetryBatch, *requests: RequestMeta) -> None:
        first = not self.entered.is_set()
        self.entered.set()
        if first:
            assert self.let_through.wait(30)
        elif self.fault:
            raise self.fault
        super().append(batch, *requests)
        self.appended.append((batch, requests))


def request(
    text: str, tenant: str = "acme", encoding: Encoding = "protobuf", body: bytes | None = None
) -> ExportRequest:
    payload = request_message(Signal.LOGS, 2, text).SerializeToString() if body is None else body
    return ExportRequest(Signal.LOGS, encoding, payload, tenant, "peer")


def run_together(intake: Gate, *following: ExportRequest) -> tuple[list[Any], Ledger]:
    """Handle a first request and, while it is held up, the following ones; returns their outcomes in order."""
    ledger = Ledger()
    reception = Reception(intake, ledger=ledger, now_unix_nano=lambda: 42)
    outcomes: list[Any] = [None] * (1 + len(following))

    def handle(at: int, what: ExportRequest) -> None:
        try:
            outcomes[at] = reception.handle(what)
        except Exception as error:  # noqa: BLE001 - the outcome is what the test is about
            outcomes[at] = error

    threads = [threading.Thread(target=handle, args=(0, request("first")))]
    threads[0].start()
    assert intake.entered.wait(30)
    lane = reception._lanes[Signal.LOGS, "protobuf"]
    for at, what in enumerate(following, 1):
        threads.append(threading.Thread(target=handle, args=(at, what)))
        threads[-1].start()
        while len(lane._queue) < at and threads[-1].is_alive():
            time.sleep(0.001)
    intake.let_through.set()
    for thread in threads:
        thread.join(30)
    return outcomes, ledger


def test_what_waits_is_decoded_together_in_order() -> None:
    """Three requests that came while one was being handled are one batch; tenants stay apart; all are acknowledged."""
    intake = Gate()
    outcomes, ledger = run_together(intake, request("a"), request("b", "beta"), request("c"))
    assert outcomes == [b"", b"", b"", b""]
    assert [len(requests) for _, requests in intake.appended] == [1, 3]
    batch, requests = intake.appended[1]
    expected = [batch_from_message(request_message(Signal.LOGS, 2, t), Signal.LOGS) for t in "abc"]
    assert batch.records["body"].equals(TelemetryBatch.concat(expected).records["body"])
    assert [r.tenant for r in requests] == ["acme", "beta", "acme"]
    assert {r.arrival_time_unix_nano for r in requests} == {42}
    assert {row.tenant: row.count for row in ledger.rows()} == {"acme": 6, "beta": 2}


def test_a_bad_payload_among_them_is_refused_alone() -> None:
    """The others are accepted as if it had not been there."""
    intake = Gate()
    outcomes, ledger = run_together(intake, request("a"), request("", body=b"\xff"), request("c"))
    assert [outcomes[at] for at in (0, 1, 3)] == [b"", b"", b""]
    assert isinstance(outcomes[2], Refusal)
    assert outcomes[2].code is grpc.StatusCode.INVALID_ARGUMENT
    assert "payloads[" not in outcomes[2].message
    assert sum(row.count for row in ledger.rows()) == 6


def test_an_intake_without_room_refuses_all_of_them() -> None:
    """Nothing is acknowledged that was not taken."""
    intake = Gate(max_bytes=BATCH_OVERHEAD_BYTES + 4000)
    big = "x" * 1400
    outcomes, ledger = run_together(intake, request(big), request(big))
    assert outcomes[0] == b""
    assert [o.code for o in outcomes[1:]] == [grpc.StatusCode.UNAVAILABLE] * 2
    assert sum(row.count for row in ledger.rows()) == 2


@pytest.mark.parametrize("bad", [False, True])
def test_a_fault_of_ours_reaches_every_sender_and_the_lane_goes_on(bad: bool) -> None:
    """An unexpected error is raised in each waiting thread, and later requests are handled."""
    intake = Gate()
    intake.fault = RuntimeError("broken")
    following = [request("a"), request("", body=b"\xff") if bad else request("b")]
    outcomes, _ = run_together(intake, *following)
    assert isinstance(outcomes[1], RuntimeError)
    assert isinstance(outcomes[2], Refusal if bad else RuntimeError)
    intake.fault = None
    assert Reception(intake).handle(request("later")) == b""


def test_no_more_than_four_mebibytes_are_decoded_together() -> None:
    """Requests of 6 MiB go alone, and the small one after them is not added to the second."""
    intake = Gate()
    large = request("x" * (3 << 20))
    outcomes, _ = run_together(intake, large, large, request("small"))
    assert outcomes == [b"", b"", b"", b""]
    assert [len(requests) for _, requests in intake.appended] == [1, 1, 1, 1]


def test_signals_and_encodings_do_not_wait_for_each_other() -> None:
    """While a protobuf request is held up, a JSON one passes."""
    intake = Gate()
    reception = Reception(intake)
    thread = threading.Thread(target=reception.handle, args=(request("first"),))
    thread.start()
    assert intake.entered.wait(30)
    assert (
        reception.handle(request("", encoding="json", body=b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}'))
        == b""
    )
    assert len(intake.appended) == 1
    intake.let_through.set()
    thread.join()
    assert len(intake.appended) == 2


def test_requests_without_records_are_acknowledged_and_not_handed_over() -> None:
    """An empty request is a success and nothing more."""
    intake = Gate()
    assert Reception(intake).handle(request("", body=b"")) == b""
    assert not intake.entered.is_set()
