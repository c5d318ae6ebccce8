"""edit_attributes: each action at each level, in order, from Python and from a file."""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main
from pydantic import ValidationError

from operators import EditAttributesSettings, edit_attributes, edit_batch
from telflow import Signal, TelemetryBatch
from tests.batches import spans

BATCH = spans(
    [{"a": 1, "http.request.header.cookie": "c", "http.request.header.host": "h"}, {"b": "x"}],
    resource={"service.name": "shop", "host.name": "h1"},
)


def settings(*edits: dict[str, Any], **more: Any) -> EditAttributesSettings:
    """As read from a file."""
    return EditAttributesSettings.model_validate({"edits": list(edits), **more})


def keys(batch: TelemetryBatch, level: Any = "record") -> list[list[str]]:
    return [[attribute["key"] for attribute in row] for row in batch.attributes(level).to_pylist()]


@pytest.mark.parametrize(
    ("action", "wanted"),
    [("upsert", ["new", "new"]), ("insert", ["1", "new"]), ("update", ["new", None])],
)
def test_put_where_the_action_says(action: str, wanted: list[str | None]) -> None:
    """Insert only where absent, update only where present, upsert everywhere."""
    out = edit_batch(BATCH, settings({"action": action, "values": {"a": "new"}}))
    found = out.attributes().to_pylist()
    assert [next((a["str"] or str(a["int"]) for a in row if a["key"] == "a"), None) for row in found] == wanted


def test_values_keep_their_kind() -> None:
    """Numbers, booleans and text of a file become attributes of that kind."""
    values = {"i": 5, "d": 5.0, "b": True, "s": "5"}
    out = edit_batch(BATCH, settings({"action": "upsert", "level": "resource", "values": values}))
    for key, value in values.items():
        found = out.attribute(key, level="resource")[0].as_py()
        assert (found, type(found)) == (value, type(value))


def test_delete_by_name_and_by_pattern() -> None:
    """Whole names, or all that a pattern matches entirely."""
    by_name = edit_batch(BATCH, settings({"action": "delete", "keys": ["a", "b"]}))
    assert keys(by_name) == [["http.request.header.cookie", "http.request.header.host"], []]
    both = edit_batch(BATCH, settings({"action": "delete", "pattern": "http[.].*", "keys": ["b"]}))
    assert keys(both) == [["a"], []]
    part = edit_batch(BATCH, settings({"action": "delete", "pattern": "http"}))
    assert keys(part) == keys(BATCH)


def test_edits_work_on_what_the_one_before_left() -> None:
    """In order, each at its level."""
    out = edit_batch(
        BATCH,
        settings(
            {"action": "rename", "level": "resource", "names": {"host.name": "host.id"}},
            {"action": "insert", "level": "resource", "values": {"host.name": "other"}},
            {"action": "delete", "level": "resource", "keys": ["service.name"]},
            {"action": "upsert", "level": "scope", "values": {"edited": True}},
        ),
    )
    assert keys(out, "resource") == [["host.id", "host.name"]]
    assert keys(out, "scope") == [["edited"]]
    assert keys(out) == keys(BATCH)


def test_other_signals_pass() -> None:
    """Edits for logs leave spans alone, and the very batch goes on."""
    assert edit_batch(BATCH, settings({"action": "delete", "keys": ["a"]}, signals=["logs"])) is BATCH


def test_the_operator_edits_every_batch() -> None:
    """In a flow as by the kernel."""
    chosen, out = settings({"action": "delete", "pattern": ".*"}), list[TelemetryBatch]()
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource([BATCH, TelemetryBatch.empty(Signal.LOGS), BATCH]))
    op.output("out", edit_attributes("edit", up, chosen), TestingSink(out))
    run_main(flow)
    assert [keys(batch) for batch in out] == [[[], []], [], [[], []]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "remove", "keys": ["a"]},
        {"action": "delete"},
        {"action": "delete", "pattern": "("},
        {"action": "rename", "names": {}},
        {"action": "upsert", "values": {}},
        {"action": "upsert", "values": {"k": [1]}},
        {"action": "upsert", "values": {"k": 2**63}},
        {"action": "upsert", "values": {"k": 1}, "level": "span"},
        {"action": "upsert", "values": {"k": 1}, "key": "k"},
    ],
)
def test_settings_that_say_nothing_are_refused(wrong: dict[str, Any]) -> None:
    """An unknown action, level or key, nothing to do, a pattern or value that cannot be: refused at the start."""
    with pytest.raises(ValidationError):
        settings(wrong)
    with pytest.raises(ValidationError):
        settings()
