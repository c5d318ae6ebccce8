"""References to a value of a record: a fixed column or an attribute, of the record, its resource or its scope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

from telflow.attributes import extract_attribute
from telflow.dimensions import first_values, typed, typed_scalar
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal
from telflow.settings import Settings

__all__ = [
    "EVENT_TIMES",
    "AnyField",
    "FieldRef",
    "Records",
    "as_attribute",
    "body_text",
    "event_times",
    "needed_columns",
    "parse_numbers",
]

Floats: TypeAlias = npt.NDArray[np.float64]

_DURATION = "duration_s"
_BODY = "body"
_GROUP = "value"
_NUMBER = r"^\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*$"
_TYPES = {
    "string": pa.string(),
    "int": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "any": pa.binary(),
}

EVENT_TIMES = {
    Signal.TRACES: ("end_time_unix_nano",),
    Signal.LOGS: ("time_unix_nano", "observed_time_unix_nano"),
    Signal.METRICS: ("time_unix_nano",),
}
"""Columns that say when a record happened: a span when it ended, a log record without a time when it was observed."""
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
    type: Literal["string", "int", "double", "bool", "any"] = "string"
    """Type of an attribute's values as a key; others have no value. As `string` every value counts, as text; as `any`
    every value counts as what it is, so that 1 and "1" are two."""
    default: str | bool | int | float | None = None
    """Value as a key of a record that has none."""
    required: bool = False
    """As a key: a record without a value, and without a default, is not measured."""
    parse: bool = False
    """As a number: text that is one counts too, such as "12.5"."""
    pattern: str | None = None
    """Take only a part of the text: what the group `value` of this regular expression (RE2) matches, as in
    `took (?P<value>[0-9.]+) ms`; as a number if it is one. Text that does not match is no value."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pattern is not None:
            try:
                groups = [part.name for part in pc.extract_regex(pa.array([], pa.string()), self.pattern).type]
            except pa.ArrowInvalid as error:
                raise ValueError(f"pattern: expected a regular expression with named groups: {error}") from error
            if _GROUP not in groups:
                raise ValueError(f"pattern: expected a group (?P<{_GROUP}>...), got {self.pattern}")
        if self.default is not None:
            try:
                self.default_value()
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise ValueError(f"default: expected a value of type {self.type}, got {self.default!r}") from error
        return self

    def default_value(self) -> pa.Scalar:
        """The default as a value of `dtype`."""
        if self.is_typed:
            assert self.default is not None  # noqa: S101 - asked for only where there is one
            return pa.scalar(typed_scalar(self.default), pa.binary())
        return pa.scalar(str(self.default) if pa.types.is_string(self.dtype) else self.default, self.dtype)

    @property
    def is_typed(self) -> bool:
        """Whether keys are typed values (`telflow.dimensions`), which hold any kind of attribute value."""
        return self.type == "any" and self.column_level is None and self.pattern is None

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
        if self.pattern is not None:
            return pa.string()
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
        found = self._key(field)
        if field.pattern is not None:
            found = _each(found, lambda values: _extract(values, field.pattern or ""))
        if field.default is not None:
            found = _each(found, lambda values: values.fill_null(field.default_value()))
        return found

    def times(self) -> npt.NDArray[np.uint64]:
        """Return when each record happened."""
        return event_times(self.signal, self._records)

    def resources(self, values: pa.Array) -> pa.DictionaryArray:
        """Return what is known of each resource, for each record."""
        return self._spread("resource", values)

    def _key(self, field: FieldRef) -> pa.Array:
        level = field.column_level
        if level in self._tables:
            return self._spread(level, self._tables[level][field.name].cast(field.dtype))
        if level == "record":
            return self._column(field)
        dtype = _TYPES["string"] if field.pattern is not None else field.dtype
        if field.level in self._tables:
            return self._spread(field.level, self._attribute(field.level, field, dtype))
        return self._found(field, dtype)

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
        if field.pattern is not None or field.parse or (field.name == _BODY and field.column_level == "record"):
            column = self._text_numbers(field)
        elif field.column_level is not None:
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

    def _text_numbers(self, field: FieldRef) -> pa.Array:
        """Numbers out of text."""
        if field.name == _BODY and field.column_level == "record" and not field.parse and field.pattern is None:
            if self.signal is not Signal.LOGS:
                return pa.nulls(len(self), pa.float64())
            body = self._records[_BODY]
            return pc.coalesce(pc.struct_field(body, "double"), pc.struct_field(body, "int").cast(pa.float64()))
        plain = field if field.column_level is not None else field.model_copy(update={"type": "string"})
        text = self.key(plain.model_copy(update={"default": None}))
        if pa.types.is_dictionary(text.type):
            return _each(text, parse_numbers).dictionary_decode()
        return parse_numbers(text) if pa.types.is_string(text.type) else text

    def _column(self, field: FieldRef) -> pa.Array:
        names = self._records.schema.names
        if field.name == _DURATION and self.signal is Signal.TRACES:
            start = self._records["start_time_unix_nano"].to_numpy()
            end = self._records["end_time_unix_nano"].to_numpy()
            return pa.array((end - np.minimum(start, end)) / 1e9)  # a span that ends before it starts took 0
        if field.name == _BODY and self.signal is Signal.LOGS:
            return body_text(self._records[_BODY])
        if field.name == "value_double" and "value_int" in names:
            # A number point's value, whichever way it is written.
            return pc.coalesce(self._records["value_double"], self._records["value_int"].cast(pa.float64()))
        if field.name not in names:
            return pa.nulls(len(self), field.dtype)
        column = self._records[field.name]
        return column if column.type == field.dtype else column.cast(field.dtype, safe=False)

    def _attribute(self, level: str, field: FieldRef, dtype: pa.DataType) -> pa.Array:
        table = self._records if level == "record" else self._tables[level]
        if pa.types.is_binary(dtype):
            return typed(first_values(table["attributes"], field.name))
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


def event_times(signal: Signal, records: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    """Return when each record happened, in Unix nanoseconds; see `EVENT_TIMES`."""
    first, *others = EVENT_TIMES[signal]
    times = records[first].to_numpy()
    for other in others:
        unset = times == 0
        if unset.any():
            times = np.where(unset, records[other].to_numpy(), times)
    return np.asarray(times)


def body_text(body: pa.StructArray) -> pa.StringArray:
    """Return log bodies that are text, a number or a boolean as text; null for others.

    >>> from telflow.columns import any_values
    >>> body_text(any_values(pa.array([7, None]))).to_pylist()
    ['7', None]
    """
    text, *others = (pc.struct_field(body, name) for name in ("str", "int", "double", "bool"))
    for column in others:
        if column.null_count < len(column):
            text = pc.coalesce(text, column.cast(pa.string()))
    return text


def parse_numbers(text: pa.StringArray) -> pa.DoubleArray:
    """Return the numbers that texts are, null where one is something else.

    >>> parse_numbers(pa.array(["12.5", " -3e2 ", "12 ms", "NaN", None])).to_pylist()
    [12.5, -300.0, None, None, None]
    """
    digits = pc.utf8_ltrim(pc.utf8_trim_whitespace(text), "+")
    return pc.if_else(pc.match_substring_regex(text, _NUMBER), digits, pa.scalar(None, pa.string())).cast(pa.float64())


def _extract(values: pa.Array, pattern: str) -> pa.StringArray:
    text = values if pa.types.is_string(values.type) else values.cast(pa.string())
    return pc.struct_field(pc.extract_regex(text, pattern), _GROUP)


def _each(values: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Change values, each distinct one once where that is how they are held."""
    if isinstance(values, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(values.indices, change(values.dictionary), safe=False)
    return change(values)


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
