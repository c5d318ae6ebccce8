"""Columns of integers in few bytes, for the recovery store: what a sampler knows is saved once an epoch."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Packed", "packed", "unpacked"]

Packed: TypeAlias = tuple[int, npt.NDArray[Any]]
"""The smallest value, and by how much each is larger."""


def packed(column: npt.NDArray[np.integer[Any]]) -> Packed:
    """Return a column of integers as plain data that later changes do not touch.

    >>> base, above = packed(np.array([1_000_007, 1_000_000], np.int64))
    >>> base, above.tolist(), above.dtype.name
    (1000000, [7, 0], 'uint8')
    """
    if not len(column):
        return 0, np.empty(0, np.uint8)
    base = int(column.min())
    # Unsigned and modulo the width: exact however far apart the values are.
    unsigned = _unsigned(column.dtype)
    above = column.view(unsigned) - unsigned.type(base % 2 ** (8 * unsigned.itemsize))
    return base, above.astype(np.min_scalar_type(int(above.max())))


def unpacked(column: Packed, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a new column that `packed` was given, of the type it had.

    >>> unpacked(packed(np.array([-1, 5], np.int32)), np.int32)
    array([-1,  5], dtype=int32)
    """
    base, above = column
    unsigned = _unsigned(np.dtype(dtype))
    values = above.astype(unsigned) + unsigned.type(base % 2 ** (8 * unsigned.itemsize))
    return np.asarray(values.view(dtype))


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")
