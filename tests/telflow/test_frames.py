"""Columns in other libraries' layouts, fitted into ours."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from telflow.errors import BatchError
from telflow.frames import fit_column
from telflow.schema import RECORD_SCHEMAS, Signal

POINT = pa.struct([pa.field("n", pa.int32(), nullable=False), pa.field("tags", pa.list_(pa.string()), nullable=False)])
FIELD = pa.field("points", pa.list_(pa.field("item", POINT, nullable=False)))
LOOSE = pa.large_list(pa.struct([("n", pa.int64()), ("tags", pa.large_list(pa.string_view()))]))


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_nested_layouts_are_fitted(offset: int) -> None:
    """Large lists and views become lists and text at every depth, from a slice too; nulls stay where they may be."""
    values: list[Any] = [[], None, [{"n": 1, "tags": ["a", "b"]}, {"n": 2, "tags": []}], [{"n": 3, "tags": ["c"]}]]
    fitted = fit_column(pa.array(values, LOOSE).slice(offset), FIELD, "points")
    fitted.validate(full=True)
    assert fitted.type == FIELD.type
    assert fitted.to_pylist() == values[offset:]


def test_required_children_of_a_null_struct_are_empty() -> None:
    """Where the whole value is null its required children are too in other layouts; ours hold an empty value."""
    loose = pa.struct([("n", pa.int64()), ("tags", pa.large_list(pa.string()))])
    values = [{"n": 1, "tags": ["a"]}, None, {"n": 2, "tags": []}]
    fitted = fit_column(pa.array(values, loose), pa.field("point", POINT), "point")
    fitted.validate(full=True)
    assert fitted.to_pylist() == values
    assert fitted.field("n").null_count == 0
    assert fitted.field("tags").null_count == 0


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (pa.array([[{"n": None, "tags": []}]], LOOSE), r"column points\[\].n: expected no nulls, got 1"),
        (pa.array([[{"n": 2**40, "tags": []}]], LOOSE), r"column points\[\].n: .*1099511627776"),
        (pa.array([[None]], LOOSE), r"column points\[\]: expected no nulls, got 1"),
        (pa.array([[1]]), r"column points\[\]: expected struct<n: int32 not null.*got int64"),
        (pa.array([[{"m": 1, "tags": []}]]), r"column points\[\]: expected struct"),
        (pa.array(["x"]), r"column points: expected list<.*got string"),
        (pa.array([{"n": 1}]), r"column points: expected list<.*got struct"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(values: pa.Array, complaint: str) -> None:
    """A null, a number too large or another type anywhere inside: an error with the place."""
    with pytest.raises(BatchError, match=complaint):
        fit_column(values, FIELD, "points")


def test_every_column_fits_itself() -> None:
    """What is in our layout already stays the same."""
    for signal in Signal:
        for field in RECORD_SCHEMAS[signal]:
            empty = pa.array([], field.type)
            assert fit_column(empty, field, field.name).equals(empty)
