"""Batches as archive rows and back: nothing may be lost or altered, whatever OTLP can say."""

from __future__ import annotations

import io
import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import Schema
from hypothesis import given
from hypothesis import strategies as st

from connectors.archive.layout import (
    archive_schema,
    check_promote,
    event_time,
    from_rows,
    stored_type,
    to_rows,
)
from connectors.archive.promote import DEFAULT_PROMOTE, PromotedAttribute
from telflow import TelemetryBatch
from telflow.codec import encode
from telflow.errors import ConfigError, DecodeError
from telflow.schema import Signal
from tests.oracle import REQUESTS, batch_from_message, normal_form
from tests.strategies import requests, thorough


def _through_parquet(rows: pa.Table) -> pa.Table:
    file = io.BytesIO()
    pq.write_table(rows, file, store_schema=False)
    return pq.read_table(file, use_threads=False)


@pytest.mark.parametrize("signal", list(Signal))
@thorough(30)
@given(data=st.data())
def test_round_trip_law(signal: Signal, data: st.DataObject) -> None:
    """Every record comes back with its resource, scope and tenant, and means the same OTLP, whatever OTLP can say."""
    request = data.draw(requests(signal))
    batch = batch_from_message(request, signal, data.draw(st.sampled_from([None, "", "acme", "名前"])))
    again = from_rows(signal, _through_parquet(to_rows([batch], DEFAULT_PROMOTE)))
    assert _exactly(again) == _exactly(batch)
    assert normal_form(REQUESTS[signal].FromString(encode(again)), signal) == normal_form(request, signal)


def _exactly(batch: TelemetryBatch) -> list[tuple[str, str, str]]:
    """Records with what they refer to; in this form NaN equals itself and -0.0 does not equal 0.0."""
    resources, scopes = batch.resources.to_pylist(), batch.scopes.to_pylist()
    return [
        (repr(resources[row.pop("resource")]), repr(scopes[row.pop("scope")]), repr(row))
        for row in batch.records.to_pylist()
    ]


def _tenants(batch: TelemetryBatch) -> list[Any]:
    return list(batch.resources["tenant"].take(batch.records["resource"]).to_pylist())


def test_extreme_values() -> None:
    """NaN, -0.0, NUL, emoji, 2**64 - 1 and irregular identifiers keep their bits."""
    request: Any = REQUESTS[Signal.LOGS]()
    resource = request.resource_logs.add()
    log = resource.scope_logs.add().log_records.add(time_unix_nano=2**64 - 1, trace_id=b"short", flags=2**32 - 1)
    for value in (math.nan, -0.0, math.inf):
        log.attributes.add(key="d\0🙂").value.double_value = value
    (again,) = _logs(from_rows(Signal.LOGS, _through_parquet(to_rows([batch_from_message(request, Signal.LOGS)]))))
    assert again["time_unix_nano"] == 2**64 - 1
    assert again["flags"] == 2**32 - 1
    assert again["irregular_ids"] is not None
    nan, zero, infinity = (a["double"] for a in again["attributes"])
    assert math.isnan(nan)
    assert math.copysign(1, zero) == -1
    assert infinity == math.inf
    assert {a["key"] for a in again["attributes"]} == {"d\0🙂"}


def _logs(batch: TelemetryBatch) -> list[dict[str, Any]]:
    return list(batch.records.to_pylist())


def _log_batch(times: list[int], tenant: str | None = None, observed: int = 0) -> TelemetryBatch:
    request: Any = REQUESTS[Signal.LOGS]()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "cart"
    logs = resource.scope_logs.add().log_records
    for time in times:
        logs.add(time_unix_nano=time, observed_time_unix_nano=observed)
    return batch_from_message(request, Signal.LOGS, tenant)


def test_equal_resources_become_one_row_but_tenants_stay_apart() -> None:
    """Rows of several batches share resources and scopes; the same resource of two tenants is two."""
    rows = to_rows([_log_batch([1, 2], tenant) for tenant in ("a", "b", "a", None)])
    for chunked in (rows, _through_parquet(rows)):
        again = from_rows(Signal.LOGS, chunked)
        assert again.resources["tenant"].to_pylist() == ["a", "b", None]
        assert again.scopes.num_rows == 1
        assert _tenants(again) == ["a", "a", "b", "b", "a", "a", None, None]


def test_equal_resources_of_two_tenants_in_one_batch() -> None:
    """They are two rows going in and two coming out."""
    batch = TelemetryBatch.concat([_log_batch([1, 2], "a"), _log_batch([3], "b"), _log_batch([4], "a")])
    again = from_rows(Signal.LOGS, to_rows([batch]))
    assert _exactly(again) == _exactly(batch)
    assert again.resources.num_rows == 2


@pytest.mark.parametrize("signal", list(Signal))
def test_empty_batch(signal: Signal) -> None:
    """No rows there and back."""
    rows = to_rows([TelemetryBatch.empty(signal)], DEFAULT_PROMOTE)
    assert rows.num_rows == 0
    assert from_rows(signal, rows).num_rows == 0
    assert from_rows(signal, _through_parquet(rows)).num_rows == 0


@pytest.mark.parametrize("signal", list(Signal))
def test_rows_have_the_tables_schema(signal: Signal) -> None:
    """Column by column, dictionaries aside; and Delta Lake has all those types."""
    want = archive_schema(signal, DEFAULT_PROMOTE)
    got = to_rows([TelemetryBatch.empty(signal)], DEFAULT_PROMOTE).schema
    assert got.names == want.names
    for field in got:
        dtype = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        assert dtype == want.field(field.name).type, field.name
    assert pa.schema(Schema.from_arrow(want)).types == want.types


def test_stored_types_hold_every_value() -> None:
    """Every unsigned integer survives the cast to its stored type and back, inside lists as well."""
    for dtype, edge in ((pa.uint64(), 2**64 - 1), (pa.uint32(), 2**32 - 1), (pa.uint8(), 255)):
        values = pa.array([[0, edge], [edge // 2 + 1], None], pa.list_(dtype))
        stored = values.cast(stored_type(values.type), safe=False)
        assert stored.cast(values.type, safe=False).equals(values)


def test_event_time_of_logs_falls_back_to_the_observed_time() -> None:
    """Logs data model: a record without a timestamp happened when it was observed."""
    assert event_time(Signal.LOGS, _log_batch([0, 7], observed=5).records).to_pylist() == [5, 7]


_DAY = 86_400_000_000_000
_NOON = 20_000 * _DAY + _DAY // 2


def test_dates_are_days_in_utc_and_null_when_implausible() -> None:
    """The partition is the UTC day of the event time; year 1970 or 2554 is no day to make a directory for."""
    dates = to_rows([_log_batch([_NOON, _NOON + _DAY, 0, 1, 2**64 - 1, 2**63])])["date"].to_pylist()
    assert [d and d.isoformat() for d in dates] == ["2024-10-04", "2024-10-05", None, None, None, None]


def test_random_times_make_few_partitions() -> None:
    """A sender of random times gets 64 directories a write, the most frequent days, not one per record."""
    batches = [_log_batch([_NOON + day * _DAY for day in days]) for days in (range(200), [7, 190] * 3)]
    dates = to_rows(batches)["date"]
    assert len(dates.unique().drop_null()) == 64
    assert dates[7].as_py() is not None
    assert dates[190].as_py() is not None


def test_foreign_cell_is_an_error() -> None:
    """A resource cell that is no OTLP message is refused as such."""
    rows = to_rows([_log_batch([1])])
    rows = rows.set_column(rows.schema.get_field_index("resource"), "resource", pa.array([b"\x0a\xff"]))
    with pytest.raises(DecodeError):
        from_rows(Signal.LOGS, rows)


@pytest.mark.parametrize(
    ("promote", "complaint"),
    [
        ([PromotedAttribute(attribute="service.name", level="resource")], "service_name"),
        ([PromotedAttribute(attribute="kind")], "traces"),
        ([PromotedAttribute(attribute="a.b"), PromotedAttribute(attribute="a_b")], r"promote\[0\]"),
    ],
)
def test_promoted_columns_may_not_clash(promote: list[PromotedAttribute], complaint: str) -> None:
    """A name taken by a record's own column, an archive column or another entry is refused, with the way out."""
    with pytest.raises(ConfigError, match=f"(?s){complaint}.*hint"):
        check_promote(promote)


def test_default_promotion_is_free_of_clashes() -> None:
    """The defaults work for every signal."""
    check_promote(DEFAULT_PROMOTE)
