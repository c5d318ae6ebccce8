"""partition: every record comes out under its key, in order, with nothing of another key beside it."""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators import NO_KEY, PartitionSettings, keys_of, partition, partition_batch
from telflow import TelemetryBatch
from telflow.errors import UserFunctionError
from tests.batches import batches, spans
from tests.causes import raises_inside
from tests.strategies import thorough

ACME = spans([{"n": 0, "route": "/a"}, {"n": 1}], resource={"service.name": "shop"}, tenant="acme")
GLOBEX = spans(
    [{"n": 2, "route": "/b"}, {"n": 3, "route": "/a"}], resource={"service.name": "cart"}, tenant="globex", first=2
)
NOBODY = spans([{"n": 4}], first=4)
ALL = TelemetryBatch.concat([ACME, GLOBEX, NOBODY])


def names(parts: list[tuple[str, TelemetryBatch]]) -> dict[str, list[str]]:
    return {key: batch.column("name").to_pylist() for key, batch in parts}


def run(by: Any, batch: TelemetryBatch = ALL) -> list[tuple[str, TelemetryBatch]]:
    out: list[tuple[str, TelemetryBatch]] = []
    flow = Dataflow("flow")
    op.output("out", partition("split", op.input("in", flow, TestingSource([batch])), by), TestingSink(out))
    run_main(flow)
    return out


@thorough(30)
@given(batches(), st.data())
def test_every_record_comes_out_once_under_its_key(batch: TelemetryBatch, data: st.DataObject) -> None:
    """For any batch and keys, null and repeated ones among them: the parts are what a loop over records finds."""
    keys = data.draw(st.lists(st.sampled_from(["a", "b", "", None, "ключ"]), min_size=len(batch), max_size=len(batch)))
    parts = partition_batch(batch, pa.array(keys, pa.string()), "nobody")
    wanted: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        wanted.setdefault("nobody" if key is None else key, []).append(row)
    assert [key for key, _ in parts] == list(wanted)
    for key, part in parts:
        assert part == batch.take(pa.array(wanted[key], pa.int64()))


def test_parts_hold_nothing_of_others() -> None:
    """What belongs to one tenant does not travel in the resources of another's batch."""
    for key, part in run("tenant"):
        assert part.resources["tenant"].to_pylist() == [None if key == NO_KEY else key]


def test_a_batch_of_one_key_is_passed_on_itself() -> None:
    """Nothing is copied in the usual case."""
    assert partition_batch(ACME, keys_of(ACME, PartitionSettings()))[0][1] is ACME
    assert partition_batch(TelemetryBatch.empty(ACME.signal), pa.array([], pa.string())) == []


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        ("tenant", {"acme": ["span-0", "span-1"], "globex": ["span-2", "span-3"], NO_KEY: ["span-4"]}),
        ("service.name", {"shop": ["span-0", "span-1"], "cart": ["span-2", "span-3"], NO_KEY: ["span-4"]}),
        (
            PartitionSettings(by="route", level="record", missing="-"),
            {"/a": ["span-0", "span-3"], "-": ["span-1", "span-4"], "/b": ["span-2"]},
        ),
        (
            lambda batch: pa.chunked_array([batch.attribute("n").slice(0, 1), batch.attribute("n").slice(1)]),
            {str(i): [f"span-{i}"] for i in range(5)},
        ),
        (
            lambda batch: batch.column("name", level="scope").dictionary_encode(),
            {"test": [f"span-{i}" for i in range(5)]},
        ),
    ],
)
def test_records_can_be_keyed_by(by: Any, wanted: dict[str, list[str]]) -> None:
    """Tenant, an attribute of the resource or of another level, or a function of any kind of array."""
    assert names(run(by)) == wanted


@pytest.mark.parametrize(
    ("by", "complaint"),
    [
        (lambda _: pa.array(["a"]), "split.*<lambda>: expected 5 keys, one for each record, got 1"),
        (lambda _: ["a"] * 5, "split.*<lambda>: expected keys as an Arrow array, got list"),
        (lambda b: b.column("attributes"), "split.*<lambda>: expected keys that can be written as text, got list"),
        (lambda b: b.column("nope"), "split.*<lambda> raised BatchError: .*5 records of traces"),
    ],
)
def test_a_key_function_that_is_wrong_is_named(by: Any, complaint: str) -> None:
    """The flow stops and says which function returned what."""
    with raises_inside(UserFunctionError, match=complaint):
        run(by)


def test_settings_are_checked() -> None:
    """An empty name, an unknown level or key: refused."""
    for wrong in ({"by": ""}, {"level": "span"}, {"key": "x"}):
        with pytest.raises(ValidationError):
            PartitionSettings.model_validate(wrong)
