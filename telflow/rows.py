"""Rows of record batches, through the native kernels: choosing, joining, comparing, measuring them.

Works on any record batch of the types `telflow.schema` uses. pyarrow's own `filter` and `take` rebuild nested columns
value by value; these copy runs of rows (bench/bench_concat.py has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow import _native

__all__ = [
    "filter_rows",
    "first_difference",
    "merge_distinct",
    "nbytes",
    "number_distinct",
    "replace_column",
    "take_rows",
]

_UINT32 = pa.uint32()
_COMPARED = 16  # tables a new one is compared with


def take_rows(table: pa.RecordBatch, indices: npt.NDArray[np.uint32]) -> pa.RecordBatch:
    """Return the rows of `table` at `indices`, in that order, in buffers of their own.

    Raises:
        ValueError: An index is not below the number of rows.
    """
    return _native.take_rows(table, pa.array(indices, _UINT32), table.schema)


def filter_rows(table: pa.RecordBatch, mask: pa.BooleanArray) -> pa.RecordBatch:
    """Return the rows of `table` for which `mask` is true, in buffers of their own; null counts as false.

    Raises:
        ValueError: `mask` is not one boolean for each row.
    """
    return _native.filter_rows(table, mask, table.schema)


def first_difference(left: pa.RecordBatch, right: pa.RecordBatch) -> int | None:
    """Return the first row in which two batches of one schema differ, or None; equality as `merge_distinct`."""
    found = _native.first_difference(left, right)
    if found is None and left.num_rows != right.num_rows:
        return min(int(left.num_rows), int(right.num_rows))
    return found


def merge_distinct(tables: Sequence[pa.RecordBatch]) -> tuple[pa.RecordBatch, list[npt.NDArray[np.uint32]] | None]:
    """Join small tables of one schema into one, in which equal rows of different tables are one row.

    Equal rows are those of equal values: NaN equals NaN, null equals null, -0.0 is not 0.0. Rows stand in the order
    of their first appearance.

    Returns:
        The table, and for each of `tables` where its rows are now; None when all tables are the same and none moved.
    """
    different: list[pa.RecordBatch] = []
    which = [_find_or_append(different, table) for table in tables]
    if len(different) == 1:
        return different[0], None
    merged, places = number_distinct(different)
    return merged, [places[place] for place in which]


def number_distinct(tables: Sequence[pa.RecordBatch]) -> tuple[pa.RecordBatch, list[npt.NDArray[np.uint32]]]:
    """Return the distinct rows of all tables, and for each table where its rows are there; as `merge_distinct`."""
    schema = tables[0].schema
    merged, numbers = _native.merge_distinct(pa.RecordBatchReader.from_batches(schema, tables), schema, _UINT32)
    ends = np.cumsum([table.num_rows for table in tables])
    return merged, np.split(numbers.to_numpy(), ends[:-1])


def _find_or_append(different: list[pa.RecordBatch], table: pa.RecordBatch) -> int:
    """Return where `table` or a table equal to it stands among `different`.

    Requests of one sender repeat its resources, and comparing costs a hundredth of numbering. pyarrow holds -0.0
    equal to 0.0, so tables with doubles in their attributes are not compared.
    """
    for place, other in enumerate(different[-_COMPARED:], max(len(different) - _COMPARED, 0)):
        if table is other or (table.equals(other) and not _has_doubles(table)):
            return place
    different.append(table)
    return len(different) - 1


def _has_doubles(table: pa.RecordBatch) -> bool:
    doubles = table["attributes"].values.field("double")
    return bool(doubles.null_count < len(doubles))


def replace_column(table: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """Return `table` with other values in the column `name`."""
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), column)


def nbytes(table: pa.RecordBatch) -> int:
    """Return the bytes of Arrow data that the rows of `table` occupy; what a slice hides is not counted.

    A table that is no slice, the usual case, answers by the sizes of its buffers, which costs little; only a slice is
    walked through.
    """
    if not table.num_rows:
        return 0
    if _is_slice(table):
        return _native.count_bytes(table)
    return int(table.get_total_buffer_size())


def _is_slice(table: pa.RecordBatch) -> bool:
    """Tell by its required columns of four bytes whether a table shows only a part of larger buffers."""
    for name in ("resource", "flags", "dropped_attributes_count"):
        place = table.schema.get_field_index(name)
        if place >= 0:
            column = table.column(place)
            # Arrow pads buffers to 64 bytes.
            if column.offset or column.buffers()[1].size >= 4 * len(column) + 64:
                return True
    return False
