"""What was decided about traces, so that a span that comes late goes the way of its trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from telflow.sampling.trace_index import Ints, TraceIndex, TraceKeys
from telflow.sampling.trace_state import UNKNOWN, Words

__all__ = ["DecisionCache"]

_KEPT_WHEN_FULL = 0.9


class DecisionCache:
    """Thresholds of decided traces, as many as fit; those that were longest without use go first.

    Args:
        capacity: Most traces; 0: none at all, every late span opens its trace anew.

    >>> cache = DecisionCache(10)
    >>> keys = TraceKeys.of(*(np.array(words, np.uint64) for words in ([1, 2], [1, 2], [0, 0])))
    >>> cache.put(keys.at([0]), np.array([7], np.uint64), tick=1)
    >>> cache.get(keys, tick=1) == [7, UNKNOWN]
    array([ True,  True])
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._index = TraceIndex()
        self._thresholds = np.empty(0, np.uint64)
        self._used: Ints = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def keys(self) -> TraceKeys:
        """The traces."""
        return self._index.keys

    def get(self, keys: TraceKeys, tick: int) -> Words:
        """Return the threshold of each row's trace, `UNKNOWN` where nothing is known.

        Args:
            keys: What identifies the traces.
            tick: When this is; asking for a trace counts as its use.
        """
        found = np.full(len(keys.hash), UNKNOWN, np.uint64)
        places = self._index.find(keys)
        hits = np.flatnonzero(places >= 0)
        if hits.size:
            self._used[places[hits]] = tick
            found[hits] = self._thresholds[places[hits]]
        return found

    def put(self, keys: TraceKeys, thresholds: Words, tick: int) -> None:
        """Remember what was decided about distinct traces that are not in the cache."""
        if not self._capacity:
            return
        self._index.admit(keys)
        self._thresholds = np.concatenate([self._thresholds, thresholds])
        self._used = np.concatenate([self._used, np.full(len(thresholds), tick)])
        if len(self) > self._capacity:
            # A part more than need be: forgetting costs a look at all.
            self._keep(int(self._capacity * _KEPT_WHEN_FULL) or 1)

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        return {"index": self._index.state(), "thresholds": self._thresholds.copy(), "used": self._used.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned, as far as there is room."""
        self._index.restore(state["index"])
        self._thresholds, self._used = state["thresholds"].copy(), state["used"].copy()
        if len(self) > self._capacity:
            self._keep(self._capacity)

    def _keep(self, count: int) -> None:
        # Of those last used in one tick the ones that were decided later stay: a stable sort keeps their order.
        latest = np.sort(np.argsort(self._used, kind="stable")[len(self) - count :])
        self._index.keep(latest)
        self._thresholds, self._used = self._thresholds[latest], self._used[latest]
