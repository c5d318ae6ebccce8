"""What a tail sampler can be asked to keep: the policies of a settings file.

Names and meaning are those of the OpenTelemetry Collector's `tail_sampling` processor where it has them. Every policy
answers with a rejection threshold (`telflow.sampling.trace_state`): 0 for a trace it wants in any case, one that
rejects all for a trace it does not want, one in between for a chance. So policies combine, and the trace says
afterwards how many it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from telflow.condition import Condition
from telflow.settings import Duration, Settings

__all__ = [
    "AllOf",
    "Always",
    "AnyOf",
    "BooleanAttribute",
    "Composite",
    "CompositePart",
    "Function",
    "Latency",
    "Match",
    "Not",
    "NumericAttribute",
    "Policy",
    "Predicate",
    "Probabilistic",
    "RateLimit",
    "SpanCount",
    "Status",
    "StringAttribute",
    "leaves",
]

AttributeSource = Literal["any", "span", "resource"]
Key = Annotated[str, Field(min_length=1)]


class Always(Settings):
    """Every trace."""

    type: Literal["always"] = "always"
    """Which policy this is."""


class Latency(Settings):
    """Traces that took long: from the start of the first span to the end of the last."""

    type: Literal["latency"] = "latency"
    """Which policy this is."""
    threshold: Duration
    """Traces that took at least this."""
    upper_threshold: Duration | None = None
    """And at most this; null: however long."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.threshold < timedelta():
            raise ValueError(f"threshold: expected at least 0, got {self.threshold}")
        if self.upper_threshold is not None and self.upper_threshold < self.threshold:
            raise ValueError(f"upper_threshold: expected at least {self.threshold}, got {self.upper_threshold}")
        return self


class SpanCount(Settings):
    """Traces of a size."""

    type: Literal["span_count"] = "span_count"
    """Which policy this is."""
    min_spans: int = Field(default=1, ge=1)
    """Traces of at least so many spans."""
    max_spans: int | None = None
    """And at most so many; null: however many."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_spans is not None and self.max_spans < self.min_spans:
            raise ValueError(f"max_spans: expected at least {self.min_spans}, got {self.max_spans}")
        return self


class Status(Settings):
    """Traces with a span of a status."""

    type: Literal["status"] = "status"
    """Which policy this is."""
    codes: frozenset[Literal["UNSET", "OK", "ERROR"]] = Field(default=frozenset({"ERROR"}), min_length=1)
    """One of these; a span without a status is `UNSET`."""


class StringAttribute(Settings):
    """Traces with a span whose attribute has one of some values."""

    type: Literal["string_attribute"] = "string_attribute"
    """Which policy this is."""
    key: Key
    """Attribute."""
    values: tuple[str, ...] = Field(min_length=1)
    """Its value as text is one of these; `*` stands for any characters, `?` for one."""
    source: AttributeSource = "any"
    """Where the attribute is looked for; `any`: on the span, then on its resource."""


class NumericAttribute(Settings):
    """Traces with a span whose attribute, an integer or a double, lies in a range."""

    type: Literal["numeric_attribute"] = "numeric_attribute"
    """Which policy this is."""
    key: Key
    """Attribute."""
    min_value: float | None = None
    """At least this; null: no matter how small."""
    max_value: float | None = None
    """At most this; null: no matter how large."""
    source: AttributeSource = "any"
    """Where the attribute is looked for; `any`: on the span, then on its resource."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.min_value, self.max_value
        if low is None and high is None:
            raise ValueError("expected min_value, max_value or both")
        if low is not None and high is not None and high < low:
            raise ValueError(f"max_value: expected at least {low}, got {high}")
        return self


class BooleanAttribute(Settings):
    """Traces with a span whose attribute, a boolean, is as asked for."""

    type: Literal["boolean_attribute"] = "boolean_attribute"
    """Which policy this is."""
    key: Key
    """Attribute."""
    value: bool = True
    """What it is."""
    source: AttributeSource = "any"
    """Where the attribute is looked for; `any`: on the span, then on its resource."""


class Match(Settings):
    """Traces with a span that fits a condition, as in `drop`."""

    type: Literal["match"] = "match"
    """Which policy this is."""
    condition: Condition
    """What the span is like."""


class Probabilistic(Settings):
    """A share of all traces, by consistent probability sampling."""

    type: Literal["probabilistic"] = "probabilistic"
    """Which policy this is."""
    percentage: float = Field(gt=0, le=100)
    """How many of a hundred traces."""

    @field_validator("percentage")
    @classmethod
    def _representable(cls, percentage: float) -> float:
        if percentage / 100 < 2.0**-56:
            raise ValueError(f"expected at least 2**-56 of all traces, got {percentage} %")
        return percentage


class RateLimit(Settings):
    """As many traces as a tenant may send."""

    type: Literal["rate_limit"] = "rate_limit"
    """Which policy this is."""
    spans_per_second: float = Field(gt=0)
    """Of each tenant, in the mean. Of the traces decided together those of the highest randomness are kept: a threshold
    like any other, so what is kept still says how many it stands for."""


class Function(Settings):
    """Traces that a function of the flow's author wants; only in Python."""

    type: Literal["function"] = "function"
    """Which policy this is."""
    name: Key
    """The function's name in the argument `functions` of `tail_sampling`."""


class AllOf(Settings):
    """Traces that all of some policies want."""

    type: Literal["and"] = "and"
    """Which policy this is."""
    policies: tuple[Policy, ...] = Field(min_length=1)
    """Asked in this order; each sees the traces that those before it want, which matters for `rate_limit`."""


class AnyOf(Settings):
    """Traces that one of some policies wants."""

    type: Literal["or"] = "or"
    """Which policy this is."""
    policies: tuple[Policy, ...] = Field(min_length=1)
    """Asked in this order; a `rate_limit` is not charged for traces that those before it want."""


class Not(Settings):
    """Traces that a policy does not want."""

    type: Literal["not"] = "not"
    """Which policy this is."""
    policy: Policy
    """One that depends on the trace alone: to turn round what chance or a rate decided would make thresholds untrue."""

    @model_validator(mode="after")
    def _deterministic(self) -> Self:
        for leaf in leaves((self.policy,)):
            if isinstance(leaf, Probabilistic | RateLimit):
                raise ValueError(f"expected policies that depend on the trace alone, got {leaf.type}")  # noqa: TRY004 - pydantic's
        return self


class CompositePart(Settings):
    """A policy with its share of a rate."""

    policy: Policy
    """Which traces."""
    share: float = Field(gt=0, le=1)
    """How much of the rate is for these traces; what they do not need is not given to others."""


class Composite(Settings):
    """Several policies in an order, each with a share of one rate per tenant."""

    type: Literal["composite"] = "composite"
    """Which policy this is."""
    max_spans_per_second: float = Field(gt=0)
    """Of each tenant, in the mean, of all parts together."""
    parts: tuple[CompositePart, ...] = Field(min_length=1)
    """Each trace goes to the first part that wants it and has room for it."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        total = sum(part.share for part in self.parts)
        if total > 1 + 1e-9:
            raise ValueError(f"parts: expected shares of at most 1 together, got {total:g}")
        return self


Predicate = Status | StringAttribute | NumericAttribute | BooleanAttribute | Match
"""Policies about a trace's single spans."""

Policy = Annotated[
    Always
    | Latency
    | SpanCount
    | Status
    | StringAttribute
    | NumericAttribute
    | BooleanAttribute
    | Match
    | Probabilistic
    | RateLimit
    | Function
    | AllOf
    | AnyOf
    | Not
    | Composite,
    Field(discriminator="type"),
]
"""Any policy; `type` says which."""

for _model in (AllOf, AnyOf, Not, CompositePart, Composite):
    _model.model_rebuild()


def leaves(policies: tuple[Policy, ...]) -> Iterator[Policy]:
    """Yield the policies that hold no others, at any depth, in order.

    >>> [leaf.type for leaf in leaves((Not(policy=AllOf(policies=(Always(), Status()))),))]
    ['always', 'status']
    """
    for policy in policies:
        match policy:
            case AllOf() | AnyOf():
                yield from leaves(policy.policies)
            case Not():
                yield from leaves((policy.policy,))
            case Composite():
                yield from leaves(tuple(part.policy for part in policy.parts))
            case _:
                yield policy
