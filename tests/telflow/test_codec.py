"""The codec against the official protobuf library as oracle: the same bytes are refused, the others mean the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow import Signal, schema
from telflow.codec import Limits, decode, decode_many
from tests.oracle import batch_from_message
from tests.same import assert_same_batch
from tests.strategies import requests, thorough


@pytest.mark.parametrize("signal", Signal)
def test_decode_reads_what_the_official_library_reads(signal: Signal) -> None:
    """Any message the official library can write becomes the batch that its own reading gives."""

    @thorough(60)
    @given(requests(signal))
    def check(request: Any) -> None:
        assert_same_batch(decode(request.SerializeToString(), signal), batch_from_message(request, signal))

    check()


@pytest.mark.parametrize("signal", Signal)
def test_decode_many_is_concatenation_with_shared_places(signal: Signal) -> None:
    """Several payloads give the batch of the one payload they form when put together; tenants keep resources apart."""

    @thorough(20)
    @given(st.lists(requests(signal), max_size=3))
    def check(found: list[Any]) -> None:
        payloads = [request.SerializeToString() for request in found]
        assert_same_batch(decode_many(payloads, signal), decode(b"".join(payloads), signal))
        tenants = [None, "a", "b"][: len(payloads)]
        split = decode_many(payloads, signal, tenants=tenants)
        rows = [decode(payload, signal).resources.num_rows for payload in payloads]
        assert split.resources["tenant"].to_pylist() == [
            t for t, n in zip(tenants, rows, strict=True) for _ in range(n)
        ]

    check()


def test_the_schemas_of_rust_and_python_are_one() -> None:
    """native/src/schema.rs spells what telflow/schema.py says; the batch's constructor would refuse anything else."""
    for signal in Signal:
        batch = decode(b"", signal)
        assert batch.records.schema.equals(schema.RECORD_SCHEMAS[signal])
        assert batch.resources.schema.equals(schema.RESOURCES)
        assert batch.scopes.schema.equals(schema.SCOPES)


@pytest.mark.parametrize("depth", [9, 101])
def test_limits_say_what_is_allowed(depth: int) -> None:
    """A depth no request fits in, or beyond the official library's, is refused."""
    with pytest.raises(ValueError, match="depth: expected 10 to 100"):
        Limits(depth=depth)
