"""Attribute columns: typed values out of them, other attributes into them; one vectorised pass each.

Every function takes a column of type `telflow.schema.ATTRIBUTES` and returns a new array; none changes its argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow import _native
from telflow.errors import BatchError
from telflow.schema import ATTRIBUTE, ATTRIBUTES, ValueType

__all__ = [
    "AttributeValue",
    "PutMode",
    "drop_attributes",
    "extract_attribute",
    "matching_keys",
    "put_attributes",
    "rename_attributes",
]

AttributeValue = str | bool | int | float | bytes
"""A plain value an attribute can be given from Python."""

PutMode = Literal["upsert", "insert", "update"]
"""Whether an attribute is put where its key is absent (insert), present (update), or both (upsert)."""

_WANTED = {
    pa.string(): "string",
    pa.int64(): "int64",
    pa.float64(): "float64",
    pa.bool_(): "bool_",
    pa.binary(): "binary",
}
_INT64 = range(-(2**63), 2**63)


def extract_attribute(attributes: pa.ListArray, key: str, type: pa.DataType | None = None) -> pa.Array:  # noqa: A002 - pyarrow's word
    """Return the value under `key` in each row, as one typed array.

    Of a repeated key the first counts. A row without the key, or with an empty value under it, is null.

    Args:
        attributes: Column of `ATTRIBUTES`.
        key: The attribute's whole name.
        type: `pa.string()`: every value as text. `pa.int64()`, `pa.bool_()`, `pa.binary()`: values of that kind, others
            null. `pa.float64()`: doubles, and ints converted; others null. None: what all values found are; ints
            beside doubles are float64; any other mixture, arrays, maps, and no value at all are string.

    Returns:
        An array as long as `attributes`. Text is as the OpenTelemetry specification has it ("AnyValue representation
        for non-OTLP protocols"): numbers and booleans as JSON, bytes as base64, arrays and maps as JSON.

    Raises:
        BatchError: `type` is none of these.
    """
    if type is not None and type not in _WANTED:
        expected = ", ".join(str(known) for known in _WANTED)
        raise BatchError(f"attribute {key!r}: expected a type out of {expected}, got {type}")
    return _native.extract_attribute(_as_batch(attributes), key, None if type is None else _WANTED[type])


def put_attributes(
    attributes: pa.ListArray, values: Mapping[str, AttributeValue | pa.Array], mode: PutMode = "upsert"
) -> pa.ListArray:
    """Return `attributes` with each value put under its key.

    A value replaces the first attribute of its key, where that stands, and removes further ones; a new key comes
    last. A null list, which says that there is no message to hold attributes, becomes a list when something is put.

    Args:
        attributes: Column of `ATTRIBUTES`.
        values: For each key a value for all rows, or an array with one for each row: string, integer up to 64 bits,
            float, boolean or binary; a null leaves its row as it is.
        mode: Whether to replace what exists, add what does not, or both.

    Raises:
        BatchError: A value is of another type, or an array of another length.
    """
    replace, append = mode != "insert", mode != "update"
    for is_column, group in groupby(values.items(), lambda item: isinstance(item[1], (pa.Array, pa.ChunkedArray))):
        found = list(group)
        if is_column:
            rows = [_rows_of_items(key, column, len(attributes)) for key, column in found]
        else:
            rows = [pa.array([[_item(key, value) for key, value in found]], ATTRIBUTES)]
        for items in rows:
            attributes = _native.put_attributes(_as_batch(attributes), _as_batch(items), replace, append, ATTRIBUTES)
    return attributes


def drop_attributes(attributes: pa.ListArray, keys: Iterable[str]) -> pa.ListArray:
    """Return `attributes` without those under `keys`."""
    return _native.drop_attributes(_as_batch(attributes), list(keys), ATTRIBUTES)


def rename_attributes(attributes: pa.ListArray, names: Mapping[str, str]) -> pa.ListArray:
    """Return `attributes` with those under a key of `names` under the name it maps to; all at once, so keys may swap.

    An attribute that already has the new name gives way. If several come to one name, the first in the list stays.
    """
    return _native.rename_attributes(_as_batch(attributes), list(names), list(names.values()), ATTRIBUTES)


def matching_keys(attributes: pa.ListArray, matches: Callable[[str], object]) -> list[str]:
    """Return the distinct keys in `attributes` for which `matches` is true."""
    keys: list[str] = pc.unique(pc.struct_field(attributes.flatten(), "key")).to_pylist()
    return [key for key in keys if matches(key)]


def _as_batch(attributes: pa.ListArray) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([attributes], ["attributes"])


def _item(key: str, value: AttributeValue) -> dict[str, Any]:
    match value:
        case bool():
            return {"key": key, "type": ValueType.BOOL, "bool": value}
        case str():
            return {"key": key, "type": ValueType.STRING, "str": value}
        case int() if value in _INT64:
            return {"key": key, "type": ValueType.INT, "int": value}
        case float():
            return {"key": key, "type": ValueType.DOUBLE, "double": value}
        case bytes():
            return {"key": key, "type": ValueType.BYTES, "bytes": value}
        case _:
            raise BatchError(
                f"attribute {key!r}: expected str, bool, int of 64 bits, float, bytes or an Arrow array, "
                f"got {type(value).__name__} {value!r}"
            )


def _rows_of_items(key: str, column: pa.Array | pa.ChunkedArray, rows: int) -> pa.ListArray:
    """Make each non-null value a list of one attribute, each null an empty list."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if len(column) != rows:
        raise BatchError(f"attribute {key!r}: expected {rows} values, one for each row, got {len(column)}")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind, child, target = _kind_of(key, column.type)
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(column.is_valid().to_numpy(zero_copy_only=False), out=offsets[1:])
    try:
        values = column.drop_null().cast(target)
    except pa.ArrowInvalid as error:
        raise BatchError(f"attribute {key!r}: {error}") from error
    count = len(values)
    children = [pa.nulls(count, field.type) for field in ATTRIBUTE]
    children[ATTRIBUTE.get_field_index("key")] = pa.repeat(pa.scalar(key), count)
    children[ATTRIBUTE.get_field_index("type")] = pa.repeat(pa.scalar(int(kind), pa.uint8()), count)
    children[ATTRIBUTE.get_field_index(child)] = values
    items = pa.StructArray.from_arrays(children, fields=list(ATTRIBUTE))
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=ATTRIBUTES)


def _kind_of(key: str, found: pa.DataType) -> tuple[ValueType, str, pa.DataType]:
    checks: Sequence[tuple[Callable[[pa.DataType], bool], ValueType, str, pa.DataType]] = (
        (lambda t: pa.types.is_string(t) or pa.types.is_large_string(t), ValueType.STRING, "str", pa.string()),
        (pa.types.is_string_view, ValueType.STRING, "str", pa.string()),
        (pa.types.is_boolean, ValueType.BOOL, "bool", pa.bool_()),
        (pa.types.is_integer, ValueType.INT, "int", pa.int64()),
        (pa.types.is_floating, ValueType.DOUBLE, "double", pa.float64()),
        (lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t), ValueType.BYTES, "bytes", pa.binary()),
        (pa.types.is_null, ValueType.STRING, "str", pa.string()),
    )
    for fits, kind, child, target in checks:
        if fits(found):
            return kind, child, target
    raise BatchError(f"attribute {key!r}: expected string, boolean, integer, float or binary values, got {found}")
