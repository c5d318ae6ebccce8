"""Hypothesis strategies: whole OTLP requests, every field drawn from the installed opentelemetry-proto descriptors.

Because the descriptors drive it, a field that a later opentelemetry-proto adds is drawn without a change here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from telflow.schema import Signal
from tests.oracle import REQUESTS

__all__ = ["any_values", "key_values", "logs", "messages", "metrics", "mutations", "requests", "thorough", "traces"]

_KEYS = ["", "a", "a", "http.route", "service.name", "user.email", "ключ", "key\0with nul"]
_TEXTS = ["", "x", "GET /cart", "naïve ☃ 𝄞", "a\0b", "\ufeff", "\U0010ffff"]
_I32 = [0, 1, -1, 2**31 - 1, -(2**31), 127, 128, -128]
_I64 = [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1]
_U32 = [0, 1, 2**32 - 1, 2**31, 0x100, 0x3FF]
_U64 = [0, 1, 2**64 - 1, 2**63, 1_700_000_000_000_000_000]
# The one NaN that JSON knows; that protobuf keeps the others is a test of its own.
_DOUBLES = [0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1.5, -1e300, 5e-324]

_text = st.one_of(st.sampled_from(_TEXTS), st.text(st.characters(codec="utf-8"), max_size=12))
_bytes = st.one_of(st.sampled_from([b"", b"\x00", b"\xff\xfe", b"\x0a\x00"]), st.binary(max_size=12))


def _ids(width: int) -> st.SearchStrategy[bytes]:
    regular = st.sampled_from([bytes(width), bytes(range(1, width + 1)), b"\xff" * width])
    return st.one_of(regular, regular, st.binary(max_size=2 * width + 1))


def _numbers(edges: list[int], low: int, high: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from(edges), st.integers(low, high))


_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.one_of(st.sampled_from(_DOUBLES), st.floats(allow_nan=False)),
    FieldDescriptor.TYPE_INT32: _numbers(_I32, -(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: _numbers(_I32, -(2**31), 2**31 - 1),
    # Open enums (proto3): a number nobody has named yet is kept.
    FieldDescriptor.TYPE_ENUM: _numbers([0, 1, 2, 3, 24, *_I32], -(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: _numbers(_I64, -(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: _numbers(_I64, -(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: _numbers(_U32, 0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: _numbers(_U32, 0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: _numbers(_U64, 0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: _numbers(_U64, 0, 2**64 - 1),
}
_BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "key": st.one_of(st.sampled_from(_KEYS), _text),
    "trace_id": _ids(16),
    "span_id": _ids(8),
    "parent_span_id": _ids(8),
    "key_strindex": st.sampled_from([1, -1, 2**31 - 1]),
}
_RARE = {"key_strindex": 4}
_MAX_DEPTH = 3
_SIZES = st.sampled_from([1, 2, 1, 3, 0])
_ROOTS = {"resource_spans", "resource_metrics", "resource_logs", "scope_spans", "scope_metrics", "scope_logs"}
_ROOTS |= {"spans", "metrics", "log_records", "data_points"}


def _value_of(draw: st.DrawFn, field: FieldDescriptor, depth: int) -> Any:
    if field.message_type is not None:
        return _draw_message(draw, field.message_type, depth + (field.message_type.name == "AnyValue"))
    return draw(_BY_NAME[field.name] if field.name in _BY_NAME else _SCALARS[field.type])


def _wanted(draw: st.DrawFn, descriptor: Descriptor, depth: int) -> list[FieldDescriptor]:
    """The fields to set: those a bit mask names, at most one member of each oneof, and fewer of the rare ones."""
    choices = [o for o in descriptor.oneofs if len(o.fields) > 1]
    alternatives = {f.name for o in choices for f in o.fields}
    single = [f for f in descriptor.fields if f.name not in alternatives]
    mask = draw(st.integers(0, 2 ** len(single) - 1))
    chosen = [f for i, f in enumerate(single) if mask >> i & 1 or f.name in _ROOTS]
    chosen = [f for f in chosen if f.name not in _RARE or draw(st.integers(0, _RARE[f.name])) == 1]
    for choice in choices:
        members = [f for f in choice.fields if f.message_type is None or depth < _MAX_DEPTH]
        number = draw(st.integers(0, 4 * len(members)))  # now and then nothing is set
        chosen += members[number % len(members) :][:1] if number else []
    return chosen


def _draw_message(draw: st.DrawFn, descriptor: Descriptor, depth: int) -> Message:
    message: Any = message_factory.GetMessageClass(descriptor)()
    for field in _wanted(draw, descriptor, depth):
        if field.is_repeated:
            target = getattr(message, field.name)
            for _ in range(draw(_SIZES if field.name in _ROOTS else st.integers(1, 2))):
                value = _value_of(draw, field, depth)
                target.append(value)
        elif field.message_type is not None:
            # CopyFrom an empty message also marks it present: absent and empty differ.
            getattr(message, field.name).SetInParent()
            getattr(message, field.name).CopyFrom(_value_of(draw, field, depth))
        else:
            setattr(message, field.name, _value_of(draw, field, depth))
    return message  # type: ignore[no-any-return]


@st.composite
def messages(draw: st.DrawFn, kind: type[Message]) -> Any:
    """Any message of the class `kind` that the official library can build."""
    descriptor: Any = kind.DESCRIPTOR
    return _draw_message(draw, descriptor, 0)


def requests(signal: Signal) -> st.SearchStrategy[Any]:
    """Any Export*ServiceRequest of a signal."""
    return messages(REQUESTS[signal])


def traces() -> st.SearchStrategy[Any]:
    """Any ExportTraceServiceRequest."""
    return requests(Signal.TRACES)


def metrics() -> st.SearchStrategy[Any]:
    """Any ExportMetricsServiceRequest: all five kinds, and metrics without data."""
    return requests(Signal.METRICS)


def logs() -> st.SearchStrategy[Any]:
    """Any ExportLogsServiceRequest."""
    return requests(Signal.LOGS)


def _member(name: str) -> type[Message]:
    from opentelemetry.proto.common.v1 import common_pb2  # noqa: PLC0415 (only these two need it)

    kind: type[Message] = getattr(common_pb2, name)
    return kind


def any_values() -> st.SearchStrategy[Any]:
    """Any AnyValue, nested."""
    return messages(_member("AnyValue"))


def key_values() -> st.SearchStrategy[Any]:
    """Any KeyValue."""
    return messages(_member("KeyValue"))


@st.composite
def mutations(draw: st.DrawFn, payload: bytes) -> bytes:
    """`payload` with a few bytes changed, inserted, removed, cut off or repeated."""
    data = bytearray(payload)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        span = draw(st.integers(1, 12))
        match draw(st.integers(0, 5)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case 2:
                del data[at : at + span]
            case 3:
                del data[at:]
            case 4:
                data[at:at] = data[at : at + span]
            case _:
                if data:
                    data[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


def thorough(default: int) -> Callable[[Any], Any]:
    """Settings of a property: `default` examples, or TELFLOW_HYPOTHESIS_EXAMPLES; never fails on a slow day."""
    return settings(
        max_examples=int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", default)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
