"""Timing several ways of doing the same, fairly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

__all__ = ["best_cpu_s"]


def best_cpu_s(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU seconds of each way: the best of `rounds`, the ways taken in turn so that a busy moment hits them all."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            best[name] = min(best[name], time.process_time() - start)
    return best
