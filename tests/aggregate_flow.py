"""A flow that aggregates numbered batches of several tenants, for tests that run it on clusters and kill it.

Environment: FOLDER (options.json with settings by step name, and where results go), COUNT and HOLD (see
`tests.numbered_source`). Each source feeds tenants of its own, so that what is late does not depend on how sources
interleave. Results are written once per epoch, and cut back to the snapshot on a resume.
"""

from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from operators.aggregate import aggregate_with
from telflow.accounting import Ledger
from telflow.aggregation import AggregateSettings
from tests.numbered_source import NumberedSource
from tests.spans import EPOCH, SECOND, Span, spans_batch

NOW = EPOCH + 3600 * SECOND


def spans_of(source: str, number: int) -> list[Span]:
    """A batch of a source: two tenants, out of order by up to 8 s, which is more than the lateness of most tests."""
    rng = random.Random(f"{source} {number}")
    return [
        Span(
            end=EPOCH + number * SECOND // 2 + rng.randrange(32) * SECOND // 4 - 4 * SECOND,
            duration=rng.randrange(16) * SECOND // 4,
            name=rng.choice(["GET /", "POST /", "PUT /"]),
            tenant=f"{source}{rng.randrange(2)}",
            attributes={"size": rng.randrange(1000), "user": rng.randrange(50)},
            resource_attributes=rng.choice([{}, {"region": "eu"}]),
        )
        for _ in range(20)
    ]


class _Results(StatefulSinkPartition[Any, int]):
    def __init__(self, path: Path, resume: int | None) -> None:
        path.touch()
        os.truncate(path, resume or 0)
        self._file = path.open("ab")

    @override
    def write_batch(self, values: list[Any]) -> None:
        for table in values:
            pickle.dump(table.to_pylist(), self._file)

    @override
    def snapshot(self) -> int:
        self._file.flush()
        return self._file.tell()


class _Sink(FixedPartitionedSink[Any, int]):
    def __init__(self, name: str) -> None:
        self._name = name

    @override
    def list_parts(self) -> list[str]:
        return ["0", "1", "2"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Results:
        return _Results(Path(os.environ["FOLDER"]) / f"{self._name}-{for_part}", resume_state)


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    """All rows written."""
    rows = []
    for path in sorted(folder.glob(f"{name}-?")):
        with path.open("rb") as file:
            while file.peek(1):
                rows += pickle.load(file)  # noqa: S301 - written above
    return rows


def build() -> Dataflow:
    options = json.loads((Path(os.environ["FOLDER"]) / "options.json").read_text())
    flow = Dataflow("aggregating")
    spans = op.input("spans", flow, NumberedSource(lambda source, number: spans_batch(spans_of(source, number))))
    for name, settings in options.items():
        chosen = AggregateSettings.model_validate(settings)
        out = aggregate_with(name, spans, chosen, clock=lambda: NOW, ledger=Ledger())
        op.output(f"{name}-results", out.rows, _Sink(name))
    return flow


if "FOLDER" in os.environ:
    flow = build()
