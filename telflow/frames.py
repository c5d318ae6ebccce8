"""Record tables out of other libraries' layouts: the same values in the types that `telflow.schema` asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from telflow.errors import BatchError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["fit_column", "polars_from_records", "records_from_polars"]


def polars_from_records(records: pa.RecordBatch) -> pl.DataFrame:
    """Return `records` as a frame; text and numbers are shared, not copied."""
    import polars as pl  # here, because it takes 30 MB and most workers never need it

    frame = pl.from_arrow(records)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a record batch never becomes a series
    return frame


def records_from_polars(frame: pl.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    """Return `frame` as a record batch of `schema`.

    Raises:
        BatchError: A column is missing, unknown, of a type that does not fit, or null where it must not be.
    """
    if frame.columns != schema.names:
        missing, extra = set(schema.names) - set(frame.columns), set(frame.columns) - set(schema.names)
        found = [*(f"no {name}" for name in sorted(missing)), *(f"also {name}" for name in sorted(extra))]
        raise BatchError(
            f"expected the columns of to_polars() in their order: {', '.join(found) or 'they are in another order'}"
        )
    import polars as pl

    table = frame.to_arrow(compat_level=pl.CompatLevel.newest()).combine_chunks()
    columns = []
    for field, values in zip(schema, table.itercolumns(), strict=True):
        chunk = values.chunk(0) if values.num_chunks else pa.nulls(0, field.type)
        columns.append(fit_column(chunk, field, field.name))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def fit_column(values: pa.Array, field: pa.Field, path: str) -> pa.Array:
    """Return `values` in the type of `field`, from any type that can hold the same.

    polars has no required fields, large lists and views for text. pyarrow's own cast refuses a required field inside a
    null struct, which polars leaves null; here it gets the type's empty value.

    Args:
        values: One array.
        field: Its type, and whether nulls are allowed.
        path: What to call it in an error.

    Raises:
        BatchError: The type does not fit, or there is a null where it must not be.
    """
    if values.null_count and not field.nullable:
        raise BatchError(f"column {path}: expected no nulls, got {values.null_count}")
    if pa.types.is_list(field.type) and not isinstance(values, pa.ListArray | pa.LargeListArray):
        raise BatchError(f"column {path}: expected {field.type}, got {values.type}")
    if pa.types.is_list(field.type):
        return _fit_list(values, field, path)
    if pa.types.is_struct(field.type):
        return _fit_struct(values, field, path)
    try:
        return values.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BatchError(f"column {path}: {error}") from error


def _fit_list(values: pa.Array, field: pa.Field, path: str) -> pa.Array:
    lengths = values.value_lengths().fill_null(0).to_numpy()
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    items = fit_column(values.flatten(), field.type.value_field, f"{path}[]")
    mask = values.is_null() if values.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=field.type, mask=mask)


def _fit_struct(values: pa.Array, field: pa.Field, path: str) -> pa.Array:
    if not pa.types.is_struct(values.type) or [f.name for f in values.type] != [f.name for f in field.type]:
        raise BatchError(f"column {path}: expected {field.type}, got {values.type}")
    present = values.is_valid()
    children = []
    for number, child in enumerate(field.type):
        found = values.field(number)
        if not child.nullable and found.null_count and values.null_count:
            fitted = fit_column(found.filter(present), child, f"{path}.{child.name}")
            places = np.cumsum(present.to_numpy(zero_copy_only=False)) - 1
            padded = pa.concat_arrays([fitted, _empty_value(child.type)])
            children.append(padded.take(pa.array(np.where(present, places, len(fitted)))))
        else:
            children.append(fit_column(found, child, f"{path}.{child.name}"))
    mask = values.is_null() if values.null_count else None
    return pa.StructArray.from_arrays(children, fields=list(field.type), mask=mask)


def _empty_value(data_type: pa.DataType) -> pa.Array:
    if pa.types.is_list(data_type):
        return pa.array([[]], data_type)
    return pa.array([0]).cast(data_type) if pa.types.is_primitive(data_type) else pa.array([""]).cast(data_type)
