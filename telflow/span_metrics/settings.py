"""Options of span metrics."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from telflow.aggregation.settings import nanos
from telflow.series import MAX_SERIES_LIMIT
from telflow.settings import Duration, Settings, Switchable
from telflow.windows import WindowShape

__all__ = ["OVERFLOW", "OWN", "Dimension", "Events", "Exemplars", "SpanMetricsSettings"]

OWN = ("service.name", "span.name", "span.kind", "status.code")
"""Attributes of all metrics, unless they are excluded."""
OVERFLOW = "otel.metric.overflow"
"""The attribute of an overflow series (OpenTelemetry metrics SDK, "Cardinality limits")."""


class Dimension(Settings):
    """One more attribute of the metrics, taken from the spans."""

    name: Annotated[str, Field(min_length=1)]
    """Attribute key, for example `http.route`."""
    source: Literal["any", "span", "resource"] = "any"
    """Where the attribute is looked for; `any`: on the span, then on its resource."""
    default: str | bool | int | float | None = None
    """Value when there is none; without a default the metric does not have the attribute either."""


class Exemplars(Settings):
    """A few spans of each series go with its points."""

    max_per_data_point: Annotated[int, Field(ge=1, le=1000)] = 5
    """Most exemplars of a point. They are drawn evenly from all spans of the window that have a trace id."""


class Events(Settings):
    """A metric that counts events of spans."""

    dimensions: Annotated[tuple[Dimension, ...], Field(min_length=1)]
    """Attributes of this metric, besides `dimensions`: looked for on the event first, for example `exception.type`."""


class SpanMetricsSettings(Settings):
    """Options of `span_metrics`.

    >>> SpanMetricsSettings(window="1m", temporality="delta").window
    datetime.timedelta(seconds=60)
    """

    window: Duration = timedelta(seconds=10)
    """Length of a window of event time; each gives one point per series."""
    lateness: Duration = timedelta(seconds=5)
    """How much out of order spans may end and still count: a window closes that long after its end."""
    late: Literal["drop", "side_output"] = "drop"
    """What becomes of a span whose window is closed, or that ended too far ahead of the clock: counted as dropped; or
    that, and passed on whole, for which all spans have to travel to the worker that has their windows."""
    max_ahead: Duration = timedelta(minutes=5)
    """A span that ended further ahead of the system clock than this is refused; its clock is wrong."""
    idle_timeout: Duration | None = timedelta(seconds=10)
    """After this long without spans the system clock moves the watermark on, so that the last windows close.
    Null: only spans do, which makes a slow replay give exactly the windows of a fast one."""
    emit_on_eof: bool = False
    """Emit all open windows when the input ends. For finite inputs (a replay, a test). Leave it off where the flow
    stops and resumes: a drain looks the same, and windows are kept over it so that none is split."""
    histogram: Literal["explicit", "exponential", "none"] = "explicit"
    """Kind of the duration histogram: with `buckets`, with buckets that follow the values, or no such metric at all."""
    buckets: tuple[Duration, ...] = tuple(
        timedelta(milliseconds=ms)
        for ms in (2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10000, 15000)
    )
    """Upper bounds of an explicit histogram, inclusive, ascending; the last bucket has none."""
    max_size: Annotated[int, Field(ge=2, le=4096)] = 160
    """Most buckets of an exponential histogram."""
    unit: Literal["s", "ms"] = "s"
    """Unit of durations. Seconds are the semantic conventions' choice; older dashboards expect `ms`."""
    temporality: Literal["cumulative", "delta"] = "cumulative"
    """`delta`: a point counts the spans of its window. `cumulative`: all spans since the series began, and every
    window repeats the series that had no spans, until they expire."""
    dimensions: tuple[Dimension, ...] = ()
    """Further attributes of all metrics."""
    calls_dimensions: tuple[Dimension, ...] = ()
    """Further attributes of the `calls` metric only."""
    histogram_dimensions: tuple[Dimension, ...] = ()
    """Further attributes of the `duration` metric only."""
    exclude_dimensions: tuple[Literal["service.name", "span.name", "span.kind", "status.code"], ...] = ()
    """Attributes that metrics do not have; spans that differ in them only are counted together."""
    include_instrumentation_scope: tuple[str, ...] = ()
    """Spans of instrumentation scopes of these names, with `*` and `?`, are counted apart by scope: the metrics have
    `span.instrumentation.scope.name` and `.version`."""
    resource_attributes: tuple[str, ...] = ()
    """Attributes of resources that tell series apart and stay on the metrics' resources: names, with `*` and `?`;
    `["*"]` means all. None: resources are told apart by their service, and keep its name."""
    exemplars: Switchable[Exemplars] = None
    """Gives points exemplars: trace and span ids with the duration; false: none."""
    events: Switchable[Events] = None
    """Counts events of spans too; false: does not."""
    max_series: Annotated[int, Field(ge=1, le=MAX_SERIES_LIMIT)] = 10_000
    """Most series per key and metric; spans of further ones are counted in one series per tenant with the sole
    attribute `otel.metric.overflow` = true."""
    series_expiry: Duration | None = timedelta(minutes=15)
    """A series is forgotten this long (in event time) after its last window with spans; a cumulative one that comes
    back starts from zero with a new start time. Null: never."""
    namespace: str = "traces.span.metrics"
    """What the names of the metrics start with; may be empty."""

    @field_validator("buckets")
    @classmethod
    def _ascending(cls, buckets: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if list(buckets) != sorted(set(buckets)) or any(bound <= timedelta() for bound in buckets):
            raise ValueError(f"expected ascending bounds above 0, got {', '.join(str(bound) for bound in buckets)}")
        return buckets

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        events = self.events.dimensions if self.events is not None else ()
        for others in (self.calls_dimensions, self.histogram_dimensions, events):
            names = [dimension.name for dimension in (*self.dimensions, *others)]
            for name in names:
                if name in (*OWN, OVERFLOW):
                    raise ValueError(f"{name} is an attribute of span metrics already; remove it from the dimensions")
                if names.count(name) > 1:
                    raise ValueError(f"{name} is listed more than once")
        if self.histogram == "none" and self.histogram_dimensions:
            raise ValueError("histogram_dimensions: expected none where histogram is none, got some")
        return self

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.window < timedelta(milliseconds=1):
            raise ValueError(f"window: expected at least 1ms, got {self.window}")
        for name in ("lateness", "max_ahead", "idle_timeout", "series_expiry"):
            value = getattr(self, name)
            if value is not None and value < timedelta():
                raise ValueError(f"{name}: expected at least 0, got {value}")
        if self.series_expiry is not None and self.series_expiry < self.window:
            raise ValueError(f"series_expiry: expected at least one window ({self.window}), got {self.series_expiry}")
        return self

    def window_shape(self) -> WindowShape:
        """The windows in nanoseconds."""
        return WindowShape(nanos(self.window), nanos(self.lateness), nanos(self.max_ahead))

    def shape(self) -> dict[str, Any]:
        """What the state of running windows depends on; other options may change between runs."""
        free = {
            "lateness",
            "late",
            "max_ahead",
            "idle_timeout",
            "emit_on_eof",
            "max_series",
            "series_expiry",
            "namespace",
        }
        if self.histogram != "exponential":
            free |= {"unit", "max_size"}  # buckets of an exponential histogram are those of values in its unit
        if self.histogram != "explicit":
            free |= {"buckets"}
        return self.model_dump(mode="json", exclude=free)
