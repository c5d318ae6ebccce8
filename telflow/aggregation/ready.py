"""What ready-made aggregations share: options of windows, attributes, conditions, and the metrics they plan."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from telflow.aggregation.items import Item
from telflow.aggregation.measures import AnyMeasure, Count
from telflow.aggregation.settings import AggregateSettings
from telflow.condition import Criteria
from telflow.fields import FieldRef
from telflow.series import MAX_SERIES_LIMIT
from telflow.settings import Duration, Settings

__all__ = ["MetricAttribute", "MetricName", "MetricSelection", "Plan", "ReadySettings"]


MetricName = Annotated[str, StringConstraints(min_length=1)]
"""Name of a metric."""


class MetricAttribute(Settings):
    """An attribute of a metric's points, taken from what is measured; each value has a point of its own."""

    key: Annotated[str, Field(min_length=1)]
    """Attribute key; looked for on the record, then on its resource, then on its scope."""
    default_value: str | bool | int | float | None = None
    """Value where there is none."""
    optional: bool = False
    """Whether records without it, and without a default, are measured too; their point does not have it either."""
    source: Literal["attribute", "column", "any"] = "attribute"
    """`column`: a fixed field of the record, such as `severity_text`; `any`: that, or else an attribute."""

    def field(self) -> FieldRef:
        """The key of an aggregation that it is."""
        return FieldRef(
            name=self.key, source=self.source, type="any", default=self.default_value, required=not self.optional
        )


class MetricSelection(Settings):
    """Which records a metric is made of, and by what its points are told apart."""

    conditions: tuple[Criteria, ...] = ()
    """Only what fits one of these is measured; none stated: everything."""
    attributes: tuple[MetricAttribute, ...] = ()
    """Attributes of the metric's points."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One metric of a ready-made aggregation.

    Attributes:
        item: What it is made of.
        name: Of the metric, without the namespace.
        settings: The aggregation that makes it.
    """

    item: Item
    name: str
    settings: AggregateSettings

    @property
    def step(self) -> str:
        """Part of a step id that stays the same while item and name do; these have no periods."""
        return f"{self.item}_{self.name}".replace(".", ":")


class ReadySettings(Settings):
    """Windows, limits and resources of metrics made of other telemetry."""

    window: Duration = timedelta(seconds=10)
    """Length of a window of event time; each gives one point per series."""
    lateness: Duration = timedelta(seconds=5)
    """How much out of order records may be and still count: a window closes that long after its end."""
    max_ahead: Duration = timedelta(minutes=5)
    """A record further ahead of the system clock than this is refused; its clock is wrong."""
    idle_timeout: Duration | None = timedelta(seconds=10)
    """After this long without records the system clock moves the watermark on, so that the last windows close.
    Null: only records do."""
    emit_on_eof: bool = False
    """Emit all open windows when the input ends. For finite inputs (a replay, a test)."""
    temporality: Literal["delta", "cumulative"] = "delta"
    """`delta`: a point covers its window. `cumulative`: all since the series began, and every window repeats the series
    that had nothing, until they expire."""
    resource_attributes: tuple[str, ...] = ("*",)
    """Attributes of resources that tell series apart and stay on the metrics' resources: names, with `*` and `?`."""
    max_series: Annotated[int, Field(ge=1, le=MAX_SERIES_LIMIT)] = 10_000
    """Most series per metric and tenant; what finds no place is measured in one overflow series of the tenant."""
    series_expiry: Duration = timedelta(minutes=15)
    """A series is forgotten this long (in event time) after its last window."""
    shards: Annotated[int, Field(ge=1, le=256)] = 1
    """Over how many keys the series of one tenant are spread, so that several workers share them."""
    namespace: str = ""
    """What the names of metrics start with, and a dot."""

    def plans(self) -> list[Plan]:
        """The metrics to make."""
        return []

    def plan(self, item: Item, name: str, measure: AnyMeasure, chosen: MetricSelection) -> Plan:
        """Return the aggregation of one metric."""
        shared = {name: getattr(self, name) for name in ReadySettings.model_fields}
        settings = AggregateSettings(
            by=tuple(attribute.field() for attribute in chosen.attributes),
            measures={name: measure},
            signals=frozenset({item.signal}),
            conditions=chosen.conditions,
            **shared,
        )
        return Plan(item, name, settings)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            AggregateSettings.model_validate(
                {name: getattr(self, name) for name in ReadySettings.model_fields} | {"measures": {"n": Count()}}
            )
            plans = self.plans()
        except ValidationError as error:
            found = error.errors()[0]
            raise ValueError(found["msg"].removeprefix("Value error, ")) from error
        if type(self) is not ReadySettings and not plans:
            raise ValueError("expected at least one metric")
        return self
