"""Protobuf bytes of a message in every wire form a parser must take, the irregular ones above all."""

from __future__ import annotations

import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

__all__ = ["delimited", "soup", "varint"]

_FIXED64 = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64}
_DELIMITED = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE}


def varint(number: int, overlong: int = 0) -> bytes:
    out = bytearray()
    number %= 2**64
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    for _ in range(min(overlong, 10 - len(out))):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def delimited(content: bytes, overlong: int = 0) -> bytes:
    return varint(len(content), overlong) + content


_NUMBER = st.one_of(st.sampled_from([0, 1, 127, 128, 2**31, 2**32, 2**32 + 7, 2**63, 2**64 - 1]), st.integers(0, 2**64))


@st.composite
def _value(draw: st.DrawFn, wire_type: int, number: int, level: int) -> bytes:
    """Bytes after a tag, of any content."""
    match wire_type:
        case 0:
            return varint(draw(_NUMBER), draw(st.integers(0, 10)))
        case 1:
            return draw(st.one_of(st.just(bytes(8)), st.binary(min_size=8, max_size=8)))
        case 2:
            return delimited(draw(st.one_of(st.binary(max_size=9), st.just("ö".encode()), st.just(bytes(16)))))
        case 3:
            inner = draw(st.integers(0, 20))
            content = b""
            if level < 3 and draw(st.booleans()):
                inner_type = draw(st.sampled_from([0, 1, 2, 3, 5]))
                content = varint(inner << 3 | inner_type) + draw(_value(inner_type, inner, level + 1))
            return content + varint((number + (draw(st.integers(0, 30)) == 7)) << 3 | 4)
        case 5:
            return draw(st.binary(min_size=4, max_size=4))
        case _:
            return b""


@st.composite
def _field(draw: st.DrawFn, field: FieldDescriptor, level: int) -> bytes:
    """A value of the field in one of the wire forms it may have: unpacked, packed, split, overlong."""
    number: Any = field.number
    overlong = draw(st.sampled_from([0, 0, 0, 0, 1, 3, 6]))
    tag = number << 3
    if field.message_type:
        return varint(tag | 2, overlong) + delimited(draw(soup(field.message_type, level + 1)), overlong)
    if field.type in _DELIMITED:
        text = draw(
            st.sampled_from([b"", b"a", "naïve".encode(), bytes(16), bytes(8), b"\xc3" * draw(st.integers(0, 1))])
        )
        return varint(tag | 2, overlong) + delimited(text, overlong)
    if field.type in _FIXED64:
        numbers = [struct.pack("<Q", n % 2**64) for n in draw(st.lists(_NUMBER, min_size=1, max_size=3))]
        wire_type = 1
    elif field.type == FieldDescriptor.TYPE_FIXED32:
        numbers, wire_type = [struct.pack("<I", draw(_NUMBER) % 2**32)], 5
    else:
        numbers = [varint(n, overlong) for n in draw(st.lists(_NUMBER, min_size=1, max_size=3))]
        wire_type = 0
    if field.is_repeated and draw(st.booleans()):
        return varint(tag | 2) + delimited(b"".join(numbers[: draw(st.integers(0, 3))]))
    return b"".join(varint(tag | wire_type, overlong) + n for n in numbers)


@st.composite
def soup(draw: st.DrawFn, descriptor: Any, level: int = 0) -> bytes:
    """Wire bytes of a message with its fields in any order and number, between unknown ones and groups."""
    out = []
    fields = [f for f in descriptor.fields if level < 9 or not f.message_type]
    for _ in range(draw(st.integers(0, 5 if level else 3))):
        if not fields or draw(st.integers(0, 7)) == 0:
            number, wire_type = draw(st.integers(1, 20)), draw(st.sampled_from([0, 1, 2, 3, 5]))
            out.append(varint(number << 3 | wire_type) + draw(_value(wire_type, number, 0)))
        else:
            out.append(draw(_field(draw(st.sampled_from(fields)), level)))
    return b"".join(out)
