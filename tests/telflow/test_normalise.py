"""native/src/{descriptor,wire,normalise}.rs: reads irregular protobuf exactly as the official library does."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError as OfficialError
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from telflow import _native
from telflow.errors import DecodeError
from telflow.schema import Signal
from tests.oracle import REQUESTS, canonical
from tests.strategies import mutations, requests, thorough
from tests.wire import delimited, soup

SIGNALS = pytest.mark.parametrize("signal", list(Signal))
_TYPES = {getattr(FieldDescriptor, name): name[5:].lower() for name in dir(FieldDescriptor) if name.startswith("TYPE_")}
_SCOPE = "resource_spans[0].scope_spans[0]."
_IDS = {"trace_id", "span_id", "parent_span_id"}
_PROTO = "opentelemetry.proto."
_DELIMITED = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE}


def official(signal: Signal, payload: bytes) -> bytes | None:
    """Canonical bytes of what the official library reads, None where it refuses."""
    request: Any = REQUESTS[signal]()
    try:
        request.ParseFromString(payload)
    except OfficialError:
        return None
    return canonical(request)


def ours(signal: Signal, payload: bytes) -> bytes | None:
    try:
        return _native.normalise(signal, payload)[0]
    except DecodeError:
        return None


def _reachable(descriptor: Any, found: dict[str, Any]) -> None:
    if descriptor.full_name not in found:
        found[descriptor.full_name] = descriptor
        for field in descriptor.fields:
            if field.message_type:
                _reachable(field.message_type, found)


def _label(field: Any) -> str:
    if field.is_repeated:
        return "repeated"
    if field.containing_oneof and not field.containing_oneof.name.startswith("_"):
        return "oneof"
    return "explicit" if field.has_presence else "implicit"


def test_table_equals_the_installed_opentelemetry_proto() -> None:
    """Every field of every reachable message is in the native table, no other, and its assumptions hold."""
    found: dict[str, Any] = {}
    for request in REQUESTS.values():
        _reachable(request.DESCRIPTOR, found)
    expected = set()
    for name, descriptor in found.items():
        assert sum(not o.name.startswith("_") for o in descriptor.oneofs) <= 1, name
        for field in descriptor.fields:
            kind = _TYPES[field.type]
            if field.message_type:
                kind = field.message_type.full_name.removeprefix(_PROTO)
            elif field.name in _IDS:
                kind = "id"
            row = (name.removeprefix(_PROTO), field.number, field.name, field.json_name, kind, _label(field))
            expected.add(row)
            assert not field.is_repeated or field.type in _DELIMITED or field.is_packed, row
    assert set(_native.otlp_fields()) == expected


@SIGNALS
@thorough(15)
@given(data=st.data())
def test_any_request_is_read_as_the_official_library_reads_it(signal: Signal, data: st.DataObject) -> None:
    """Canonical bytes equal the official library's, and no known field is counted as unknown."""
    request = data.draw(requests(signal))
    assert _native.normalise(signal, request.SerializeToString()) == (canonical(request), 0)


@SIGNALS
@thorough(30)
@given(data=st.data())
def test_mutated_bytes_are_refused_or_read_alike(signal: Signal, data: st.DataObject) -> None:
    """What the official library refuses is refused, what it accepts means the same."""
    payload = data.draw(mutations(data.draw(requests(signal)).SerializeToString()))
    assert ours(signal, payload) == official(signal, payload)


@SIGNALS
@thorough(30)
@given(data=st.data())
def test_irregular_wire_forms_are_refused_or_read_alike(signal: Signal, data: st.DataObject) -> None:
    """Merged messages, overwritten oneofs, split and unpacked lists, groups, overlong varints: as officially read."""
    payload = data.draw(soup(REQUESTS[signal].DESCRIPTOR))
    assert ours(signal, payload) == official(signal, payload)


@pytest.mark.parametrize("levels", [98, 99, 100, 101, 102, 150])
def test_depth_limit_is_the_official_one(levels: int) -> None:
    """100 levels of messages or groups below the request are read, one more is refused."""
    nested = b""
    for level in range(levels, 4, -1):  # an ArrayValue at odd levels, an AnyValue at even ones
        nested = (b"\x2a" if level % 2 else b"\x0a") + delimited(nested)
    in_key_value = b"\x0a" + delimited(b"\x12" + delimited(nested))
    as_messages = b"\x0a" + delimited(b"\x0a" + delimited(in_key_value))
    as_groups = b"\x9b\x06" * levels + b"\x9c\x06" * levels
    for payload in (as_messages, as_groups):
        assert ours(Signal.TRACES, payload) == official(Signal.TRACES, payload)
        assert (ours(Signal.TRACES, payload) is None) == (levels > 100)


@pytest.mark.parametrize(
    ("payload", "reason", "offset", "path"),
    [
        (b"\x0a", "truncated varint", 1, "resource_spans[0]"),
        (b"\x0a\x05\x0a", "length 5 beyond the end of its message", 1, "resource_spans[0]"),
        (b"\x00\x01", "invalid field number", 0, ""),
        (b"\x0f", "invalid wire type 7", 1, ""),
        (b"\x0c", "end of a group that was not begun", 0, ""),
        (b"\xa3\x06", "group without an end", 2, ""),
        (b"\x0a\x00\x0a\x04\x1a\x02a\xff", "invalid UTF-8", 7, "resource_spans[1].schema_url"),
        (
            b"\x0a\x04\x12\x02\x0a\x01",
            "length 1 beyond the end of its message",
            5,
            _SCOPE + "scope",
        ),
        (
            b"\x0a\x06\x12\x04\x12\x02\x39\x00",
            "truncated number",
            7,
            _SCOPE + "spans[0].start_time_unix_nano",
        ),
        (b"\xff" * 11, "varint longer than 10 bytes", 0, ""),
    ],
)
def test_refusal_says_why_and_where(payload: bytes, reason: str, offset: int, path: str) -> None:
    """The error names reason, byte offset and field path."""
    assert official(Signal.TRACES, payload) is None
    with pytest.raises(DecodeError) as caught:
        _native.normalise(Signal.TRACES, payload)
    assert (caught.value.reason, caught.value.offset, caught.value.path) == (reason, offset, path)


def test_unknown_fields_are_counted() -> None:
    """A field number nobody knows, a foreign wire type and a whole group each count as one."""
    payload = b"\xa0\x06\x01" + b"\x08\x01" + b"\xa3\x06\xa0\x06\x01\xa4\x06" + b"\x0a\x03\xa2\x06\x00"
    assert _native.normalise(Signal.TRACES, payload) == (b"\x0a\x00", 4)


def test_unknown_signal_is_refused() -> None:
    """A signal the table does not know is an error of the caller, not of the data."""
    with pytest.raises(ValueError, match='expected traces, metrics or logs, got "profiles"'):
        _native.normalise("profiles", b"")


def test_oracle_refuses_something() -> None:
    """The comparisons above are not vacuous: the oracle does tell good from bad."""
    message: Message = REQUESTS[Signal.LOGS]()
    assert official(Signal.LOGS, message.SerializeToString()) == b""
    assert official(Signal.LOGS, b"\x0a") is None
