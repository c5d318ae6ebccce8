"""Builds tables of a batch column by column: what an operator needs to say its result as OTLP data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow.errors import BatchError
from telflow.schema import ANY_VALUE, ATTRIBUTE, ATTRIBUTES, ValueType

__all__ = ["any_values", "attribute_lists", "fill_record_batch", "fixed_lists"]

_CHILDREN = {
    pa.types.is_string: (ValueType.STRING, "str"),
    pa.types.is_boolean: (ValueType.BOOL, "bool"),
    pa.types.is_int64: (ValueType.INT, "int"),
    pa.types.is_float64: (ValueType.DOUBLE, "double"),
}


def any_values(values: pa.Array) -> pa.StructArray:
    """Return string, bool, int64 or float64 values as `ANY_VALUE`s; null becomes a null struct.

    >>> any_values(pa.array(["a", None])).to_pylist()[0]["str"]
    'a'

    Raises:
        BatchError: The values are of another type.
    """
    kind, child = next((known for matches, known in _CHILDREN.items() if matches(values.type)), (None, None))
    if kind is None:
        raise BatchError(f"attribute values: expected string, bool, int64 or double, got {values.type}")
    columns = {
        field.name: values if field.name == child else pa.nulls(len(values), field.type)
        for field in ANY_VALUE
        if field.name != "type"
    }
    columns = {"type": pa.repeat(pa.scalar(int(kind), pa.uint8()), len(values)), **columns}
    return pa.StructArray.from_arrays(list(columns.values()), fields=list(ANY_VALUE), mask=values.is_null())


def attribute_lists(rows: int, attributes: Sequence[tuple[str, pa.Array]]) -> pa.ListArray:
    """Return one attribute list per row.

    Args:
        rows: Number of rows.
        attributes: Key and values (`ANY_VALUE` structs, or what `any_values` takes), one per row; a null value leaves
            the attribute out.

    >>> attribute_lists(2, [("a", pa.array(["x", None])), ("b", pa.array([1, 2]))]).value_lengths().to_pylist()
    [2, 1]
    """
    if not attributes:
        return pa.array([[]] * rows, ATTRIBUTES)
    structs = [v if pa.types.is_struct(v.type) else any_values(v) for _, v in attributes]
    present = np.stack([v.is_valid().to_numpy(zero_copy_only=False) for v in structs], axis=1)
    # Values stand key by key; each list takes its own, row by row.
    row, key = np.nonzero(present)
    values = pa.concat_arrays(structs).take(pa.array(key * rows + row))
    keys = pa.array([name for name, _ in attributes], pa.string()).take(pa.array(key))
    entries = pa.StructArray.from_arrays([keys, *values.flatten()], fields=list(ATTRIBUTE))
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), entries, type=ATTRIBUTES)


def fixed_lists(values: np.ndarray[Any, Any], dtype: pa.ListType) -> pa.ListArray:
    """Return the rows of a two-dimensional array as lists of `dtype`.

    >>> fixed_lists(np.array([[1, 2], [3, 4]]), pa.list_(pa.uint64())).to_pylist()
    [[1, 2], [3, 4]]
    """
    rows, width = values.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width, pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)).cast(dtype.value_type), type=dtype)


def fill_record_batch(schema: pa.Schema, rows: int, columns: Mapping[str, Any]) -> pa.RecordBatch:
    """Return a table of a `TelemetryBatch`; a column left out holds its default: empty, zero or null.

    Args:
        schema: The table's schema, from `telflow.schema`.
        rows: Number of rows.
        columns: By name, an Arrow or numpy array with one value per row, or one plain value for all of them.

    >>> from telflow.schema import RECORD_SCHEMAS, Signal
    >>> points = fill_record_batch(RECORD_SCHEMAS[Signal.METRICS], 2, {"name": "calls", "value_int": np.array([3, 4])})
    >>> points["value_int"].to_pylist(), points["name"].to_pylist(), points["sum"].null_count
    ([3, 4], ['calls', 'calls'], 2)

    Raises:
        BatchError: There is no such column.
    """
    unknown = set(columns) - set(schema.names)
    if unknown:
        raise BatchError(f"no column {', '.join(sorted(unknown))} among {', '.join(schema.names)}")
    arrays = [_column(field, rows, columns.get(field.name)) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(field: pa.Field, rows: int, given: Any) -> pa.Array:
    match given:
        case pa.Array():
            return given
        case np.ndarray():
            return pc.cast(pa.array(given), field.type)
        case None if field.nullable:
            return pa.nulls(rows, field.type)
        case None if pa.types.is_list(field.type):
            empty = pa.nulls(0, field.type.value_type)
            return pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), empty, type=field.type)
        case None:
            text = pa.types.is_string(field.type)
            return pa.repeat(pa.scalar("" if text else 0, pa.string() if text else pa.int64()).cast(field.type), rows)
        case _:
            return pa.repeat(pa.scalar(given, field.type), rows)
