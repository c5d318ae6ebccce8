"""The steps of a dataflow, those inside other steps included, with what is plugged into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bytewax.dataflow import Dataflow, Operator

__all__ = ["steps_of"]


def steps_of(flow: Dataflow) -> Iterator[Operator]:
    """Yield every step of `flow`, each before the steps inside it."""
    return _each(flow.substeps)


def _each(steps: Sequence[Operator]) -> Iterator[Operator]:
    for step in steps:
        yield step
        yield from _each(step.substeps)
