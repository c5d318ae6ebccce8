"""Which trace each span on hold belongs to, in one table for all segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from telflow.sampling.packing import packed, unpacked
from telflow.sampling.span_facts import Rows, SpanFacts
from telflow.sampling.trace_index import Ints
from telflow.sampling.trace_state import Words

__all__ = ["Decided", "Released", "Segments"]

Released: TypeAlias = tuple[str, Rows, Words]
"""A segment, row numbers of some of its spans, and a verdict on each."""

_GONE = -1
"""In place of the slot of a trace: the span is decided."""

_SPANS: dict[str, type] = {"segment": np.int32, "row": np.uint32, "slot": np.int32}
_DECIDED: dict[str, type] = {"segment": np.int32, "row": np.uint32, "verdict": np.uint64}
_SEGMENTS: dict[str, type] = {
    "bytes": np.int64,
    "count": np.int64,
    "left": np.int64,
    "first_due": np.int64,
    "last_due": np.int64,
}
_ANY_TIME = -(2**63)
_SMALLEST = 1024


@dataclass(frozen=True, slots=True)
class Decided:
    """Traces that are decided together.

    Attributes:
        slots: Where they are among the open ones.
        verdicts: On the spans of each.
        high: All slots of open traces are below.
        tick: When.
        at_once: Whether to let go of everything decided, however small the part.
    """

    slots: Ints
    verdicts: Words
    high: int
    tick: int
    at_once: bool = False


class Segments:
    """A sampler's spans on hold, by segment, oldest first.

    Spans are let go of in parts that are at least half of what a segment still holds here, and all together if the
    others are due in the next tick: where segments are held, each time costs writing what is left of it to the
    recovery store.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        # By segment: bytes and number of the spans when they came, how many are left, between which ticks they are due.
        self._segments: dict[str, npt.NDArray[Any]] = {name: np.empty(0, dtype) for name, dtype in _SEGMENTS.items()}
        # By span: its segment, its row there, the slot of its trace. With room for more behind.
        self._spans: dict[str, npt.NDArray[Any]] = {name: np.empty(_SMALLEST, dtype) for name, dtype in _SPANS.items()}
        self._count = 0
        self._gone = 0  # of them, decided
        # Spans that are decided, but wait for more of their segment; in no order.
        self._decided: dict[str, npt.NDArray[Any]] = {name: np.empty(0, dtype) for name, dtype in _DECIDED.items()}

    def __len__(self) -> int:
        return self._count - self._gone + len(self._decided["row"])

    @property
    def num_bytes(self) -> int:
        """About how many bytes the segments take.

        A segment takes all of them until a quarter of its spans is left, see `HeldSpans`.
        """
        size, count, left = (self._segments[name] for name in ("bytes", "count", "left"))
        return int(np.where(4 * left > count, size, size * left // np.maximum(count, 1)).sum())

    def open(self, segments: Sequence[SpanFacts], slots: Ints, deadlines: Ints) -> None:
        """Add the spans of segments, one segment after the other.

        Args:
            segments: None of them empty.
            slots: Of the trace of each span.
            deadlines: In which tick each span is decided, unless something hastens it.
        """
        first, counts = len(self._names), np.array([len(facts) for facts in segments])
        starts = np.cumsum(counts) - counts
        self._names += [facts.segment for facts in segments]
        new = {
            "bytes": np.array([facts.num_bytes for facts in segments]),
            "count": counts,
            "left": counts,
            "first_due": np.minimum.reduceat(deadlines, starts),
            "last_due": np.maximum.reduceat(deadlines, starts),
        }
        self._segments = {name: np.concatenate([column, new[name]]) for name, column in self._segments.items()}
        count = self._count + len(slots)
        if count > len(self._spans["row"]):
            self._make_room(count)
        here = slice(self._count, count)
        self._spans["segment"][here] = np.repeat(np.arange(first, len(self._names)), counts)
        self._spans["row"][here] = np.concatenate([facts.rows for facts in segments])
        self._spans["slot"][here] = slots
        self._count = count

    def hasten(self, tick: int) -> None:
        """Say that some traces, whichever, may be decided in this tick already."""
        np.minimum(self._segments["first_due"], tick, out=self._segments["first_due"])

    def decide(self, decided: Decided) -> Iterator[Released]:
        """Let traces be decided; yield what segments let go of."""
        new = self._part_with(decided)
        if not len(new["row"]):
            return
        # Segment by segment: a stable sort of what is nearly so costs little.
        some = {name: np.concatenate([column, new[name]]) for name, column in self._decided.items()}
        order = np.argsort(some["segment"], kind="stable")
        some = {name: column[order] for name, column in some.items()}
        left = self._segments["left"]
        done = np.bincount(some["segment"], minlength=len(left))
        ready = (done > 0) & (decided.at_once | (2 * done >= left))
        if not decided.at_once:
            ready &= (done == left) | (self._segments["last_due"] > decided.tick + 1)
        going = ready[some["segment"]]
        self._decided = {name: column[~going] for name, column in some.items()}
        rows, verdicts = some["row"][going], some["verdict"][going]
        released = np.flatnonzero(ready)
        left[released] -= done[released]
        names = [self._names[number] for number in released.tolist()]
        if 2 * self._gone > self._count:
            self._tidy()
        start = 0
        for name, count in zip(names, done[released].tolist(), strict=True):
            yield name, rows[start : start + count], verdicts[start : start + count]
            start += count

    def places_in(self, names: Mapping[str, Any]) -> Iterator[tuple[str, Rows, Ints]]:
        """Yield the segments among `names`: row numbers of their spans here, and the slots of their traces.

        The slot is -1 where the trace is decided.
        """
        for number, name in enumerate(self._names):
            if name in names:
                here = self._rows_of(number, number)
                yield name, self._spans["row"][here], self._spans["slot"][here]

    def state(self, places: Ints) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch.

        Args:
            places: For each slot where its trace is in the state of the open traces.
        """
        self._tidy()
        spans = {name: column[: self._count] for name, column in self._spans.items()}
        return {
            "names": list(self._names),
            "segments": {name: packed(column) for name, column in self._segments.items()},
            "held": packed(np.bincount(spans["segment"], minlength=len(self._names))),
            "row": packed(spans["row"]),
            "place": packed(places[spans["slot"]]),
            "decided": {name: packed(column) for name, column in self._decided.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; open traces have the slots that their state gives them."""
        # Settings may be others now, so new spans may hasten what is held.
        self._names = list(state["names"])
        self._segments = {name: unpacked(state["segments"][name], dtype) for name, dtype in _SEGMENTS.items()}
        self._segments["first_due"][:] = _ANY_TIME
        self._decided = {name: unpacked(state["decided"][name], dtype) for name, dtype in _DECIDED.items()}
        held = unpacked(state["held"], np.int64)
        self._spans = {
            "segment": np.repeat(np.arange(len(self._names), dtype=np.int32), held),
            "row": unpacked(state["row"], np.uint32),
            "slot": unpacked(state["place"], np.int64).astype(np.int32),
        }
        self._count, self._gone = len(self._spans["row"]), 0

    def rescale(self, before: int, after: int) -> None:
        """Let what is due in ticks of `before` nanoseconds be due in ticks of `after` nanoseconds."""
        self._segments["last_due"] = -(-self._segments["last_due"] * before // after)

    def _part_with(self, decided: Decided) -> dict[str, npt.NDArray[Any]]:
        """Return the spans of traces decided now, and strike them out here."""
        # Only in segments that still hold spans, and that have some due: most have come too lately.
        segments = np.flatnonzero((self._segments["left"] > 0) & (self._segments["first_due"] <= decided.tick))
        if decided.at_once:
            segments = np.arange(len(self._names))
        here = self._rows_of(int(segments[0]), int(segments[-1])) if segments.size else slice(0)
        spans = {name: column[here] for name, column in self._spans.items()}
        # One more: what the slot of a span decided before, -1, finds.
        is_decided = np.zeros(decided.high + 1, bool)
        is_decided[decided.slots] = True
        found = np.flatnonzero(is_decided[spans["slot"]])
        verdict_of = np.empty(decided.high, np.uint64)
        verdict_of[decided.slots] = decided.verdicts
        new = {
            "segment": spans["segment"][found],
            "row": spans["row"][found],
            "verdict": verdict_of[spans["slot"][found]],
        }
        spans["slot"][found] = _GONE
        self._gone += len(found)
        return new

    def _rows_of(self, first: int, last: int) -> slice:
        """Return where the spans of some segments stand."""
        # Of the column's own type: with another, searching would begin with a copy of it.
        bounds = np.searchsorted(self._spans["segment"][: self._count], np.array([first, last + 1], np.int32))
        return slice(*bounds.tolist())

    def _tidy(self) -> None:
        """Forget spans that are decided and segments that hold nothing any more."""
        here = np.flatnonzero(self._spans["slot"][: self._count] != _GONE)
        used = np.flatnonzero(self._segments["left"])
        numbers = np.zeros(len(self._names), np.int32)
        numbers[used] = np.arange(len(used))
        for name, column in self._spans.items():
            column[: len(here)] = numbers[column[here]] if name == "segment" else column[here]
        self._decided["segment"] = numbers[self._decided["segment"]]
        self._count, self._gone = len(here), 0
        self._names = [self._names[number] for number in used.tolist()]
        self._segments = {name: column[used] for name, column in self._segments.items()}

    def _make_room(self, count: int) -> None:
        size = max(count, 2 * len(self._spans["row"]))
        for name, dtype in _SPANS.items():
            column: npt.NDArray[Any] = np.empty(size, dtype)
            column[: self._count] = self._spans[name][: self._count]
            self._spans[name] = column
