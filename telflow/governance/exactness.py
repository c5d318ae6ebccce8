"""Whether arrays hold what they show and nothing else.

A slice, and a list or string array built on a longer buffer, is a view: what it does not show is still in its buffers,
and leaves the process with them. Arrow's C interface does not carry the lengths of buffers, so this is looked at here.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = ["is_exact"]


def is_exact(table: pa.RecordBatch) -> bool:
    """Return whether no buffer of the table that can hold text or numbers is longer than its rows need.

    >>> names = pa.record_batch({"name": ["secret", "x"]})
    >>> is_exact(names), is_exact(names.slice(1)), is_exact(names.slice(0, 1))
    (True, False, False)
    """
    return all(_is_exact(column) for column in table.columns)


def _is_exact(array: pa.Array) -> bool:
    if array.offset:
        return False
    dtype = array.type
    rows = len(array)
    if pa.types.is_struct(dtype):
        return all(_is_exact(array.field(i)) for i in range(dtype.num_fields))
    if pa.types.is_list(dtype):
        items = array.values
        return _span(array, rows) == (0, len(items)) and _is_exact(items)
    if pa.types.is_string(dtype) or pa.types.is_binary(dtype):
        content = array.buffers()[2]
        return _span(array, rows) == (0, content.size if content else 0)
    content = array.buffers()[1]
    return content is None or 8 * content.size < rows * dtype.bit_width + 8


def _span(array: pa.Array, rows: int) -> tuple[int, int]:
    """First and last offset."""
    offsets = array.buffers()[1]
    if offsets is None or not offsets.size:
        return 0, 0
    numbers = memoryview(offsets).cast("i")
    return numbers[0], numbers[rows]
