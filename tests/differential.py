"""One payload read by telflow and by the official library: both refuse it, or both read the same."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError as OfficialError

from telflow.batch import TelemetryBatch
from telflow.codec import decode, encode
from telflow.errors import DecodeError
from telflow.schema import Signal
from tests.oracle import REQUESTS, batch_from_message, normal_form
from tests.same import assert_same_batch

__all__ = ["check_same_reading"]


def check_same_reading(signal: Signal, payload: bytes, *, only_refusal: bool = False) -> bool:
    """Fail when the readings differ; return whether the payload was accepted.

    Args:
        signal: What the payload is meant to carry.
        payload: Any bytes.
        only_refusal: Compare acceptance only. The official library does not discard unknown fields below 64 levels, so
            the oracle's reading of deeper messages is no reference.
    """
    request = _official(signal, payload)
    batch = _ours(signal, payload)
    if isinstance(batch, DecodeError):
        assert request is None, f"only telflow refuses {payload.hex()}: {batch}"
        # At the end of the input at most, and never without saying what.
        assert batch.reason
        assert batch.offset is not None
        assert 0 <= batch.offset <= len(payload)
        return False
    assert request is not None, f"only telflow accepts {payload.hex()}"
    if not only_refusal:
        assert_same_batch(batch, batch_from_message(request, signal))
        written = REQUESTS[signal].FromString(encode(batch))
        assert normal_form(written, signal) == normal_form(request, signal), payload.hex()
    return True


def _official(signal: Signal, payload: bytes) -> Any:
    request: Any = REQUESTS[signal]()
    try:
        request.ParseFromString(payload)
    except OfficialError:
        return None
    return request


def _ours(signal: Signal, payload: bytes) -> TelemetryBatch | DecodeError:
    try:
        return decode(payload, signal)
    except DecodeError as error:
        return error
