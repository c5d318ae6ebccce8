"""Conditions on records that a settings file can state; code has pyarrow and polars for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from telflow.batch import Level, TelemetryBatch
from telflow.fields import body_text
from telflow.globs import glob_mask
from telflow.schema import Signal
from telflow.settings import Settings

__all__ = ["Condition", "Criteria"]

_NAME_COLUMNS = {Signal.TRACES: "name", Signal.METRICS: "name", Signal.LOGS: "event_name"}


_STATUSES = ("unset", "ok", "error")


class Criteria(Settings):
    """A record fits when all that is stated here is true of it."""

    signals: frozenset[Signal] = Field(default=frozenset(Signal), min_length=1)
    """Signals it is about; records of others never fit."""

    names: tuple[str, ...] = ()
    """The name of the span, metric or log event is one of these; `*` stands for any characters, `?` for one."""

    attributes: Mapping[str, tuple[str, ...]] = {}
    """Each attribute is there, and its value as text is one of those listed, with `*` and `?` as above."""

    level: Level = "record"
    """Whose attributes: `record`, `resource` or `scope`."""

    bodies: tuple[str, ...] = ()
    """The body of the log record, as text, is one of these, with `*` and `?` as above."""

    severity_at_least: int | None = Field(default=None, ge=1, le=24)
    """Log records of this severity number or a higher one (9 is INFO, 13 WARN, 17 ERROR)."""

    severity_below: int | None = Field(default=None, ge=2, le=24)
    """Log records of a lower severity number; one without a severity does not fit."""

    status: tuple[Literal["unset", "ok", "error"], ...] = ()
    """The status of the span is one of these."""

    @model_validator(mode="after")
    def _states_something(self) -> Self:
        if not self.names and not self.attributes and not self._of_logs and not self.status:
            raise ValueError(
                "expected names, attributes, bodies, a severity or status, got a condition that fits every record"
            )
        return self

    @property
    def _of_logs(self) -> bool:
        return bool(self.bodies) or self.severity_at_least is not None or self.severity_below is not None

    def fits(self, batch: TelemetryBatch) -> pa.BooleanArray:
        """Return for each record whether it fits; never null."""
        impossible = (self._of_logs and batch.signal is not Signal.LOGS) or (
            self.status and batch.signal is not Signal.TRACES
        )
        if batch.signal not in self.signals or impossible:
            return pa.array(np.zeros(batch.num_rows, bool))
        found = pa.array(np.ones(batch.num_rows, bool))
        if self.names:
            found = pc.and_(found, glob_mask(batch.column(_NAME_COLUMNS[batch.signal]), self.names))
        for key, values in self.attributes.items():
            text = batch.attribute(key, level=self.level, type=pa.string())
            found = pc.and_(found, glob_mask(text, values))
        if self.bodies:
            found = pc.and_(found, glob_mask(body_text(batch.column("body")), self.bodies))
        if self.severity_at_least is not None:
            found = pc.and_(found, pc.greater_equal(batch.column("severity_number"), _int32(self.severity_at_least)))
        if self.severity_below is not None:
            severity = batch.column("severity_number")
            found = pc.and_(
                found, pc.and_(pc.greater(severity, _int32(0)), pc.less(severity, _int32(self.severity_below)))
            )
        if self.status:
            numbers = pa.array([_STATUSES.index(status) for status in self.status], pa.int32())
            found = pc.and_(found, pc.is_in(pc.fill_null(batch.column("status_code"), _int32(0)), value_set=numbers))
        return found

    def others(self, batch: TelemetryBatch) -> pa.BooleanArray:
        """Return for each record whether it does not fit."""
        return pc.invert(self.fits(batch))


class Condition(Criteria):
    """A record fits when all that is stated here is true of it, and is then counted under a reason."""

    reason: str = Field(default="unwanted", min_length=1)
    """Under which records that fit are counted."""

    @model_validator(mode="after")
    def _is_of_logs(self) -> Self:
        stated = [name for name in ("severity_at_least", "severity_below") if getattr(self, name) is not None]
        if stated and self.signals != frozenset({Signal.LOGS}):
            raise ValueError(f"expected signals: [logs] beside {stated[0]}, because only log records have a severity")
        return self


def _int32(value: int) -> pa.Scalar:
    # With its type: to infer one pyarrow looks for pandas, each time anew (0.1 ms).
    return pa.scalar(value, pa.int32())
