"""Attribute values as dimensions of a series: any kind of value, in one hashable column, and back.

A *typed value* is the attribute's `ValueType` as one byte followed by the value: text and bytes as they are, nested
values as their canonical protobuf encoding, numbers and booleans in decimal. Equal attributes and only those are equal
typed values, so 1, "1" and 1.0 stay three dimensions' values, as they do in OTLP.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow.schema import ANY_VALUE, ValueType

__all__ = ["first_values", "from_typed", "typed", "typed_scalar"]

_EMPTY = pa.scalar(int(ValueType.EMPTY), pa.uint8())
_FALSE = pa.scalar(False, pa.bool_())
_NO_SEPARATOR = pa.scalar(b"", pa.binary())
_PREFIXES = pa.array([bytes([n]) for n in range(256)], pa.binary())


def first_values(attributes: pa.ListArray, key: str) -> pa.StructArray:
    """Return for each list the value of its first attribute named `key` as `ANY_VALUE`; null where there is none.

    An attribute without a value, or with an empty one, counts as none.
    """
    entries = attributes.flatten()
    columns = dict(zip([field.name for field in entries.type], entries.flatten(), strict=True))
    # Scalars with a type: to infer one pyarrow looks for pandas, each time anew (0.1 ms).
    valued = pc.fill_null(pc.greater(columns["type"], _EMPTY), _FALSE)
    named = pc.and_(pc.equal(columns["key"], pa.scalar(key, pa.string())), valued)
    hits = np.flatnonzero(named.to_numpy(zero_copy_only=False))
    lists = pc.list_parent_indices(attributes).to_numpy()[hits]
    first = np.ones(len(hits), np.bool_)
    first[1:] = lists[1:] != lists[:-1]
    rows = np.full(len(attributes), -1, np.int64)
    rows[lists[first]] = hits[first]
    values = pa.StructArray.from_arrays([columns[field.name] for field in ANY_VALUE], fields=list(ANY_VALUE))
    return values.take(pa.array(rows, mask=rows < 0))


def typed(values: pa.StructArray) -> pa.BinaryArray:
    r"""Return `ANY_VALUE` structs as typed values; null stays null.

    >>> typed(pa.array([{"type": 3, "int": 7}, None], ANY_VALUE)).to_pylist()
    [b'\x037', None]
    """
    columns = dict(zip([field.name for field in ANY_VALUE], values.flatten(), strict=True))
    # Most attributes are text: kinds that do not occur are left out.
    parts = [columns[name] for name in ("str", "bytes", "int", "double", "bool")]
    parts = [part for part in parts if part.null_count < len(part)] or parts[:1]
    content = pc.coalesce(*(part.cast(pa.binary()) if _is_text(part.type) else _written(part) for part in parts))
    return pc.binary_join_element_wise(_PREFIXES.take(columns["type"]), content, _NO_SEPARATOR)


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string(dtype) or pa.types.is_binary(dtype))


def _written(values: pa.Array) -> pa.BinaryArray:
    return values.cast(pa.string()).cast(pa.binary())


def typed_scalar(value: str | bool | float) -> bytes:
    r"""Return one value as a typed value.

    >>> typed_scalar("eu")
    b'\x01eu'
    """
    return bytes(typed(pa.array([_any_value(value)], ANY_VALUE))[0].as_py())


def from_typed(values: pa.BinaryArray) -> pa.StructArray:
    """Return typed values as `ANY_VALUE` structs; null stays null. The work is done once per distinct value.

    >>> from_typed(typed(pa.array([{"type": 4, "double": 0.1}], ANY_VALUE)))[0]["double"].as_py()
    0.1
    """
    coded = values.dictionary_encode()
    distinct = pa.array([_parse(value) for value in coded.dictionary.to_pylist()], ANY_VALUE)
    return distinct.take(coded.indices)


def _any_value(value: str | bool | float) -> dict[str, Any]:
    match value:
        case bool():
            return {"type": ValueType.BOOL, "bool": value}
        case int():
            return {"type": ValueType.INT, "int": value}
        case float():
            return {"type": ValueType.DOUBLE, "double": value}
        case _:
            return {"type": ValueType.STRING, "str": value}


def _parse(value: bytes) -> dict[str, Any]:
    kind, content = ValueType(value[0]), value[1:]
    match kind:
        case ValueType.STRING:
            return {"type": int(kind), "str": content.decode()}
        case ValueType.BOOL:
            return {"type": int(kind), "bool": content == b"true"}
        case ValueType.INT | ValueType.STRINDEX:
            return {"type": int(kind), "int": int(content)}
        case ValueType.DOUBLE:
            return {"type": int(kind), "double": float(content)}
        case _:
            return {"type": int(kind), "bytes": content}
