"""Options of tail sampling."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from telflow.errors import ConfigError
from telflow.sampling.policies import Policy
from telflow.sampling.predicates import Predicates
from telflow.settings import Duration, Settings

__all__ = ["TailSamplingSettings"]


class TailSamplingSettings(Settings):
    """Options of `tail_sampling`.

    >>> TailSamplingSettings(policies=[{"type": "status"}]).decision_wait
    datetime.timedelta(seconds=30)
    """

    policies: tuple[Policy, ...] = Field(min_length=1)
    """Asked in this order; a trace is kept when one of them wants it."""

    decision_wait: Duration = timedelta(seconds=30)
    """How long a trace is waited for from its first span on; then it is decided, complete or not."""

    decision_wait_after_root: Duration | None = None
    """If less is enough: how long from the arrival of its root span on. Null: a root span changes nothing."""

    interval: Duration = timedelta(seconds=1)
    """Traces are decided together, once an interval, so up to one later than they are due."""

    time: Literal["processing", "event"] = "processing"
    """What waiting is measured by. `processing`: the system clock. `event`: the ends of the spans that came, so that a
    replay decides as the live run did, however fast it is."""

    idle_timeout: Duration | None = timedelta(seconds=10)
    """With `time: event`: after this long without spans the system clock counts too, so that the last traces are
    decided. Null: only spans do."""

    max_traces: int = Field(default=200_000, ge=1)
    """Most open traces; beyond, the oldest are decided early."""

    max_bytes: int = Field(default=512 << 20, ge=1 << 20)
    """Most memory for spans on hold; beyond, the oldest traces are decided early."""

    max_spans_per_trace: int = Field(default=100_000, ge=1)
    """A trace that has more is decided early, and its further spans follow it."""

    decision_cache: int = Field(default=250_000, ge=0)
    """Of so many decided traces the decision is remembered, for spans that come late. Those longest without use are
    forgotten first; a span of a forgotten trace opens it anew."""

    shards: int = Field(default=8, ge=1, le=1024)
    """Parts into which traces are divided by their id; more workers than this find no work. The bounds above are for
    all together, each part has an equal share. If this changes over a restart, open traces are decided from what they
    had."""

    emit_on_eof: bool = False
    """Decide all open traces when the input ends. For finite inputs (a replay, a test). Leave it off where the flow
    stops and resumes: a drain looks the same, and open traces are kept over it so that none is cut."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.interval < timedelta(milliseconds=1):
            raise ValueError(f"interval: expected at least 1ms, got {self.interval}")
        for name in ("decision_wait", "decision_wait_after_root", "idle_timeout"):
            value: timedelta | None = getattr(self, name)
            if value is not None and value < timedelta():
                raise ValueError(f"{name}: expected at least 0, got {value}")
        try:
            Predicates(self.policies)
        except ConfigError as error:
            raise ValueError(f"policies: {error}") from error
        return self

    def per_shard(self, total: int) -> int:
        """Return a part's share of a bound, at least 1 unless there is none at all."""
        return max(1, total // self.shards) if total else 0
