"""Options of an aggregation."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Discriminator, Field, model_validator

from telflow.accumulator import Measure
from telflow.aggregation.measures import AnyMeasure
from telflow.batch import TelemetryBatch
from telflow.condition import Criteria
from telflow.fields import EVENT_TIMES, AnyField, FieldRef, needed_columns
from telflow.schema import Signal
from telflow.series import MAX_SERIES_LIMIT
from telflow.settings import Duration, Settings
from telflow.windows import Ints, WindowShape

__all__ = ["RESERVED", "AggregateSettings", "AnyWindow", "SessionWindow", "SlidingWindow", "TumblingWindow", "nanos"]

RESERVED = ("tenant", "window_start_unix_nano", "window_end_unix_nano", "kind", "overflow", "resource_attributes")
"""Columns every result has."""


class TumblingWindow(Settings):
    """Windows one after the other."""

    kind: Literal["tumbling"] = "tumbling"
    """Windows begin at the multiples of their length."""
    length: Duration
    """Length of a window."""


class SlidingWindow(Settings):
    """Windows that overlap."""

    kind: Literal["sliding"] = "sliding"
    """Windows begin at the multiples of the slide."""
    length: Duration
    """Length of a window."""
    slide: Duration
    """From the start of one window to that of the next; the length is a multiple of it."""


class SessionWindow(Settings):
    """Windows that last as long as a series has records."""

    kind: Literal["session"] = "session"
    """A window ends when its series pauses."""
    gap: Duration
    """Pause that ends a session; the session's end is that long after its last record."""


def _window(value: object) -> object:
    return {"kind": "tumbling", "length": value} if isinstance(value, str | timedelta) else value


AnyWindow = Annotated[TumblingWindow | SlidingWindow | SessionWindow, Discriminator("kind")]
"""One of the kinds of windows."""


def nanos(duration: timedelta) -> int:
    """Return a duration in nanoseconds."""
    return duration // timedelta(microseconds=1) * 1000


class AggregateSettings(Settings):
    """Options of `aggregate`.

    >>> settings = AggregateSettings.model_validate(
    ...     {"by": ["service.name"], "measures": {"requests": {"kind": "count"}}, "window": "1m"}
    ... )
    >>> settings.window
    TumblingWindow(kind='tumbling', length=datetime.timedelta(seconds=60))
    """

    by: tuple[AnyField, ...] = ()
    """What tells series apart, besides the tenant: columns and attributes."""
    measures: Annotated[dict[str, AnyMeasure], Field(min_length=1)]
    """What is measured, by the name of the result."""
    window: Annotated[AnyWindow, BeforeValidator(_window)]
    """Windows of event time; a duration alone means tumbling windows of that length."""
    signals: frozenset[Signal] = Field(default=frozenset(Signal), min_length=1)
    """Records of other signals are ignored."""
    conditions: tuple[Criteria, ...] = ()
    """Only records that fit one of these are measured; others are as if they were not there. None stated: all are."""
    resource_attributes: tuple[str, ...] = ()
    """Attributes of resources that tell series apart and stay on the resources of the results: names, with `*` and `?`;
    `["*"]` means all. The keys in `by` are attributes of the points then, wherever they come from."""
    lateness: Duration = timedelta(seconds=5)
    """How much out of order records may be and still count."""
    late: Literal["drop", "side_output", "correct"] = "drop"
    """What becomes of a record whose windows are all closed: dropped and counted; the same, and passed on whole;
    or counted in a correction of each of its windows, for as long as `correct_for` says."""
    correct_for: Duration = timedelta(minutes=5)
    """How long after its end a window is kept to be corrected, in event time."""
    early: Duration | None = None
    """Emit what open windows hold each time event time has come this much further; such results are of kind `early`."""
    max_ahead: Duration = timedelta(minutes=5)
    """A record further ahead of the system clock than this is refused; its clock is wrong."""
    idle_timeout: Duration | None = timedelta(seconds=10)
    """After this long without records the system clock moves the watermark on, so that the last windows close.
    Null: only records do, which makes a slow replay give exactly the windows of a fast one."""
    emit_on_eof: bool = False
    """Emit all open windows when the input ends. For finite inputs (a replay, a test)."""
    temporality: Literal["delta", "cumulative"] = "delta"
    """`cumulative`: counts, sums and histograms cover all since their series began, and every window repeats the series
    that had no records, until they expire. Tumbling windows only."""
    max_series: Annotated[int, Field(ge=1, le=MAX_SERIES_LIMIT)] = 10_000
    """Most series per tenant; records of further ones are measured in one overflow series of the tenant."""
    series_expiry: Duration = timedelta(minutes=15)
    """A series is forgotten this long (in event time) after its last window."""
    shards: Annotated[int, Field(ge=1, le=256)] = 1
    """Over how many keys the series of one tenant are spread, so that several workers share them; each shard has its
    own event time and its part of `max_series`."""
    namespace: str = ""
    """What the names of metrics start with, and a dot."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [*self.key_columns(), *self.measures]
        for name in names:
            if names.count(name) > 1 or name in RESERVED:
                raise ValueError(f"{name}: expected keys and measures of different names other than {RESERVED[1:]}")
        if any(field.name == "tenant" and field.column_level for field in self.by):
            raise ValueError("by: the tenant is always a key; leave it out")
        for name in ("lateness", "correct_for", "max_ahead", "idle_timeout"):
            value = getattr(self, name)
            if value is not None and value < timedelta():
                raise ValueError(f"{name}: expected at least 0, got {value}")
        if self.early is not None and self.early < timedelta(milliseconds=1):
            raise ValueError(f"early: expected at least 1ms, got {self.early}")
        if self.series_expiry < self.length:
            raise ValueError(f"series_expiry: expected at least one window ({self.length}), got {self.series_expiry}")
        if self.shards > self.max_series:
            raise ValueError(f"shards: expected at most max_series ({self.max_series}), got {self.shards}")
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        session = isinstance(self.window, SessionWindow)
        if self.late == "correct" and session:
            raise ValueError("late: expected drop or side_output for session windows, got correct")
        if self.temporality == "cumulative":
            if not isinstance(self.window, TumblingWindow):
                raise ValueError("temporality: expected delta unless windows are tumbling, got cumulative")
            if self.late == "correct" or self.early is not None:
                raise ValueError("temporality: expected delta for early results and corrections, got cumulative")
        if self.length < timedelta(milliseconds=1):
            raise ValueError(f"window: expected at least 1ms, got {self.length}")
        if isinstance(self.window, SlidingWindow):
            slide = self.window.slide
            if not timedelta(milliseconds=1) <= slide <= self.length or self.length % slide:
                raise ValueError(f"window: expected a slide that divides {self.length}, got {slide}")
        return self

    @property
    def length(self) -> timedelta:
        """Length of a window, or the gap of sessions."""
        return self.window.gap if isinstance(self.window, SessionWindow) else self.window.length

    def window_shape(self) -> WindowShape:
        """The windows in nanoseconds."""
        return WindowShape(
            nanos(self.length),
            nanos(self.lateness),
            nanos(self.max_ahead),
            nanos(self.window.slide) if isinstance(self.window, SlidingWindow) else 0,
            nanos(self.correct_for) if self.late == "correct" else 0,
        )

    def key_columns(self) -> list[str]:
        """Columns of the results that hold the keys: their names, or `by_` and the name where that is reserved."""
        return [f"by_{field.name}" if field.name in RESERVED else field.name for field in self.by]

    def columns(self) -> dict[str, Measure]:
        """What is accumulated, by measure and column."""
        return {
            f"{name}.{column}": measure
            for name, measures in self.measures.items()
            for column, measure in measures.columns().items()
        }

    def key_types(self) -> list[pa.DataType]:
        """Arrow types of the dimensions, the tenant first; that of resource keys last, if there are any."""
        return [pa.string(), *(field.dtype for field in self.by), *([pa.binary()] if self.resource_attributes else [])]

    def chosen(self, batch: TelemetryBatch) -> Ints | None:
        """Return the row numbers of the records that fit a condition; None: all of them."""
        if not self.conditions:
            return None
        fits = functools.reduce(pc.or_, (condition.fits(batch) for condition in self.conditions))
        return None if fits.true_count == batch.num_rows else np.flatnonzero(fits.to_numpy(zero_copy_only=False))

    def reads(self, signal: Signal) -> list[str]:
        """Columns of `records` that are read."""
        fields: list[FieldRef] = [*self.by, *(field for m in self.measures.values() for field in m.fields)]
        wanted = {*needed_columns(fields, signal), *EVENT_TIMES[signal]}
        return sorted(wanted)

    def shape(self) -> dict[str, Any]:
        """What the state of running windows depends on; other options may change between runs."""
        kept = {"by", "measures", "window", "temporality", "signals", "conditions", "resource_attributes"}
        # Not as JSON: sets become lists there, in another order in each process, which is no change of the settings.
        return self.model_dump(include=kept) | {"corrects": self.late == "correct"}
