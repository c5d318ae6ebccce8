"""Sources of a user's flow as they are asked while it runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import TestingSink
from typing_extensions import override

from control import drain as drain_module
from control.drain import Drain, make_drainable
from control.flow_steps import steps_of


class _Part(StatefulSourcePartition[int, None]):
    def __init__(self, items: list[int]) -> None:
        self._items = items

    @override
    def next_batch(self) -> list[int]:
        return [self._items.pop()] if self._items else []

    @override
    def snapshot(self) -> None:
        return None


class _Source(FixedPartitionedSource[int, None]):
    def __init__(self, items: list[int]) -> None:
        self._items = items

    @override
    def list_parts(self) -> list[str]:
        return ["one"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Part:
        return _Part(self._items)


def test_a_source_is_quiet_while_other_inputs_end_their_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it always had to wait for them; in an epoch it is asked as it wishes."""
    monkeypatch.setattr(drain_module, "EPOCH", timedelta(milliseconds=100))
    items: list[int] = []
    flow = Dataflow("two")
    op.output("out", op.input("in", flow, _Source(items)), TestingSink([]))
    make_drainable(flow, Drain())
    (source,) = [step.source for step in steps_of(flow) if hasattr(step, "source") and not step.substeps]
    part = source.build_part("in", "one", None)
    assert part.next_batch() == []
    assert part.next_awake() is None
    time.sleep(0.1)
    assert part.next_batch() == []
    assert part.next_awake() is None  # no wait is known
    part.snapshot()
    time.sleep(0.2)  # the wait, and the next epoch
    items.append(1)
    before = datetime.now(UTC)
    assert part.next_batch() == [1]
    assert part.next_awake() - before >= timedelta(milliseconds=90)
