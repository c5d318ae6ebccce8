"""Whether arrays hold what they show and nothing else.

A slice, and a list or string array built on a longer buffer, is a view: what it does not show is still in its buffers,
and leaves the process with them. Arrow's C interface does not carry the lengths of buffers, so this is looked at here.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

__all__ = ["is_exact"]

_MAX_ZEROS_BYTES = 1 << 20
"""A longer rest of a buffer is not searched but taken for data: copying the array costs no more."""


def is_exact(table: pa.RecordBatch) -> bool:
    """Return whether nothing but zeros is in the table's buffers besides its rows; validity bits do not count.

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
        first, last = _span(array, rows)
        return first == 0 and _ends_at(array.buffers()[2], last)
    return _ends_at(array.buffers()[1], (rows * dtype.bit_width + 7) // 8)


def _ends_at(content: pa.Buffer | None, end: int) -> bool:
    """Whether nothing but zeros follows: arrays of nulls share one long buffer of them."""
    if content is None or content.size <= end:
        return True
    return content.size - end <= _MAX_ZEROS_BYTES and not np.frombuffer(content, np.uint8)[end:].any()


def _span(array: pa.Array, rows: int) -> tuple[int, int]:
    """First and last offset."""
    offsets = array.buffers()[1]
    if offsets is None or not offsets.size:
        return 0, 0
    numbers = memoryview(offsets).cast("i")
    return numbers[0], numbers[rows]
