"""edit_attributes: put, delete and rename attributes of records, resources and scopes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import bytewax.operators as op
from bytewax.dataflow import Stream, operator
from pydantic import BeforeValidator, Field, field_validator, model_validator

from telflow.attributes import matching_keys
from telflow.batch import Level, TelemetryBatch
from telflow.schema import Signal
from telflow.settings import Settings

__all__ = [
    "DeleteAttributes",
    "Edit",
    "EditAttributesSettings",
    "PutAttributes",
    "RenameAttributes",
    "edit_attributes",
    "edit_batch",
]


def _fits(value: object) -> object:
    """Refuse an integer no attribute can hold, which would become a float otherwise."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"expected an integer of 64 bits, got {value}")
    return value


_Value = Annotated[str | bool | int | float, BeforeValidator(_fits)]


class PutAttributes(Settings):
    """Give attributes a value."""

    action: Literal["upsert", "insert", "update"]
    """insert: where the key is absent; update: where it is present; upsert: everywhere."""

    level: Level = "record"
    """Where."""

    values: dict[str, _Value] = Field(min_length=1)
    """The value of each key."""


class DeleteAttributes(Settings):
    """Remove attributes by name."""

    action: Literal["delete"] = "delete"
    """What to do."""

    level: Level = "record"
    """Where."""

    keys: frozenset[str] = frozenset()
    """Whole names."""

    pattern: str | None = None
    """Regular expression that a whole name must match, for example `http[.]request[.]header[.].*`."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"expected a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _names_something(self) -> DeleteAttributes:
        if not self.keys and self.pattern is None:
            raise ValueError("expected keys, a pattern, or both")
        return self


class RenameAttributes(Settings):
    """Give attributes other names, all at once."""

    action: Literal["rename"] = "rename"
    """What to do."""

    level: Level = "record"
    """Where."""

    names: dict[str, str] = Field(min_length=1)
    """The new name of each old one. An attribute that already has the new name gives way."""


Edit = Annotated[PutAttributes | DeleteAttributes | RenameAttributes, Field(discriminator="action")]
"""One step of `edit_attributes`."""


class EditAttributesSettings(Settings):
    """What `edit_attributes` does, in order."""

    edits: tuple[Edit, ...] = Field(min_length=1)
    """Each works on what the one before left."""

    signals: frozenset[Signal] = Field(default=frozenset(Signal), min_length=1)
    """Signals it is done to; others pass."""


def edit_batch(batch: TelemetryBatch, settings: EditAttributesSettings) -> TelemetryBatch:
    """Return `batch` with its attributes edited.

    >>> settings = EditAttributesSettings(edits=[DeleteAttributes(keys=["http.user_agent"])])
    >>> edit_batch(TelemetryBatch.empty(Signal.LOGS), settings).num_rows
    0
    """
    if batch.signal not in settings.signals:
        return batch
    for edit in settings.edits:
        match edit:
            case PutAttributes():
                batch = batch.with_attributes(edit.level, edit.values, mode=edit.action)
            case DeleteAttributes():
                batch = batch.drop_attributes(_doomed(batch, edit), edit.level)
            case RenameAttributes():
                batch = batch.rename_attributes(edit.names, edit.level)
    return batch


def _doomed(batch: TelemetryBatch, edit: DeleteAttributes) -> frozenset[str]:
    if edit.pattern is None:
        return edit.keys
    return edit.keys.union(matching_keys(batch.attributes(edit.level), re.compile(edit.pattern).fullmatch))


@operator
def edit_attributes(
    step_id: str,  # noqa: ARG001 - Bytewax prefixes the inner steps with it
    up: Stream[TelemetryBatch],
    settings: EditAttributesSettings,
) -> Stream[TelemetryBatch]:
    """Put, delete and rename attributes.

    Args:
        step_id: Unique ID.
        up: Batches.
        settings: What to do, in order.

    Returns:
        The same records with other attributes.
    """
    return op.map("map", up, lambda batch: edit_batch(batch, settings))
