"""What the conversions between delta and cumulative have in common: which metrics, and how much is remembered."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from telflow.schema import MetricType
from telflow.settings import Duration, Settings

__all__ = ["ConversionSettings", "MetricKind", "nanos"]

MetricKind: TypeAlias = Literal["sum", "histogram", "exponential_histogram"]

_TYPES = {
    "sum": MetricType.SUM,
    "histogram": MetricType.HISTOGRAM,
    "exponential_histogram": MetricType.EXPONENTIAL_HISTOGRAM,
}
_NEVER_NANO = 2**60


class ConversionSettings(Settings):
    """Which metrics are converted, and what of their streams is remembered."""

    include: tuple[str, ...] = ()
    """Names of metrics to convert, as regular expressions for whole names; empty: all."""
    exclude: tuple[str, ...] = ()
    """Names of metrics to leave as they are, likewise."""
    metric_types: tuple[MetricKind, ...] = ("sum", "histogram", "exponential_histogram")
    """Kinds of metrics to convert. Of sums only monotonic ones are."""
    max_stale: Duration | None = timedelta(minutes=5)
    """A stream is forgotten this long, in event time, after its last point; null: never."""
    max_streams: Annotated[int, Field(ge=1)] = 100_000
    """Most streams remembered per tenant; with `shards`, they share it. Points of further ones are dropped and
    counted (`too many streams`)."""
    shards: Annotated[int, Field(ge=1, le=4096)] = 1
    """Parts of a tenant's streams; more than 1 spreads a large tenant over several workers."""

    @field_validator("include", "exclude")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"expected a regular expression, got {pattern!r}: {error}") from error
        return patterns

    @model_validator(mode="after")
    def _consistent(self) -> ConversionSettings:
        if self.max_stale is not None and self.max_stale <= timedelta():
            raise ValueError(f"max_stale: expected more than 0, or null, got {self.max_stale}")
        if self.shards > self.max_streams:
            raise ValueError(f"shards: expected at most max_streams ({self.max_streams}), got {self.shards}")
        return self

    @property
    def types(self) -> frozenset[int]:
        """`metric_types` as numbers."""
        return frozenset(int(_TYPES[kind]) for kind in self.metric_types)

    @property
    def stale_nano(self) -> int:
        """`max_stale` in nanoseconds."""
        return _NEVER_NANO if self.max_stale is None else nanos(self.max_stale)

    def wants(self, name: str) -> bool:
        """Whether a metric of this name is converted.

        >>> ConversionSettings(include=["http[.].*"]).wants("http.requests")
        True
        """
        included = not self.include or any(re.fullmatch(pattern, name) for pattern in self.include)
        return included and not any(re.fullmatch(pattern, name) for pattern in self.exclude)


def nanos(duration: timedelta) -> int:
    """Return a duration in nanoseconds."""
    return duration // timedelta(microseconds=1) * 1000
