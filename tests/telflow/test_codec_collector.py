"""A collector gives what decoding all good payloads together gives, whatever bad ones come between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.payloads import payload
from telflow import Signal
from telflow.codec import Collector, Limits, decode, decode_many, encode
from telflow.errors import DecodeError
from telflow.governance.exactness import is_exact
from tests.same import assert_same_batch
from tests.strategies import mutations, requests, thorough
from tests.wire import delimited

SIGNALS = pytest.mark.parametrize("signal", Signal)
_LATE_FAULT = b"\x0a\x06\x1a\x04name\x0a\x03\x1a\x01\xff"  # a schema URL, then one that is not UTF-8


def outcome(read: Callable[[], Any]) -> Any:
    """What reading gives, or the words with which it is refused."""
    try:
        return read()
    except DecodeError as error:
        return str(error)


@SIGNALS
def test_bad_payloads_leave_no_trace(signal: Signal) -> None:
    """Payloads damaged anywhere, among good ones in any order: refused as `decode` does, the rest as `decode_many`."""

    @st.composite
    def payloads(draw: st.DrawFn) -> list[bytes]:
        good = [request.SerializeToString() for request in draw(st.lists(requests(signal), min_size=1, max_size=3))]
        bad = [draw(mutations(draw(st.sampled_from(good)))) for _ in range(draw(st.integers(0, 3)))]
        return draw(st.permutations([*good, *bad, *([good[0] + _LATE_FAULT] if draw(st.booleans()) else [])]))

    @thorough(60)
    @given(payloads(), st.lists(st.sampled_from([None, "a", "b"]), min_size=7, max_size=7))
    def check(found: list[bytes], owners: list[str | None]) -> None:
        collector = Collector(signal)
        kept: list[bytes] = []
        tenants: list[str | None] = []
        for data, tenant in zip(found, owners, strict=False):
            alone = outcome(partial(decode, data, signal))
            if isinstance(alone, str):
                assert outcome(partial(collector.add, data, tenant=tenant)) == alone
                continue
            kept.append(data)
            tenants.append(tenant)
            collected = collector.add(data, tenant=tenant)
            assert collected is not None
            assert collected.added == alone.num_rows
            assert collected.rows == sum(decode(one, signal).num_rows for one in kept)
        batch = collector.finish()
        if not kept:
            assert batch is None or batch.num_rows == 0
            return
        assert batch is not None
        expected = decode_many(kept, signal, tenants=tenants)
        assert_same_batch(batch, expected)
        assert batch.unknown_fields == expected.unknown_fields
        assert collector.finish() is None
        # What was refused is not in the buffers either, as `is_whole` promises.
        assert batch.is_whole
        assert all(is_exact(table) for table in (batch.records, batch.resources, batch.scopes))

    check()


@SIGNALS
def test_a_batch_begins_anew_after_it_was_taken(signal: Signal) -> None:
    """Nothing of a finished batch is in the next one, and both are whole."""
    first, second = payload(signal, 60, 1), payload(signal, 40, 2)
    collector = Collector(signal)
    collector.add(first, tenant="a")
    one = collector.finish()
    collector.add(second)
    two = collector.finish()
    assert one is not None
    assert two is not None
    assert_same_batch(one, decode(first, signal, tenant="a"))
    assert_same_batch(two, decode(second, signal))


@SIGNALS
def test_protobuf_and_json_grow_the_same_batch(signal: Signal) -> None:
    """Requests in both encodings stand in one batch."""
    data = payload(signal, 30, 3)
    collector = Collector(signal)
    collector.add(data)
    collector.add(encode(decode(data, signal), "json"), "json")
    batch = collector.finish()
    assert batch is not None
    assert_same_batch(batch, decode_many([data, data], signal))


def test_threads_lose_nothing() -> None:
    """Many threads add while one takes: every record is in exactly one batch."""
    data = payload(Signal.LOGS, 50, 4)
    collector = Collector(Signal.LOGS)
    taken: list[int] = []
    done = threading.Event()

    def take() -> None:
        while True:
            last = done.is_set()
            batch = collector.finish()
            taken.append(0 if batch is None else batch.num_rows)
            if last:
                return

    def add() -> None:
        for _ in range(40):
            collector.add(data)

    taker = threading.Thread(target=take)
    adders = [threading.Thread(target=add) for _ in range(4)]
    for thread in [taker, *adders]:
        thread.start()
    for thread in adders:
        thread.join()
    done.set()
    taker.join()
    assert sum(taken) == 4 * 40 * 50


def test_limits_hold_for_each_payload_by_itself() -> None:
    """A payload that would be taken alone is taken after any number of others; one over the limit is refused."""
    data = payload(Signal.METRICS, 20, 5)
    exact = Limits(expansion_bytes=_least_expansion(data), payload_bytes=len(data))
    collector = Collector(Signal.METRICS, limits=exact)
    for _ in range(5):
        collector.add(data)
    with pytest.raises(DecodeError, match="columns over"):
        collector.add(_dense(len(data)))
    with pytest.raises(DecodeError, match="the limit is"):
        collector.add(data + b"\x0a\x00")
    batch = collector.finish()
    assert batch is not None
    assert batch.num_rows == 100


@SIGNALS
def test_too_little_room_is_not_the_fault_of_the_request(signal: Signal) -> None:
    """It is not added, nothing of it stays, and with more room it is added."""
    data = payload(signal, 20, 6)
    collector = Collector(signal)
    assert collector.add(data, room_bytes=1000) is None
    assert collector.add(data, room_bytes=1 << 20) is not None
    batch = collector.finish()
    assert batch is not None
    assert_same_batch(batch, decode(data, signal))


def _dense(size: int) -> bytes:
    """A request of about `size` bytes with as many empty data points as fit."""
    message = b"\x0a\x00" * ((size - 40) // 2)
    for tag in (0x2A, 0x12, 0x12, 0x0A):  # Gauge in Metric in ScopeMetrics in ResourceMetrics
        message = bytes([tag]) + delimited(message)
    return message


def _least_expansion(data: bytes) -> int:
    low, high = 0, 1 << 24
    while low < high:
        middle = (low + high) // 2
        try:
            decode(data, Signal.METRICS, limits=Limits(expansion_bytes=middle))
        except DecodeError:
            low = middle + 1
        else:
            high = middle
    return low
