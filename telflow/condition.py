"""Conditions on records that a settings file can state; code has pyarrow and polars for the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from telflow.batch import Level, TelemetryBatch
from telflow.schema import Signal
from telflow.settings import Settings

__all__ = ["Condition", "glob_mask"]

_NAME_COLUMNS = {Signal.TRACES: "name", Signal.METRICS: "name", Signal.LOGS: "event_name"}


class Condition(Settings):
    """A record fits when all that is stated here is true of it."""

    signals: frozenset[Signal] = Field(default=frozenset(Signal), min_length=1)
    """Signals it is about; records of others never fit."""

    names: tuple[str, ...] = ()
    """The name of the span, metric or log event is one of these; `*` stands for any characters, `?` for one."""

    attributes: Mapping[str, tuple[str, ...]] = {}
    """Each attribute is there, and its value as text is one of those listed, with `*` and `?` as above."""

    level: Level = "record"
    """Whose attributes: `record`, `resource` or `scope`."""

    severity_below: int | None = Field(default=None, ge=2, le=24)
    """Log records of a lower severity number (9 is INFO, 13 WARN, 17 ERROR); one without a severity does not fit."""

    reason: str = Field(default="unwanted", min_length=1)
    """Under which records that fit are counted."""

    @model_validator(mode="after")
    def _states_something(self) -> Self:
        if not self.names and not self.attributes and self.severity_below is None:
            raise ValueError("expected names, attributes or severity_below, got a condition that fits every record")
        if self.severity_below is not None and self.signals != frozenset({Signal.LOGS}):
            raise ValueError("expected signals: [logs] beside severity_below, because only log records have a severity")
        return self

    def fits(self, batch: TelemetryBatch) -> pa.BooleanArray:
        """Return for each record whether it fits; never null."""
        if batch.signal not in self.signals:
            return pa.array(np.zeros(batch.num_rows, bool))
        found = pa.array(np.ones(batch.num_rows, bool))
        if self.names:
            found = pc.and_(found, glob_mask(batch.column(_NAME_COLUMNS[batch.signal]), self.names))
        for key, values in self.attributes.items():
            text = batch.attribute(key, level=self.level, type=pa.string())
            found = pc.and_(found, glob_mask(text, values))
        if self.severity_below is not None:
            severity = batch.column("severity_number")
            found = pc.and_(found, pc.and_(pc.greater(severity, 0), pc.less(severity, self.severity_below)))
        return found

    def others(self, batch: TelemetryBatch) -> pa.BooleanArray:
        """Return for each record whether it does not fit."""
        return pc.invert(self.fits(batch))


def glob_mask(text: pa.StringArray, globs: Iterable[str]) -> pa.BooleanArray:
    """Return whether each text is matched, whole, by one of the globs; null counts as no.

    >>> glob_mask(pa.array(["GET /health", "POST /cart", None]), ["GET /h*", "*?cart"]).to_pylist()
    [True, True, False]
    """
    either = "|".join(_regex(glob) for glob in globs)
    # RE2: linear in the text, whatever the glob
    return pc.fill_null(pc.match_substring_regex(text, f"(?s)^(?:{either})$"), fill_value=False)


def _regex(glob: str) -> str:
    parts = re.split(r"([*?])", glob)
    return "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
