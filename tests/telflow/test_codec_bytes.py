"""The codec on bytes no encoder writes: refused, with a place, where the official library refuses; else read alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import example, given
from hypothesis import strategies as st

from bench.payloads import payload
from telflow import Signal
from telflow.codec import Limits, decode, decode_many, encode
from telflow.errors import BatchError, DecodeError, EncodeError
from telflow.schema import ValueType
from tests.differential import check_same_reading
from tests.oracle import REQUESTS, normal_form
from tests.strategies import mutations, requests, thorough
from tests.wire import delimited, soup, varint

SIGNALS = pytest.mark.parametrize("signal", Signal)
_SPAN = "resource_spans[0].scope_spans[0].spans[0]"
_GROUP, _END = varint(20 << 3 | 3), varint(20 << 3 | 4)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + delimited(content)


def in_record(*fields: bytes) -> bytes:
    """A request with one record (span, log record or metric: they stand at the same place) of these fields."""
    return field(1, field(2, field(2, b"".join(fields))))


@SIGNALS
@given(data=st.data())
@thorough(150)
def test_changed_bytes(signal: Signal, data: Any) -> None:
    """Real messages with bytes changed, inserted, removed, repeated or cut off."""
    original = data.draw(requests(signal)).SerializeToString()
    check_same_reading(signal, data.draw(mutations(original)))


@SIGNALS
@given(data=st.data())
@thorough(150)
def test_irregular_bytes(signal: Signal, data: Any) -> None:
    """Fields in any order and number: messages to merge, oneofs overwritten, unpacked, overlong, foreign wire types."""
    check_same_reading(signal, data.draw(soup(REQUESTS[signal].DESCRIPTOR)))


@SIGNALS
@given(st.binary(max_size=40))
@example(b"\0\0")
@example(b"\x0a\x81\x80\x80\x80\x80\x00")
@thorough(150)
def test_any_bytes(signal: Signal, noise: bytes) -> None:
    """Bytes of no origin at all."""
    check_same_reading(signal, noise)


@pytest.mark.parametrize(
    "content",
    {
        "tag of five bytes": b"\xb0\x80\x80\x80\x00\x01",
        "tag of six bytes": b"\xb0\x80\x80\x80\x80\x00\x01",
        "tag of more than 32 bits": b"\xb0\x80\x80\x80\x10\x01",
        "largest field number": b"\xf8\xff\xff\xff\x0f\x01",
        "field number 0": b"\x02\x00",
        "wire type 6": varint(20 << 3 | 6),
        "varint of ten bytes": b"\x30" + b"\x81" * 9 + b"\x7f",
        "varint of eleven bytes": b"\x30" + b"\x81" * 10 + b"\x01",
        "enum of more than 32 bits": b"\x30" + varint(2**32 + 3),
        "count of more than 32 bits": b"\x50" + varint(2**32 + 3),
        "length of five bytes": b"\x2a\x81\x80\x80\x80\x00a",
        "length of six bytes": b"\x2a\x81\x80\x80\x80\x80\x00a",
        "length of six bytes, unknown field": b"\xa2\x01\x81\x80\x80\x80\x80\x00a",
        "length beyond the end": b"\x2a\x05a",
        "truncated number": b"\x39aaaa",
        "group": _GROUP + _END,
        "group without an end": _GROUP,
        "end of another group": _GROUP + varint(21 << 3 | 4),
        "end of no group": _END,
        "field number 0 in a group": _GROUP + b"\x02\x01a" + _END,
        "known field as a group": varint(5 << 3 | 3) + varint(5 << 3 | 4),
        "known field as a varint": b"\x28\x05",
        "surrogate": field(5, b"\xed\xa0\x80"),
        "overlong NUL": field(5, b"\xc0\x80"),
        "bad text, then good": field(5, b"\xff") + field(5, b"a"),
        "good text twice": field(5, b"a") + field(5, b"b"),
        "bad text in an unknown field": field(55, b"\xff"),
        "text cut inside a character, twice": field(9, field(1, b"\xc3")) + field(9, field(1, b"\xa9")),
        "status in two parts": field(15, b"\x18\x02") + field(15, field(2, b"late")),
        "value in two parts": field(9, field(2, b"\x18\x07") + field(2, b"\x10\x01")),
        "oneof overwritten": field(9, field(2, b"\x18\x07" + field(1, b"x"))),
        "list in two parts": field(9, field(2, field(5, field(1, b"\x18\x07")) + field(5, field(1, b"\x18\x08")))),
    }.items(),
    ids=lambda item: item[0],
)
def test_corners_of_the_wire_format(content: tuple[str, bytes]) -> None:
    """Each rule of the wire format that parsers differ in, as a span and as a log record."""
    for signal in Signal:
        check_same_reading(signal, in_record(content[1]))


@pytest.mark.parametrize("levels", range(90, 103))
def test_depth_limit_is_the_official_one(levels: int) -> None:
    """Messages and groups nest 100 levels deep, wherever they begin; the hundred and first is refused."""
    nested = b""
    for level in range(levels):
        nested = field(5 if level % 2 else 1, nested)
    groups = _GROUP * levels + _END * levels
    for signal in Signal:
        for content in (groups, field(9, field(2, nested)), field(9, field(2, nested[: len(nested) // 2] + groups))):
            for place in (
                content,
                in_record(content),
                field(1, field(1, content)),
                field(1, field(2, field(1, content))),
            ):
                check_same_reading(signal, place, only_refusal=True)


def test_a_lower_depth_limit_holds() -> None:
    """With `Limits.depth` the same message is read or refused."""
    value = b""
    for _ in range(10):
        value = field(5, field(1, value))
    message = in_record(field(9, field(2, value)))
    assert decode(message, Signal.TRACES, limits=Limits(depth=25)).num_rows == 1
    with pytest.raises(DecodeError, match="deep"):
        decode(message, Signal.TRACES, limits=Limits(depth=24))
    with pytest.raises(DecodeError, match="deep"):
        decode(in_record(_GROUP * 30 + _END * 30), Signal.TRACES, limits=Limits(depth=24))


@pytest.mark.parametrize(
    ("signal", "message", "reason", "offset", "path"),
    [
        (Signal.TRACES, in_record(field(5, b"ab\xff")), "invalid UTF-8", 10, _SPAN + ".name"),
        (
            Signal.TRACES,
            field(1, b"") + field(1, field(3, b"\xff")),
            "invalid UTF-8",
            6,
            "resource_spans[1].schema_url",
        ),
        (
            Signal.TRACES,
            in_record() + in_record(field(11, b"") + field(11, b"\x09aa")),
            "truncated number",
            17,
            _SPAN.replace("[0]", "[1]", 1) + ".events[1].time_unix_nano",
        ),
        (
            Signal.LOGS,
            in_record(field(6, field(1, b"k")), field(6, field(2, field(5, field(1, field(1, b"\xff")))))),
            "invalid UTF-8",
            21,
            "resource_logs[0].scope_logs[0].log_records[0].attributes[1].value.array_value.values[0].string_value",
        ),
        (
            Signal.METRICS,
            in_record(field(7, field(1, b"\x31"))),
            "truncated number",
            11,
            "resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].as_int",
        ),
        (Signal.METRICS, b"\x0a\x80", "truncated varint", 1, "resource_metrics[0]"),
        (Signal.LOGS, b"\x0a\x05", "length 5 beyond the end", 1, "resource_logs[0]"),
    ],
)
def test_errors_say_where(signal: Signal, message: bytes, reason: str, offset: int, path: str) -> None:
    """A refusal names the reason, the byte at which it was noticed, and the field."""
    with pytest.raises(DecodeError) as caught:
        decode(message, signal)
    assert reason in caught.value.reason
    assert (caught.value.offset, caught.value.path) == (offset, path)
    with pytest.raises(DecodeError, match=re.escape(f"in payloads[1].{path}")):
        decode_many([b"", message], signal)


def test_limits_of_size() -> None:
    """Payloads, and columns that a small payload would blow up to, are refused beyond their limits."""
    message = in_record(field(5, b"x" * 100))
    with pytest.raises(DecodeError, match=r"payload of 10[0-9] bytes, the limit is 100") as caught:
        decode(message, Signal.TRACES, limits=Limits(payload_bytes=100))
    assert caught.value.offset == 100
    small = Limits(expansion_bytes=100_000)
    assert decode(field(1, field(2, field(2, b"") * 500)), Signal.TRACES, limits=small).num_rows == 500
    for signal in (Signal.TRACES, Signal.LOGS):
        with pytest.raises(DecodeError, match="columns over 100000 bytes"):
            decode(field(1, field(2, field(2, b"") * 2000)), signal, limits=small)
    # One long name, repeated on each of a thousand points of two bytes.
    points = field(7, field(1, b"") * 200)
    with pytest.raises(DecodeError, match="columns over 100000 bytes"):
        decode(in_record(field(1, b"n" * 5000), points), Signal.METRICS, limits=small)
    with pytest.raises(ValueError, match="expected 0 or more"):
        Limits(payload_bytes=-1)
    with pytest.raises(ValueError, match="tenants: expected one for each of the 2 payloads, got 1"):
        decode_many([b"", b""], Signal.TRACES, tenants=["a"])


@SIGNALS
def test_unknown_fields_are_skipped_and_counted(signal: Signal) -> None:
    """On every level, of every wire type, also where a resource is seen again, and on the slow way too."""
    unknown = field(77, b"?") + varint(78 << 3) + varint(5) + _GROUP + field(1, b"inside counts as one") + _END
    place = field(1, unknown + field(1, field(1, b"k") + field(2, unknown + b"\x18\x01") + unknown))
    envelope = field(1, place + field(2, field(2, unknown) + unknown) + unknown)
    batch = decode(envelope + unknown, signal)
    assert batch.unknown_fields == 3 * 7
    assert decode(envelope + envelope, signal).unknown_fields == 2 * 3 * 6
    assert decode(envelope + field(1, field(1, b"") + field(1, b"")), signal).unknown_fields == 3 * 6
    assert decode(encode(batch), signal).unknown_fields == 0


def test_equal_places_written_differently_are_one() -> None:
    """A resource whose fields stand in another order, or with padded lengths, is the same resource."""
    value = field(2, field(1, b"v"))
    one = field(1, field(1, field(1, b"k") + value) + b"\x10\x01")
    other = field(1, b"\x10\x01" + varint(1 << 3 | 2) + delimited(value + field(1, b"k"), 3))
    scope = field(2, field(1, field(1, b"s") + field(2, b"1")) + field(2, b""))
    epocs = field(2, field(1, field(2, b"1") + field(1, b"s")) + field(2, b""))
    batch = decode_many([field(1, one + scope), field(1, epocs + other)], Signal.LOGS)
    assert (batch.num_rows, batch.resources.num_rows, batch.scopes.num_rows) == (2, 1, 1)
    apart = decode_many([field(1, one + scope), field(1, one + scope)], Signal.LOGS, tenants=["a", None])
    assert apart.resources["tenant"].to_pylist() == ["a", None]
    # What differs in one bit stays apart: presence, an empty list, the kind of a value.
    kinds = [b"", field(1, b""), field(1, field(1, field(2, b"")))]
    kinds += [
        field(1, field(1, field(2, v))) for v in (field(1, b""), field(7, b""), b"\x10\x00", b"\x18\x00", b"\x40\x00")
    ]
    assert decode(b"".join(field(1, kind) for kind in kinds), Signal.TRACES).resources.num_rows == len(kinds)


def _every_field(descriptor: Descriptor, depth: int = 0) -> Iterator[Any]:
    """Messages that set each field of a kind of message, one member of a oneof at a time, and so on below."""
    alternatives = [f for o in descriptor.oneofs if len(o.fields) > 1 for f in o.fields]
    names = {f.name for f in alternatives}
    for chosen in [[f] for f in alternatives] or [[]]:
        message: Any = message_factory.GetMessageClass(descriptor)()
        for member in [f for f in descriptor.fields if f.name not in names] + chosen:
            if member.message_type and depth < 12:
                for inner in _every_field(
                    member.message_type, depth + (member.message_type.name == "AnyValue") * 6 + 1
                ):
                    if member.is_repeated:
                        getattr(message, member.name).append(inner)
                    else:
                        getattr(message, member.name).CopyFrom(inner)
            elif not member.message_type:
                value = _NOT_DEFAULT.get(member.type, 3)
                if member.is_repeated:
                    getattr(message, member.name).append(value)
                else:
                    setattr(message, member.name, value)
        yield message


_NOT_DEFAULT: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: "x",
    FieldDescriptor.TYPE_BYTES: b"x",
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_DOUBLE: 0.5,
}


@SIGNALS
def test_every_field_of_the_installed_opentelemetry_proto_is_kept(signal: Signal) -> None:
    """Fails when opentelemetry-proto grows a field that the columns do not hold: it would count as unknown."""
    descriptor: Any = REQUESTS[signal].DESCRIPTOR
    for request in _every_field(descriptor):
        batch = decode(request.SerializeToString(), signal)
        assert batch.unknown_fields == 0
        assert batch.num_rows > 0
        assert normal_form(REQUESTS[signal].FromString(encode(batch)), signal) == normal_form(request, signal)


def test_null_hides_what_lies_below() -> None:
    """A value that a mask made null is not written, whatever bytes the array still holds."""
    batch = decode(payload(Signal.TRACES, 8), Signal.TRACES)
    attributes = batch.records["attributes"]
    values = attributes.flatten()
    children = [values.field(name) for name in ("key", "type", "str", "int", "double", "bool", "bytes")]
    secret = children[2]
    children[2] = pa.Array.from_buffers(
        pa.string(), len(secret), [pa.py_buffer(bytes(len(secret) // 8 + 1)), *secret.buffers()[1:]]
    )
    hidden = pa.ListArray.from_arrays(
        attributes.offsets, pa.StructArray.from_arrays(children, fields=list(values.type)), type=attributes.type
    )
    index = batch.records.schema.get_field_index("attributes")
    written = encode(batch.with_records(batch.records.set_column(index, batch.records.schema.field(index), hidden)))
    found = decode(written, Signal.TRACES).records["attributes"].flatten()
    assert len(found) == len(values)
    strings = found.field("str").filter(pa.array([t == ValueType.STRING for t in found.field("type").to_pylist()]))
    assert set(strings.to_pylist()) == {""}


def test_batches_that_cannot_be_written() -> None:
    """What only a hand-made batch can be: an error that names it, no panic."""
    batch = decode(payload(Signal.METRICS, 4), Signal.METRICS)
    index = batch.records.schema.get_field_index("type")
    wrong = batch.records.set_column(index, batch.records.schema.field(index), pa.array([1] * 4, pa.uint8()))
    with pytest.raises(EncodeError, match=r"data point 0 .*: type 1 is no kind of metric"):
        encode(batch.with_records(wrong))
    with pytest.raises(BatchError):
        batch.with_records(batch.records.drop_columns(["unit"]))
