"""Distinct counts: hashes that tell values apart and never change, sketches that merge to the same estimate."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from telflow.distinct import DistinctColumn, hash_values


def _column(values: list[str]) -> DistinctColumn:
    column = DistinctColumn(10)
    column.grow(2)
    column.add(np.zeros(len(values), np.int64), hash_values(pa.array(values)))
    return column


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["", "a", "b", "aa", "ab", "ba", "\0", "\0\0", "ж"]),
        pa.array([b"", b"a", b"\0"]),
        pa.array([bytes(16), bytes(15) + b"a"], pa.binary(16)),
        pa.array([0, 1, -1, 2**62]),
        pa.array([0, 2**64 - 1], pa.uint64()),
        pa.array([0.0, 1.5, -1.5]),
        pa.array([True, False]),
    ],
)
def test_different_values_have_different_hashes(values: pa.Array) -> None:
    """Of every kind, wherever in a buffer they stand; null has none."""
    hashes = hash_values(values)
    assert len(set(hashes.tolist())) == len(values)
    assert 0 not in hashes.tolist()
    shifted = pa.concat_arrays([pa.array([None, values[0].as_py()], values.type), values]).slice(2)
    assert hash_values(shifted).tolist() == hashes.tolist()
    assert hash_values(pa.nulls(2, values.type)).tolist() == [0, 0]


def test_hashes_never_change() -> None:
    """Sketches of yesterday's release go on."""
    assert hash_values(pa.array(["telflow"])).tolist() == [-4646276300777398223]
    assert hash_values(pa.array([1])).tolist() == [6238072747940578789]
    assert hash_values(pa.array([1.0, -0.0, 0.0])).tolist()[1] == hash_values(pa.array([0.0])).tolist()[0]


def test_the_estimate_does_not_depend_on_the_way() -> None:
    """One sketch, two merged, or one restored and one from another process: equal, and near the truth."""
    values = [f"user {n}" for n in range(5000)]
    whole, part, rest = _column(values), _column(values[:3000]), _column(values[2000:])
    crossed = DistinctColumn(10)
    crossed.from_arrow(rest.to_arrow())
    part.merge(crossed, np.array([0, 1]))
    again = DistinctColumn(10)
    again.restore(part.state())
    reverse = _column(values[::-1])
    slots = np.array([0, 1])
    found = {tuple(column.estimates(slots).tolist()) for column in (whole, again, reverse)}
    assert len(found) == 1
    ((estimate, none),) = found
    assert none == 0
    assert abs(estimate / 5000 - 1) < 3 * 1.04 / np.sqrt(1024)


def test_slots_can_be_cleared_kept_and_taken() -> None:
    """The others keep what they have."""
    column = _column(["a", "b"])
    column.add(np.array([1]), hash_values(pa.array(["c"])))
    assert column.take(np.array([1])).estimates(np.array([0])).tolist() == [1]
    column.keep(np.array([1, 0]))
    column.clear(np.array([0]))
    assert column.estimates(np.array([0, 1])).tolist() == [0, 2]
