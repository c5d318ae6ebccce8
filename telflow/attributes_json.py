"""Attributes as JSON, one object for each list: what SQL and label sets read, beside the lossless form."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError as ProtobufDecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValueList

from telflow.schema import ValueType

__all__ = ["attributes_json"]


def attributes_json(attributes: pa.ListArray) -> pa.Array:
    r"""Return each attribute list as the text of one JSON object; null stays null, duplicate keys all stand in it.

    Bytes become base64, NaN and the infinities the strings `nan`, `inf` and `-inf`; integers stay numbers.

    >>> from telflow.schema import ATTRIBUTES
    >>> value = dict(type=3, int=7)
    >>> attributes_json(pa.array([[{"key": 'say "a"', **value}], []], ATTRIBUTES)).to_pylist()
    ['{"say \\"a\\"":7}', '{}']
    """
    flat = attributes.flatten()
    text = _quoted(flat.field("str"))
    number = flat.field("double")
    finite = pc.if_else(pc.is_finite(number), number.cast(pa.string()), _quoted(number.cast(pa.string())))
    nested = _nested_json(flat)
    value = pc.coalesce(
        text, flat.field("int").cast(pa.string()), finite, flat.field("bool").cast(pa.string()), nested, "null"
    )
    members = pc.binary_join_element_wise(_quoted(flat.field("key")), value, ":")
    lengths = pc.fill_null(pc.list_value_length(attributes), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
    lists = pa.ListArray.from_arrays(offsets, members)
    objects = pc.binary_join_element_wise("{", pc.binary_join(lists, ","), "}", "")
    return pc.if_else(attributes.is_valid(), objects, pa.scalar(None, pa.string()))


_ESCAPES = [("\\", "\\\\"), ('"', '\\"'), *((chr(n), json.dumps(chr(n))[1:-1]) for n in range(32))]


def _quoted(text: pa.Array) -> pa.Array:
    """JSON strings, column by column; RFC 8259 section 7 asks for just these escapes."""
    rare = pc.any(pc.match_substring_regex(text, "[\x00-\x1f]")).as_py()
    for character, escape in _ESCAPES if rare else _ESCAPES[:2]:
        text = pc.replace_substring(text, character, escape)
    return pc.binary_join_element_wise('"', text, '"', "")


def _nested_json(flat: pa.StructArray) -> pa.Array:
    """Arrays, maps and bytes as JSON: distinct values are rendered once, one by one, for in resources they are few."""
    kinds = flat.field("type")
    text = pa.nulls(len(flat), pa.string())
    for kind, render in _RENDER.items():
        of_kind = pc.fill_null(pc.equal(kinds, int(kind)), fill_value=False)
        if pc.any(of_kind).as_py():
            cells = pc.if_else(of_kind, flat.field("bytes"), pa.scalar(None, pa.binary())).dictionary_encode()
            rendered = [_rendered(render, cell) for cell in cells.dictionary.to_pylist()]
            text = pc.if_else(of_kind, pa.array(rendered, pa.string()).take(cells.indices), text)
    return text


def _rendered(render: Callable[[bytes], Any], cell: bytes) -> str | None:
    try:
        return json.dumps(render(cell), ensure_ascii=False)
    except ProtobufDecodeError:  # an operator put something else there; the lossless cell keeps it
        return None


def _bytes(cell: bytes) -> str:
    return base64.b64encode(cell).decode()


def _array(cell: bytes) -> list[Any]:
    return [_plain(v) for v in ArrayValue.FromString(cell).values]


def _kvlist(cell: bytes) -> dict[str, Any]:
    return _object(KeyValueList.FromString(cell).values)


_RENDER: dict[ValueType, Callable[[bytes], Any]] = {
    ValueType.ARRAY: _array,
    ValueType.KVLIST: _kvlist,
    ValueType.BYTES: _bytes,
}


def _object(members: Iterable[Any]) -> dict[str, Any]:
    return {member.key: _plain(member.value) for member in members}


def _plain(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "array_value":
            return [_plain(v) for v in value.array_value.values]
        case "kvlist_value":
            return _object(value.kvlist_value.values)
        case "bytes_value":
            return _bytes(value.bytes_value)
        case "double_value":
            return value.double_value if abs(value.double_value) < float("inf") else str(value.double_value)
        case None:
            return None
        case kind:
            return getattr(value, kind)
