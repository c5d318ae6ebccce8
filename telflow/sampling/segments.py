"""Which trace each span on hold belongs to, in one table for all segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from telflow.sampling.span_facts import Rows, SpanFacts
from telflow.sampling.trace_index import Ints
from telflow.sampling.trace_state import UNKNOWN, Words

__all__ = ["PENDING", "Released", "Segments"]

Released: TypeAlias = tuple[str, Rows, Words]
"""A segment, row numbers of some of its spans, and a verdict on each."""

PENDING = UNKNOWN
"""Verdict on a span whose trace is open."""

_COLUMNS: dict[str, type] = {"segment": np.int32, "row": np.uint32, "place": np.int32, "verdict": np.uint64}


class Segments:
    """A sampler's spans on hold, by segment, oldest first.

    Spans are let go of in parts that are at least half of what a segment still holds here: where segments are held,
    each time costs writing what is left of it to the recovery store.
    """

    def __init__(self) -> None:
        # By segment: name, bytes and number of the spans when they came.
        self._segments: list[tuple[str, int, int]] = []
        # By span: its segment, its row there, the place of its trace (-1: it is decided), the verdict on it.
        self._spans: dict[str, npt.NDArray[Any]] = {name: np.empty(0, dtype) for name, dtype in _COLUMNS.items()}

    def __len__(self) -> int:
        return len(self._spans["row"])

    @property
    def num_bytes(self) -> int:
        """About how many bytes the spans take that are still held."""
        left = np.bincount(self._spans["segment"], minlength=len(self._segments)).tolist()
        return sum(size * here // count for (_, size, count), here in zip(self._segments, left, strict=True))

    def open(self, segments: Sequence[SpanFacts], places: Ints) -> None:
        """Add the spans of segments, with the places of their traces, one segment after the other."""
        first = len(self._segments)
        self._segments += [(facts.segment, facts.num_bytes, len(facts)) for facts in segments]
        new = {
            "segment": np.repeat(np.arange(first, len(self._segments)), [len(facts) for facts in segments]),
            "row": np.concatenate([facts.rows for facts in segments]),
            "place": places,
            "verdict": np.full(len(places), PENDING, np.uint64),
        }
        self._spans = {
            name: np.concatenate([self._spans[name], new[name].astype(dtype)]) for name, dtype in _COLUMNS.items()
        }

    def decide(self, new_places: Ints, verdicts: Words, *, at_once: bool) -> Iterator[Released]:
        """Let traces be decided; yield what segments let go of.

        Args:
            new_places: For each place of an open trace its place from now on, -1 when it is decided; and one more -1,
                which is what the place -1 of a span already decided finds.
            verdicts: For each place the verdict, or `PENDING`; and one more, of any value.
            at_once: Whether to let go of everything decided, however small the part.
        """
        spans = self._spans
        before = spans["place"]
        after = new_places[before].astype(np.int32)
        decided = after < 0
        now = np.flatnonzero(decided & (before >= 0))
        spans["place"] = after
        if not now.size:
            return
        spans["verdict"] = spans["verdict"].copy()  # a state may still show what was
        spans["verdict"][now] = verdicts[before[now]]
        count = len(self._segments)
        all_of = np.bincount(spans["segment"], minlength=count)
        done_of = np.bincount(spans["segment"][decided], minlength=count)
        ready = (done_of > 0) & (at_once | (2 * done_of >= all_of))
        going = decided & ready[spans["segment"]]
        rows = np.flatnonzero(going)
        ends = np.cumsum(np.where(ready, done_of, 0)[ready]).tolist()
        start = 0
        for number, end in zip(np.flatnonzero(ready).tolist(), ends, strict=True):
            some = rows[start:end]
            yield self._segments[number][0], spans["row"][some], spans["verdict"][some]
            start = end
        self._keep(np.flatnonzero(~going))

    def places_in(self, names: Mapping[str, Any]) -> Iterator[tuple[str, Rows, Ints]]:
        """Yield the segments among `names`: row numbers of their spans here, and the places of their traces."""
        bounds = np.searchsorted(self._spans["segment"], np.arange(len(self._segments) + 1)).tolist()
        for number, (name, _, _) in enumerate(self._segments):
            here = slice(bounds[number], bounds[number + 1])
            if name in names:
                yield name, self._spans["row"][here], self._spans["place"][here]

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        return {"segments": list(self._segments), "spans": dict(self._spans)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._segments = list(state["segments"])
        self._spans = dict(state["spans"])

    def _keep(self, rows: Ints) -> None:
        self._spans = {name: column[rows] for name, column in self._spans.items()}
        used = np.bincount(self._spans["segment"], minlength=len(self._segments)) > 0
        self._spans["segment"] = (np.cumsum(used) - 1).astype(np.int32)[self._spans["segment"]]
        self._segments = [self._segments[number] for number in np.flatnonzero(used).tolist()]
