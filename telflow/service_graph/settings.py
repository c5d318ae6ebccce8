"""Options of the service graph."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from telflow.series import MAX_SERIES_LIMIT
from telflow.settings import Duration, Settings

__all__ = ["ServiceGraphSettings", "nanos"]


class ServiceGraphSettings(Settings):
    """Options of `service_graph`.

    >>> ServiceGraphSettings(wait="5s").wait
    datetime.timedelta(seconds=5)
    """

    wait: Duration = timedelta(seconds=2)
    """How long, in event time, the one span of a request waits for the other (the Collector's `store.ttl`)."""
    max_items: Annotated[int, Field(ge=1, le=1 << 24)] = 100_000
    """Most spans of a tenant that wait at once; with `shards`, they share it. Further ones are left out and counted
    (`store full`)."""
    shards: Annotated[int, Field(ge=1, le=4096)] = 4
    """Parts in which the spans of a tenant are paired, by trace id, so that several workers do it."""
    dimensions: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Attributes of spans, or else of their resources, to add to the metrics: of the client's span with the prefix
    `client_`, of the server's with `server_`."""
    virtual_nodes: bool = True
    """Whether requests with one span only show what they come from (`user`) or go to (a peer), if that is known."""
    virtual_node_peer_attributes: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "peer.service",
        "db.name",
        "db.system",
    )
    """Attributes of a client's span that name a peer without spans of its own; the first that is there counts."""
    virtual_node_extra_label: bool = False
    """Add `virtual_node` = `client` or `server` to such requests, saying which it is."""
    database_name_attribute: Annotated[str, Field(min_length=1)] = "db.name"
    """A client's span with this attribute is a request to that database, which has no span of its own."""
    buckets: tuple[Duration, ...] = tuple(
        timedelta(milliseconds=ms)
        for ms in (2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10000, 15000)
    )
    """Upper bounds of the histograms, inclusive, ascending."""
    window: Duration = timedelta(seconds=15)
    """Length of a window of event time; each gives one point per series."""
    lateness: Duration = timedelta(seconds=10)
    """How much out of order requests may end and still count; at least `wait`."""
    max_ahead: Duration = timedelta(minutes=5)
    """A span that ended further ahead of the system clock than this does not count; its clock is wrong."""
    idle_timeout: Duration | None = timedelta(seconds=10)
    """After this long without spans nothing waits any longer, and the last windows close; null: only spans do that."""
    emit_on_eof: bool = False
    """Close everything when the input ends, which is for finite inputs; see `SpanMetricsSettings.emit_on_eof`."""
    temporality: Literal["cumulative", "delta"] = "cumulative"
    """`delta`: a point counts the requests of its window. `cumulative`: all since the series began."""
    max_series: Annotated[int, Field(ge=1, le=MAX_SERIES_LIMIT)] = 10_000
    """Most series per tenant; further requests are counted in one with the sole attribute `otel.metric.overflow`."""
    series_expiry: Duration = timedelta(minutes=15)
    """A series is forgotten this long (in event time) after its last request."""
    namespace: str = "traces_service_graph"
    """What the names of the metrics start with."""

    @field_validator("buckets")
    @classmethod
    def _ascending(cls, buckets: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] <= timedelta():
            raise ValueError(f"expected ascending bounds above 0, got {', '.join(str(bound) for bound in buckets)}")
        return buckets

    @model_validator(mode="after")
    def _consistent(self) -> ServiceGraphSettings:
        if self.window < timedelta(milliseconds=1):
            raise ValueError(f"window: expected at least 1ms, got {self.window}")
        for name in ("wait", "max_ahead", "idle_timeout"):
            value = getattr(self, name)
            if value is not None and value < timedelta():
                raise ValueError(f"{name}: expected at least 0, got {value}")
        if self.lateness < self.wait:
            raise ValueError(f"lateness: expected at least wait ({self.wait}), got {self.lateness}")
        if self.series_expiry < self.window:
            raise ValueError(f"series_expiry: expected at least one window ({self.window}), got {self.series_expiry}")
        if self.shards > self.max_items:
            raise ValueError(f"shards: expected at most max_items ({self.max_items}), got {self.shards}")
        if len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError(f"dimensions: expected each once, got {', '.join(self.dimensions)}")
        return self

    def shape(self) -> dict[str, Any]:
        """What the state of windows depends on; other options may change between runs."""
        names = {"window", "buckets", "temporality", "dimensions", "virtual_node_extra_label"}
        return self.model_dump(mode="json", include=names)


def nanos(duration: timedelta) -> int:
    """Return a duration in nanoseconds."""
    return duration // timedelta(microseconds=1) * 1000
