"""Messages to batches: the good ones all and in order, the bad ones told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.decoding import Headers, decode_values, tenant_from
from telflow.codec import Limits, encode
from telflow.errors import DecodeError
from telflow.schema import Signal
from tests.numbered_logs import logs

BAD = (b"\x0a\xff", b"!", b"\x0a\x05\x1a\x03\xff\xff\xff")


@given(st.lists(st.one_of(st.none(), st.sampled_from(BAD)), max_size=12))
def test_bad_values_do_not_touch_the_good(pattern: list[bytes | None]) -> None:
    """Whatever is bad and wherever it stands, every good record comes out once, in order, under its tenant."""
    values = [encode(logs([place])) if bad is None else bad for place, bad in enumerate(pattern)]
    tenants = [f"t{place}" for place in range(len(values))]
    decoded = decode_values(values, Signal.LOGS, "protobuf", tenants)
    good = [place for place, bad in enumerate(pattern) if bad is None]
    assert [n for batch in decoded.batches for n in batch.column("flags").to_pylist()] == good
    assert [t for batch in decoded.batches for t in batch.tenants().to_pylist()] == [f"t{n}" for n in good]
    assert [failure.index for failure in decoded.failures] == [n for n, bad in enumerate(pattern) if bad is not None]
    assert not any("payloads[" in failure.reason for failure in decoded.failures)


def test_values_that_are_too_much_together_are_decoded_apart() -> None:
    """The limit on memory is for one call; messages within it are not refused for the company they keep."""
    values = [encode(logs(range(10))) for _ in range(6)]
    decoded = decode_values(values, Signal.LOGS, "protobuf", [None] * 6, limits=Limits(expansion_bytes=5000))
    assert not decoded.failures
    assert sum(batch.num_rows for batch in decoded.batches) == 60
    assert len(decoded.batches) > 1


@pytest.mark.parametrize(
    ("headers", "tenant"),
    [
        (None, "default"),
        ([], "default"),
        ([("other", b"x")], "default"),
        ([("tenant", b"acme"), ("tenant", b"globex")], "globex"),
        ([("tenant", "acme")], "acme"),
        ({"tenant": b"acme"}, "acme"),
    ],
)
def test_the_tenant_is_that_of_the_last_header(headers: Headers | None, tenant: str) -> None:
    """Without one it is the default; without a header's name headers are not looked at."""
    assert tenant_from(headers, "tenant", "default") == tenant
    assert tenant_from(headers, None, "default") == "default"


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"x" * 257, b"a\nb"])
def test_a_header_that_is_no_name_is_an_error(value: bytes | None) -> None:
    """Nobody's data becomes the default tenant's because its name was damaged."""
    with pytest.raises(DecodeError, match="tenant header"):
        tenant_from([("tenant", value)], "tenant", "default")
