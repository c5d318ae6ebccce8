"""`TelemetryBatch`: what its operators return, that they change nothing, and what they refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow import Signal, TelemetryBatch
from telflow.errors import BatchError
from telflow.schema import RECORD_SCHEMAS
from tests.batches import batches, spans
from tests.strategies import thorough

SMALL = spans([{"n": 0}, {"n": 1}, {"n": 2, "s": "x"}], resource={"service.name": "shop"}, tenant="acme")
OTHER = spans([{"n": 3}], resource={"service.name": "cart"}, tenant="globex", first=3)


def rows(batch: TelemetryBatch) -> list[Any]:
    """Each record with the content of its resource and scope, as text: NaN equals itself, 0.0 and -0.0 differ."""
    resources, scopes = batch.resources.to_pylist(), batch.scopes.to_pylist()
    return [
        repr({**row, "resource": resources[row["resource"]], "scope": scopes[row["scope"]]})
        for row in batch.records.to_pylist()
    ]


# Construction


def test_the_tables_must_have_their_schemas() -> None:
    """A table of another kind or schema is refused, with the first column that differs."""
    records, resources, scopes = SMALL.records, SMALL.resources, SMALL.scopes
    with pytest.raises(BatchError, match=r"records: column 2: expected .*time_unix_nano.*got .*trace_id"):
        TelemetryBatch(Signal.LOGS, records, resources, scopes)
    with pytest.raises(BatchError, match=r"resources: column 0: expected .*tenant.* got .*name"):
        TelemetryBatch(Signal.TRACES, records, scopes, scopes)
    with pytest.raises(BatchError, match=r"scopes: expected a pyarrow.RecordBatch, got Table"):
        TelemetryBatch(Signal.TRACES, records, resources, pa.Table.from_batches([scopes]))
    more = records.append_column("extra", pa.nulls(3))
    with pytest.raises(BatchError, match=r"records: expected 20 columns, got 21"):
        TelemetryBatch(Signal.TRACES, more, resources, scopes)
    with pytest.raises(BatchError, match=r"records: column 19: expected .*status_message.*got None"):
        TelemetryBatch(Signal.TRACES, records.select(range(19)), resources, scopes)


def test_records_must_refer_to_what_is_there() -> None:
    """A row number beyond the resources is refused, so is none; a batch without records needs no resources."""
    with pytest.raises(BatchError, match=r"records: column resource: expected row numbers below 0, got 0"):
        TelemetryBatch(Signal.TRACES, SMALL.records, SMALL.resources.slice(0, 0), SMALL.scopes)
    field = SMALL.records.schema.field("scope")
    missing = SMALL.records.set_column(1, field, pa.array([0, None, 0], pa.uint32()))
    with pytest.raises(BatchError, match=r"records: column scope: expected row numbers below 1, got a null"):
        TelemetryBatch(Signal.TRACES, missing, SMALL.resources, SMALL.scopes)
    assert TelemetryBatch.empty(Signal.METRICS).num_rows == 0


def test_a_signal_may_be_given_by_its_name() -> None:
    """Text from a file is as good as the constant; another word is refused."""
    batch = TelemetryBatch("traces", SMALL.records, SMALL.resources, SMALL.scopes)  # type: ignore[arg-type]
    assert batch.signal is Signal.TRACES
    with pytest.raises(ValueError, match="not a valid Signal"):
        TelemetryBatch("spans", SMALL.records, SMALL.resources, SMALL.scopes)  # type: ignore[arg-type]


# Columns


def test_column_of_each_level() -> None:
    """Fixed fields come one per record, those of resources and scopes too."""
    both = TelemetryBatch.concat([SMALL, OTHER])
    assert both.column("name").to_pylist() == ["span-0", "span-1", "span-2", "span-3"]
    assert both.column("tenant", level="resource").to_pylist() == ["acme", "acme", "acme", "globex"]
    assert both.column("name", level="scope").to_pylist() == ["test"] * 4
    assert both.tenants().equals(both.column("tenant", level="resource"))


def test_a_column_that_is_not_there() -> None:
    """The error offers the nearest name, or all."""
    with pytest.raises(BatchError, match=r"traces record: no column 'end_time'; did you mean 'end_time_unix_nano'\?"):
        SMALL.column("end_time")
    with pytest.raises(BatchError, match=r"traces scope: no column 'qqq'; there are name, version"):
        SMALL.column("qqq", level="scope")
    with pytest.raises(BatchError, match="expected level record, resource or scope, got 'span'"):
        SMALL.column("name", level="span")  # type: ignore[arg-type]


def test_attribute_of_each_level() -> None:
    """Attributes come one per record, typed."""
    both = TelemetryBatch.concat([SMALL, OTHER])
    assert both.attribute("n").equals(pa.array([0, 1, 2, 3]))
    assert both.attribute("s", type=pa.string()).to_pylist() == [None, None, "x", None]
    assert both.attribute("service.name", level="resource").to_pylist() == ["shop", "shop", "shop", "cart"]
    assert both.with_attributes("scope", {"k": True}).attribute("k", level="scope").to_pylist() == [True] * 4


# Rows


@thorough(25)
@given(batches(), st.data())
def test_filter_take_and_slice_choose_rows(batch: TelemetryBatch, data: st.DataObject) -> None:
    """What comes out are the chosen records with their own resource and scope; the batch stays as it was."""
    before = rows(batch)
    count = batch.num_rows
    mask = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    assert rows(batch.filter(pa.array(mask, pa.bool_()))) == [r for r, keep in zip(before, mask, strict=True) if keep]
    places = data.draw(st.lists(st.integers(0, count - 1), max_size=9)) if count else []
    assert rows(batch.take(pa.array(places, pa.int64()))) == [before[place] for place in places]
    start, length = data.draw(st.integers(0, count)), data.draw(st.integers(0, count))
    assert rows(batch.slice(start, length)) == before[start : start + length]
    assert rows(batch.slice(start)) == before[start:]
    assert rows(batch) == before


def test_masks_come_in_every_usual_shape() -> None:
    """A numpy mask, a chunked one and one with nulls do the same; all true gives back the very batch."""
    keep = [True, False, True]
    wanted = SMALL.filter(pa.array(keep))
    assert SMALL.filter(np.array(keep)) == wanted
    assert SMALL.filter(pa.chunked_array([keep[:1], keep[1:]])) == wanted
    assert SMALL.filter(pa.array([True, None, True])) == wanted
    assert SMALL.filter(np.ones(3, np.bool_)) is SMALL
    assert SMALL.filter(np.zeros(3, np.bool_)).num_rows == 0


@pytest.mark.parametrize("mask", [pa.array([True]), pa.array([1, 0, 1]), np.array([0.0] * 3), [True] * 3])
def test_what_is_no_mask_is_refused(mask: Any) -> None:
    """Another length or type is an error that says what came."""
    with pytest.raises(BatchError, match="filter: expected a mask of 3 booleans, got"):
        SMALL.filter(mask)


@pytest.mark.parametrize("indices", [pa.array([3]), pa.array([-1]), pa.array([None, 1], pa.int32()), np.array([2**40])])
def test_rows_that_are_not_there_cannot_be_taken(indices: Any) -> None:
    """Too high, negative and null row numbers are refused."""
    with pytest.raises(BatchError, match="take: expected row numbers below 3"):
        SMALL.take(indices)


@thorough(30)
@given(st.sampled_from(list(Signal)), st.data())
def test_concat_joins_records_in_order(signal: Signal, data: st.DataObject) -> None:
    """All records in order with their resource and scope; what the inputs share is there once."""
    found = data.draw(st.lists(batches(signal), min_size=1, max_size=4))
    joined = TelemetryBatch.concat([*found, found[0]])
    assert rows(joined) == [row for batch in [*found, found[0]] for row in rows(batch)]
    assert joined.records.schema.equals(RECORD_SCHEMAS[signal])
    assert joined.resources.num_rows <= sum(batch.resources.num_rows for batch in found)


def test_requests_of_one_sender_share_its_resource() -> None:
    """Sixteen requests of two senders make two resources, and the unknown fields add up."""
    requests = [TelemetryBatch(b.signal, b.records, b.resources, b.scopes, 2) for b in [SMALL, OTHER] * 8]
    joined = TelemetryBatch.concat(requests)
    assert (joined.num_rows, joined.resources.num_rows, joined.scopes.num_rows) == (32, 2, 1)
    assert joined.unknown_fields == 32


def test_what_cannot_be_joined() -> None:
    """Nothing, and more than one signal, are refused; one batch is given back."""
    with pytest.raises(BatchError, match="concat: expected at least one batch, got none"):
        TelemetryBatch.concat([])
    with pytest.raises(BatchError, match="concat: expected only traces batches, got logs too"):
        TelemetryBatch.concat([SMALL, TelemetryBatch.empty(Signal.LOGS)])
    assert TelemetryBatch.concat([SMALL]) is SMALL


@thorough(25)
@given(st.lists(batches(Signal.LOGS), min_size=2, max_size=3), st.data())
def test_compact_leaves_only_what_is_used(found: list[TelemetryBatch], data: st.DataObject) -> None:
    """No resource or scope is left unused, and every record means the same."""
    batch = TelemetryBatch.concat(found)
    part = batch.filter(
        np.array(data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch))), np.bool_)
    )
    compact = part.compact()
    assert rows(compact) == rows(part)
    assert compact == part
    for table, level in ((compact.resources, "resource"), (compact.scopes, "scope")):
        assert set(compact.records[level].to_pylist()) == set(range(table.num_rows))


def test_a_compact_batch_is_given_back() -> None:
    """Nothing to leave out, nothing copied."""
    assert SMALL.compact() is SMALL


# Content


def test_attribute_edits_at_each_level() -> None:
    """Put, rename and drop change the named level and nothing else."""
    batch = SMALL.with_attributes("resource", {"env": "prod"}).with_attributes("record", {"n": pa.array([7, None, 9])})
    assert batch.attribute("n").to_pylist() == [7, 1, 9]
    assert batch.attribute("env", level="resource").to_pylist() == ["prod"] * 3
    batch = batch.rename_attributes({"env": "deployment.environment.name"}, "resource").drop_attributes("n")
    assert batch.attribute("deployment.environment.name", level="resource").to_pylist() == ["prod"] * 3
    assert batch.attribute("n").null_count == 3
    assert batch.drop_attributes(["deployment.environment.name"], "resource") == SMALL.drop_attributes(["n"])
    assert SMALL.attribute("n").to_pylist() == [0, 1, 2]


def test_an_absent_scope_that_gets_an_attribute_is_there() -> None:
    """A null scope name says that there is no scope message; with an attribute there is one, unnamed."""
    bare = spans([{}], scope=None)
    assert bare.scopes["name"].to_pylist() == [None]
    assert bare.drop_attributes(["k"], "scope") == bare
    assert bare.with_attributes("scope", {"k": 1}).scopes["name"].to_pylist() == [""]


def test_an_absent_resource_that_gets_an_attribute_is_there() -> None:
    """A null attribute list says that there is no resource message."""
    bare = spans([{}])
    assert bare.resources["attributes"].to_pylist() == [None]
    assert bare.with_attributes("resource", {"k": 1}).attribute("k", level="resource").to_pylist() == [1]
    assert bare.with_attributes("resource", {"k": 1}, mode="update") == bare


def test_tenant_can_be_set_and_taken() -> None:
    """All records belong to the new tenant; the old batch still to the old one."""
    assert SMALL.with_tenant("globex").tenants().to_pylist() == ["globex"] * 3
    assert SMALL.with_tenant(None).tenants().to_pylist() == [None] * 3
    assert SMALL.tenants().to_pylist() == ["acme"] * 3


def test_a_record_column_can_be_replaced() -> None:
    """Other values of the same type and number; anything else is refused."""
    assert SMALL.with_column("name", pa.array(["a", "b", "c"])).column("name").to_pylist() == ["a", "b", "c"]
    with pytest.raises(BatchError, match="traces records: column name"):
        SMALL.with_column("name", pa.array([1, 2, 3]))
    with pytest.raises(BatchError, match="traces records: column name"):
        SMALL.with_column("name", pa.array(["a"]))
    with pytest.raises(BatchError, match="no column 'nam'; did you mean 'name'"):
        SMALL.with_column("nam", pa.array(["a", "b", "c"]))


def test_num_bytes_is_that_of_the_slice() -> None:
    """A slice answers for its own rows; the answer is worked out once."""
    many = TelemetryBatch.concat([SMALL] * 100)
    assert many.slice(0, 30).num_bytes < many.num_bytes / 5
    assert many.num_bytes == many.num_bytes > 100 * 3 * 100


# Elsewhere


@thorough(30)
@given(batches())
def test_to_table_holds_everything(batch: TelemetryBatch) -> None:
    """The flat table has each record's own fields and those of its resource and scope."""
    table = batch.to_table()
    assert table.num_rows == batch.num_rows
    resources, scopes = batch.resources.to_pylist(), batch.scopes.to_pylist()
    for flat, row in zip(table.to_pylist(), batch.records.to_pylist(), strict=True):
        resource, scope = {**resources[row.pop("resource")]}, scopes[row.pop("scope")]
        wanted = {**row, "tenant": resource.pop("tenant")}
        wanted |= {f"resource_{k}": v for k, v in resource.items()} | {f"scope_{k}": v for k, v in scope.items()}
        assert repr(flat) == repr(wanted)


def test_to_polars_reads_columns_and_attributes() -> None:
    """A polars expression over a record column and one into the attributes."""
    frame = SMALL.to_polars()
    assert frame["name"].to_list() == ["span-0", "span-1", "span-2"]
    sizes = frame.select(pl.col("attributes").list.len())
    assert sizes["attributes"].to_list() == [1, 1, 2]


def test_a_polars_frame_goes_back() -> None:
    """Rows and values changed in polars come back as a batch of the same schema; the frame as it was is the batch."""
    frame = SMALL.to_polars()
    assert SMALL.with_polars(frame) == SMALL
    changed = SMALL.with_polars(frame.filter(pl.col("name") != "span-1").with_columns(kind=pl.lit(3, pl.Int32)))
    assert changed.column("name").to_pylist() == ["span-0", "span-2"]
    assert changed.column("kind").to_pylist() == [3, 3]
    assert changed.tenants().to_pylist() == ["acme", "acme"]


@thorough(20)
@given(batches())
def test_any_batch_survives_polars(batch: TelemetryBatch) -> None:
    """Nested columns, empty lists, nulls: nothing is lost on the way to polars and back."""
    assert batch.with_polars(batch.to_polars()) == batch


def test_a_frame_that_does_not_fit_is_refused() -> None:
    """Missing and unknown columns, other types and nulls are named."""
    frame = SMALL.to_polars()
    with pytest.raises(BatchError, match=r"expected the columns of to_polars.* no kind, also more"):
        SMALL.with_polars(frame.drop("kind").with_columns(more=1))
    with pytest.raises(BatchError, match="traces records: column kind: "):
        SMALL.with_polars(frame.with_columns(kind=pl.lit("server")))
    with pytest.raises(BatchError, match="traces records: column flags: expected no nulls, got 3"):
        SMALL.with_polars(frame.with_columns(flags=pl.lit(None, pl.UInt32)))
    with pytest.raises(BatchError, match="column resource: expected row numbers below 1, got 7"):
        SMALL.with_polars(frame.with_columns(resource=pl.lit(7, pl.UInt32)))


# Equality


@thorough(25)
@given(batches(), batches())
def test_equality_is_that_of_the_records(left: TelemetryBatch, right: TelemetryBatch) -> None:
    """Equal exactly if signal and records with their resource and scope are."""
    assert (left == right) == (left.signal is right.signal and rows(left) == rows(right))
    assert left == copy.copy(left)
    assert left == TelemetryBatch.concat([left, left]).slice(0, left.num_rows)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.take(pa.array([1, 0, 2])),
        lambda b: b.with_attributes("record", {"n": 0.0}),
        lambda b: b.with_attributes("resource", {"x": 1}),
        lambda b: b.with_attributes("scope", {"x": 1}),
        lambda b: b.with_tenant("globex"),
        lambda b: b.with_column("end_time_unix_nano", pa.array([1, 2, 3], pa.uint64())),
        lambda b: b.slice(0, 2),
    ],
)
def test_each_difference_counts(change: Callable[[TelemetryBatch], TelemetryBatch]) -> None:
    """Order, values, resources, scopes, tenant and number all make a batch another one."""
    assert change(SMALL) != SMALL


def test_equality_of_floats_is_that_of_their_bits() -> None:
    """NaN equals NaN, -0.0 is not 0.0."""
    assert spans([{"d": float("nan")}]) == spans([{"d": float("nan")}])
    assert spans([{"d": 0.0}]) != spans([{"d": -0.0}])


def test_a_batch_is_no_other_thing() -> None:
    """Comparing with something else is false, hashing refused, an empty batch true."""
    assert SMALL != "traces"
    assert bool(TelemetryBatch.empty(Signal.LOGS))
    assert len(SMALL) == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(SMALL)
    assert copy.deepcopy(SMALL) is SMALL
