"""References to a value of a record: a fixed column or an attribute, of the record, its resource or its scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field

from telflow.attributes import extract_attribute
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal
from telflow.settings import Settings

__all__ = ["AnyField", "FieldRef", "Records", "as_attribute", "needed_columns"]

Floats: TypeAlias = npt.NDArray[np.float64]

_DURATION = "duration_s"
_BODY = "body"
_TYPES = {"string": pa.string(), "int": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
_TABLES = {"resource": RESOURCES, "scope": SCOPES}


def _plain(dtype: pa.DataType) -> pa.DataType | None:
    """The type a fixed column has as a key; None: it holds no plain value."""
    known = (pa.types.is_integer, pa.types.is_string, pa.types.is_boolean, pa.types.is_floating)
    if any(matches(dtype) for matches in known):
        return dtype
    return pa.binary() if pa.types.is_binary(dtype) or pa.types.is_fixed_size_binary(dtype) else None


def _columns(schemas: Sequence[pa.Schema]) -> dict[str, pa.DataType]:
    found = {field.name: _plain(field.type) for schema in schemas for field in schema}
    return {name: dtype for name, dtype in found.items() if dtype is not None and name not in ("resource", "scope")}


_COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "record": {**_columns(list(RECORD_SCHEMAS.values())), _DURATION: pa.float64(), _BODY: pa.string()},
    "resource": _columns([RESOURCES]),
    "scope": _columns([SCOPES]),
}


class FieldRef(Settings):
    """Where a value is found. A name alone is enough where it is clear.

    >>> FieldRef.model_validate({"name": "service.name", "level": "resource"}).dtype
    DataType(string)
    """

    name: Annotated[str, Field(min_length=1)]
    """A column of the record (`name`, `severity_number`, `duration_s` of a span ...), `tenant`, or an attribute key."""
    level: Literal["any", "record", "resource", "scope"] = "any"
    """Where an attribute is looked for; `any`: on the record, then on its resource, then on its scope."""
    source: Literal["any", "column", "attribute"] = "any"
    """`any`: a fixed column if there is one of that name, else the attribute."""
    type: Literal["string", "int", "double", "bool"] = "string"
    """Type of an attribute's values as a key; others have no value. As `string` every value counts, as text."""

    @property
    def column_level(self) -> str | None:
        """The table whose column this is; None: it is an attribute."""
        if self.source == "attribute":
            return None
        if self.name == "tenant" and self.level in ("any", "resource"):
            return "resource"
        level = "record" if self.level == "any" else self.level
        return level if self.name in _COLUMNS[level] or self.source == "column" else None

    @property
    def dtype(self) -> pa.DataType:
        """Arrow type of the values."""
        level = self.column_level
        return _TYPES[self.type] if level is None else _COLUMNS[level].get(self.name, pa.string())


def _reference(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


AnyField = Annotated[FieldRef, BeforeValidator(_reference)]
"""A `FieldRef`, or its name alone."""


class Records:
    """Some rows of a batch, whose fields can be read; what is read twice is worked out once.

    Args:
        signal: Of the batch.
        records: The rows, with the columns that are read.
        resources: Of the batch.
        scopes: Of the batch.
    """

    def __init__(
        self, signal: Signal, records: pa.RecordBatch, resources: pa.RecordBatch, scopes: pa.RecordBatch
    ) -> None:
        self.signal = signal
        self._records = records
        self._tables = {"resource": resources, "scope": scopes}
        self._numbers: dict[FieldRef, Floats] = {}
        self._missing: dict[FieldRef, npt.NDArray[np.bool_] | None] = {}

    def __len__(self) -> int:
        return int(self._records.num_rows)

    def key(self, field: FieldRef) -> pa.Array:
        """Return the values as `field.dtype`; a dictionary array where many rows share one."""
        level = field.column_level
        if level in self._tables:
            return self._spread(level, self._tables[level][field.name].cast(field.dtype))
        if level == "record":
            return self._column(field)
        if field.level in self._tables:
            return self._spread(field.level, self._attribute(field.level, field, field.dtype))
        return self._found(field, field.dtype)

    def numbers(self, field: FieldRef) -> Floats:
        """Return the values as float64; NaN where there is none, or one that is no finite number."""
        found = self._numbers.get(field)
        if found is None:
            found = self._numbers[field] = self._read_numbers(field)
        return found

    def missing(self, field: FieldRef) -> npt.NDArray[np.bool_] | None:
        """Return where there is no number; None: nowhere."""
        if field not in self._missing:
            gaps = np.isnan(self.numbers(field))
            self._missing[field] = gaps if gaps.any() else None
        return self._missing[field]

    def _read_numbers(self, field: FieldRef) -> Floats:
        if field.column_level is not None:
            column = self.key(field)
            if isinstance(column, pa.DictionaryArray):
                column = column.dictionary_decode()
        elif field.level in self._tables:
            column = self._attribute(field.level, field, pa.float64()).take(self._records[field.level])
        else:
            column = self._found(field, pa.float64())
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            return np.full(len(self), np.nan)
        if column.null_count or not pa.types.is_float64(column.type):
            column = column.cast(pa.float64(), safe=False).fill_null(np.nan)
        values = np.asarray(column.to_numpy())
        finite = np.isfinite(values)
        return values if finite.all() else np.where(finite, values, np.nan)

    def _column(self, field: FieldRef) -> pa.Array:
        names = self._records.schema.names
        if field.name == _DURATION and self.signal is Signal.TRACES:
            start = self._records["start_time_unix_nano"].to_numpy()
            end = self._records["end_time_unix_nano"].to_numpy()
            return pa.array((end - np.minimum(start, end)) / 1e9)  # a span that ends before it starts took 0
        if field.name == _BODY and self.signal is Signal.LOGS:
            return pc.struct_field(self._records[_BODY], "str")
        if field.name == "value_double" and "value_int" in names:
            # A number point's value, whichever way it is written.
            return pc.coalesce(self._records["value_double"], self._records["value_int"].cast(pa.float64()))
        if field.name not in names:
            return pa.nulls(len(self), field.dtype)
        column = self._records[field.name]
        return column if column.type == field.dtype else column.cast(field.dtype, safe=False)

    def _attribute(self, level: str, field: FieldRef, dtype: pa.DataType) -> pa.Array:
        table = self._records if level == "record" else self._tables[level]
        return extract_attribute(table["attributes"], field.name, dtype)

    def _found(self, field: FieldRef, dtype: pa.DataType) -> pa.Array:
        """The attribute's value on the record, or else, if asked for, on its resource or scope."""
        own = self._attribute("record", field, dtype)
        for level in self._tables if field.level == "any" else ():
            if not own.null_count:
                break
            inherited = self._attribute(level, field, dtype)
            if inherited.null_count < len(inherited):
                if own.null_count == len(own):
                    own = self._spread(level, inherited)
                    if level == "scope" or not inherited.null_count:
                        break
                    own = own.dictionary_decode()
                else:
                    own = pc.coalesce(own, inherited.take(self._records[level]))
        return own.dictionary_decode() if isinstance(own, pa.DictionaryArray) and dtype == pa.float64() else own

    def _spread(self, level: str, values: pa.Array) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(self._records[level], values, safe=False)  # the batch has checked these


def needed_columns(fields: Sequence[FieldRef], signal: Signal) -> list[str]:
    """Return the columns of `records` that reading these fields takes, of those the signal has."""
    wanted: set[str] = {"resource", "scope"}
    for field in fields:
        level = field.column_level
        if level == "record":
            wanted |= {field.name}
            wanted |= {"start_time_unix_nano", "end_time_unix_nano"} if field.name == _DURATION else set()
            wanted |= {"value_int"} if field.name == "value_double" else set()
        elif level is None and field.level in ("any", "record"):
            wanted.add("attributes")
    return [name for name in RECORD_SCHEMAS[signal].names if name in wanted]


def as_attribute(values: pa.Array) -> pa.Array:
    """Return key values as what an attribute can be: integers of 64 bits, bytes as hexadecimal text."""
    if pa.types.is_integer(values.type):
        return values.cast(pa.int64(), safe=False)
    if pa.types.is_floating(values.type):
        return values.cast(pa.float64())
    if pa.types.is_binary(values.type):
        coded: Any = values.dictionary_encode()
        texts = [None if value is None else value.hex() for value in coded.dictionary.to_pylist()]
        return pa.array(texts, pa.string()).take(coded.indices)
    return values
