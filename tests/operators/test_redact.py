"""redact: nothing sensitive leaves, wherever it hides; what cannot be judged is quarantined; the rest is untouched."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from operators.redact import RedactSettings, redact, redact_batch
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.codec import decode, encode
from telflow.errors import ConfigError
from telflow.governance import DetectorSettings, HashKey, PatternRule, Redactor
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal, ValueType
from tests.batches import key_value
from tests.canaries import BYTES_FORMS, LOCATIONS, NUMBER_FORMS, TEXT_FORMS, buffers, leaks, request_with
from tests.oracle import batch_from_message
from tests.same import assert_same_batch

_FORMS: dict[str, tuple[type, Any]] = {
    **{name: (str, form) for name, form in TEXT_FORMS.items()},
    **{name: (float, form) for name, form in NUMBER_FORMS.items()},
    **{name: (bytes, form) for name, form in BYTES_FORMS.items()},
}
_CASES = [
    pytest.param(signal, put, form, action, id=f"{where}-{name}-{action}")
    for signal, where, put, kinds in LOCATIONS
    for name, (kind, form) in _FORMS.items()
    if kind in kinds
    for action in ("mask", "hash", "delete")
    if action == "mask" or name in ("email", "card_int", "email_bytes")
]
_ENVIRON = {"KEY": "0123456789abcdef"}


def _redactor(action: str = "mask", **settings: Any) -> Redactor:
    options = {"action": action, "hash_key": {"env": "KEY"}, **settings}
    return Redactor(RedactSettings.model_validate(options), environ=_ENVIRON)


_REDACTORS = {action: _redactor(action) for action in ("mask", "hash", "delete")}


@pytest.mark.parametrize(("signal", "put", "canary", "action"), _CASES)
def test_a_canary_does_not_leave(signal: Signal, put: Any, canary: Any, action: str) -> None:
    """Planted in any place in any form, it is in no buffer, no export and no pickle; no record is lost."""
    request = request_with(signal, put, canary)
    batch = decode(request.SerializeToString(), signal)
    assert any(leaks(b) for b in buffers(batch))
    done = redact_batch(batch, _REDACTORS[action])
    assert done.quarantined is None
    assert done.kept.num_rows == batch.num_rows
    assert sum(done.counts.values()) >= 1
    for table in (done.kept.records, done.kept.resources, done.kept.scopes):
        table.validate(full=True)
    assert not leaks(b"\0".join(buffers(done.kept)))
    assert not leaks(encode(done.kept))
    assert not leaks(encode(done.kept, "json"))
    assert not leaks(pickle.dumps(done.kept))
    again = redact_batch(done.kept, _REDACTORS[action])
    assert again.kept is done.kept


@pytest.mark.parametrize("signal", list(Signal))
def test_a_batch_without_findings_is_returned_as_it_is(signal: Signal) -> None:
    """The very same object, so that nothing was copied."""
    batch = decode(request_with(signal, lambda _r, _c: None, None).SerializeToString(), signal)
    done = redact_batch(batch, _redactor())
    assert done.kept is batch
    assert not done.counts
    empty = TelemetryBatch.empty(signal)
    assert redact_batch(empty, _redactor()).kept is empty


def _traces(**attributes: Any) -> Any:
    request: Any = request_with(Signal.TRACES, lambda _r, _c: None, None)
    span = request.resource_spans[0].scope_spans[0].spans[1]
    span.attributes.extend(key_value(k, v) for k, v in attributes.items())
    return request


def _values(batch: TelemetryBatch, key: str) -> list[Any]:
    """Values of the attribute in the second record, None where the attribute is gone."""
    items = batch.records["attributes"][1].as_py()
    return [
        next(v for k, v in item.items() if k not in ("key", "type") and v is not None)
        for item in items
        if item["key"] == key
    ]


def test_what_stands_around_a_finding_stays() -> None:
    """Neighbouring values, order, other attributes and other columns keep their content."""
    request = _traces(a="mail jane@example.com now", b="x" * 40, c=4111111111111111, d=[1, "jane@example.com"], e=b"\0")
    expected = _traces(a="mail [EMAIL] now", b="x" * 40, c="[CARD]", d=[1, "[EMAIL]"], e=b"\0")
    done = redact_batch(batch_from_message(request, Signal.TRACES), _redactor())
    assert_same_batch(done.kept, batch_from_message(expected, Signal.TRACES))
    place = "record.attributes.value"
    assert done.counts == {("email", place): 2, ("payment_card", place): 1}


def test_delete_removes_the_attribute_and_empties_fields() -> None:
    """Attributes and map entries go, array elements become empty values so that the others keep their positions."""
    request = _traces(
        a="jane@example.com", b="kept", c=["x", "jane@example.com", 2], d={"m": "jane@example.com", "n": 1}
    )
    request.resource_spans[0].scope_spans[0].spans[0].name = "by jane@example.com"
    expected = _traces(b="kept", c=["x", None, 2], d={"n": 1})
    expected.resource_spans[0].scope_spans[0].spans[0].name = ""
    done = redact_batch(batch_from_message(request, Signal.TRACES), _redactor("delete"))
    assert_same_batch(done.kept, batch_from_message(expected, Signal.TRACES))


def test_a_deleted_body_is_an_empty_value() -> None:
    """The log record itself stays."""
    request: Any = request_with(Signal.LOGS, lambda _r, _c: None, None)
    logs = request.resource_logs[0].scope_logs[0].log_records
    logs[0].body.string_value = "jane@example.com"
    logs[1].body.int_value = 4111111111111111
    done = redact_batch(batch_from_message(request, Signal.LOGS), _redactor("delete"))
    assert [b and b["type"] for b in done.kept.records["body"].to_pylist()] == [ValueType.EMPTY, ValueType.EMPTY, None]


def test_a_match_does_not_span_two_values() -> None:
    """Values are adjacent in memory; text that only together looks like an address is left alone."""
    request = _traces(
        a="jane@exam", b="ple.com", c="4111", d="1111", e="1111", f="1111", g="see jane", h="@example.com"
    )
    batch = batch_from_message(request, Signal.TRACES)
    assert redact_batch(batch, _redactor()).kept is batch


@pytest.mark.parametrize("hidden", ["jane@example.com", "4111111111111111"])
def test_what_a_slice_hides_does_not_leave(hidden: str) -> None:
    """Rows before and behind a slice are not in the buffers of its redaction, found or not."""
    request = request_with(Signal.TRACES, lambda _r, _c: None, None)
    for at in (0, 2):
        span = request.resource_spans[0].scope_spans[0].spans[at]
        span.name = hidden
        span.trace_state = hidden
        span.attributes.append(key_value(hidden, [hidden]))
        span.events.add(name=hidden, attributes=[key_value("a", hidden)])
    batch = batch_from_message(request, Signal.TRACES)
    sliced = batch.slice(1, 1)
    assert hidden.encode() in b"".join(buffers(sliced))
    done = redact_batch(sliced, _redactor())
    assert hidden.encode() not in b"".join(buffers(done.kept))
    assert_same_batch(done.kept, sliced)


def test_what_null_slots_hide_does_not_leave() -> None:
    """Bytes below a null, which no reader shows, are found in every kind of column."""
    secret = b"jane@example.com"
    batch = batch_from_message(_traces(a="x"), Signal.TRACES)
    count = batch.num_rows

    def below_null(dtype: pa.DataType) -> pa.Array:
        offsets = pa.py_buffer(pa.array([len(secret) * i for i in range(count + 1)], pa.int32()).buffers()[1])
        return pa.Array.from_buffers(dtype, count, [pa.py_buffer(b"\0"), offsets, pa.py_buffer(secret * count)])

    def numbers(dtype: pa.DataType, values: list[Any]) -> pa.Array:
        content = pa.array(values, dtype).buffers()[1]
        return pa.Array.from_buffers(dtype, count, [pa.py_buffer(b"\0"), content])

    card = 4111111111111111
    value = [
        pa.array([None] * count, pa.uint8()),
        below_null(pa.string()),
        numbers(pa.int64(), [card] * count),
        numbers(pa.float64(), [float(card)] * count),
        pa.array([None] * count, pa.bool_()),
        below_null(pa.binary()),
    ]
    item = RECORD_SCHEMAS[Signal.TRACES].field("attributes").type.value_type
    struct = pa.StructArray.from_arrays([pa.array(["k"] * count), *value], fields=list(item))
    attributes = pa.ListArray.from_arrays(pa.array(range(count + 1), pa.int32()), struct)
    attributes = attributes.cast(RECORD_SCHEMAS[Signal.TRACES].field("attributes").type)
    ids = pa.Array.from_buffers(pa.binary(16), count, [pa.py_buffer(b"\0"), pa.py_buffer(b"4111111111111111" * count)])
    columns = {
        "attributes": attributes,
        "status_message": below_null(pa.string()),
        "trace_id": ids,
    }
    records = batch.records
    for name, column in columns.items():
        at = records.schema.get_field_index(name)
        records = records.set_column(at, records.schema.field(at), column)
    hiding = TelemetryBatch(batch.signal, records, batch.resources, batch.scopes)
    done = redact_batch(hiding, _redactor())
    assert secret not in b"".join(buffers(done.kept))
    assert not leaks(b"".join(buffers(done.kept)))
    assert_same_batch(done.kept, hiding)
    assert not done.counts


def _with_column(batch: TelemetryBatch, table: str, name: str, column: pa.Array) -> TelemetryBatch:
    tables = {"records": batch.records, "resources": batch.resources, "scopes": batch.scopes}
    at = tables[table].schema.get_field_index(name)
    tables[table] = tables[table].set_column(at, tables[table].schema.field(at), column)
    return TelemetryBatch(batch.signal, **tables)


def _undecodable(rows: int, bad: int, dtype: pa.DataType, kind: ValueType = ValueType.ARRAY) -> pa.Array:
    """Attribute lists, one of which claims to be an array and holds a canary in what is no protobuf message."""
    junk = b"\xffcanary.bird@example.com"
    lists = [
        [{"key": "k", "type": kind, "bytes": junk}]
        if row == bad
        else [{"key": "k", "type": ValueType.STRING, "str": "x"}]
        for row in range(rows)
    ]
    return pa.array(lists, dtype)


@pytest.mark.parametrize("kind", [ValueType.ARRAY, ValueType.KVLIST, ValueType.RAW])
def test_only_the_record_that_cannot_be_judged_is_quarantined(kind: ValueType) -> None:
    """The others go on, redacted; the quarantined one is as it came."""
    batch = batch_from_message(_traces(a="jane@example.com"), Signal.TRACES)
    dtype = RECORD_SCHEMAS[Signal.TRACES].field("attributes").type
    spoilt = _with_column(batch, "records", "attributes", _undecodable(3, 2, dtype, kind))
    done = redact_batch(spoilt, _redactor())
    assert done.quarantined is not None
    assert_same_batch(done.quarantined, spoilt.filter(pa.array([False, False, True])))
    assert_same_batch(done.kept, spoilt.filter(pa.array([True, True, False])))
    assert not leaks(b"".join(buffers(done.kept)))
    assert done.reason == "undecodable value"


@pytest.mark.parametrize(("table", "schema"), [("resources", RESOURCES), ("scopes", SCOPES)])
def test_a_resource_that_cannot_be_judged_takes_its_records_along(table: str, schema: pa.Schema) -> None:
    """Records of other resources go on, and the spoilt row is not left behind in the table."""
    batch = TelemetryBatch.concat([_one_span("good"), _one_span("bad")])
    assert batch.resources.num_rows == batch.scopes.num_rows == 2
    spoilt = _with_column(batch, table, "attributes", _undecodable(2, 1, schema.field("attributes").type))
    done = redact_batch(spoilt, _redactor())
    assert done.quarantined is not None
    assert (done.kept.num_rows, done.quarantined.num_rows) == (1, 1)
    assert not leaks(b"".join(buffers(done.kept)))
    assert not leaks(pickle.dumps(done.kept))


def _one_span(name: str) -> TelemetryBatch:
    request = request_with(Signal.TRACES, lambda _r, _c: None, None)
    spans_of = request.resource_spans[0]
    spans_of.resource.attributes.append(key_value("service.name", name))
    spans_of.scope_spans[0].scope.name = name
    return batch_from_message(request, Signal.TRACES).slice(0, 1)


def test_a_spoilt_resource_that_nobody_refers_to_is_left_out() -> None:
    """No record is quarantined for it, and it does not stay in the batch either."""
    batch = TelemetryBatch.concat([_one_span("good"), _one_span("bad")])
    dtype = RESOURCES.field("attributes").type
    spoilt = _with_column(batch, "resources", "attributes", _undecodable(2, 1, dtype)).slice(0, 1)
    done = redact_batch(spoilt, _redactor())
    assert done.quarantined is None
    assert done.kept.num_rows == 1
    assert not leaks(b"".join(buffers(done.kept)))


def test_irregular_ids_that_are_no_protobuf_are_quarantined() -> None:
    """Arbitrary bytes there fail closed."""
    batch = batch_from_message(_traces(a="x"), Signal.TRACES)
    spoilt = _with_column(batch, "records", "irregular_ids", pa.array([None, b"\x0a\xffjane@example.com", None]))
    done = redact_batch(spoilt, _redactor())
    assert done.quarantined is not None
    assert done.quarantined.num_rows == 1
    assert b"jane" not in b"".join(buffers(done.kept))


def test_a_kernel_that_fails_lets_nothing_pass(caplog: pytest.LogCaptureFixture) -> None:
    """A malformed batch is quarantined whole; neither the reason nor the log quotes it."""
    batch = batch_from_message(_traces(a="jane@example.com"), Signal.TRACES)
    offsets = pa.array([0, 3, 99, 16], pa.int32()).buffers()[1]
    names = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"jane@example.com")])
    spoilt = _with_column(batch, "records", "name", names)
    out: list[TelemetryBatch] = []
    bad: list[TelemetryBatch] = []
    ledger = Ledger()
    _run([spoilt, batch], out, bad, ledger)
    assert [b.num_rows for b in out] == [3]
    assert [b.num_rows for b in bad] == [3]
    assert bad[0] is spoilt
    (row,) = ledger.rows()
    assert (row.outcome, row.count, row.component) == (Outcome.QUARANTINED, 3, "flow.clean")
    assert row.reason.startswith("redaction failed (")
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    for text in (row.reason, caplog.text):
        assert "jane" not in text
        assert "example.com" not in text


class _Panic(BaseException):
    """What a Rust panic looks like from Python."""


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, _Panic])
def test_any_error_of_the_kernel_quarantines(error: type[BaseException]) -> None:
    """Even one that is no Exception; its message, which may quote data, is dropped."""

    class Broken(Redactor):
        def redact(self, batch: TelemetryBatch) -> Any:  # noqa: ARG002 - fails whatever it is given
            raise error("jane@example.com")

    batch = batch_from_message(_traces(a="x"), Signal.TRACES)
    done = redact_batch(batch, Broken(RedactSettings()))
    assert done.kept.num_rows == 0
    assert done.quarantined is batch
    assert done.reason == f"redaction failed ({error.__name__})"


def test_an_interrupt_is_not_swallowed() -> None:
    """Ctrl-C ends the process rather than filling the quarantine."""

    class Interrupted(Redactor):
        def redact(self, batch: TelemetryBatch) -> Any:  # noqa: ARG002 - fails whatever it is given
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        redact_batch(TelemetryBatch.empty(Signal.LOGS), Interrupted(RedactSettings()))


def _run(
    batches: list[TelemetryBatch], out: list[TelemetryBatch], bad: list[TelemetryBatch], ledger: Ledger, **settings: Any
) -> None:
    flow = Dataflow("flow")
    stream = op.input("in", flow, TestingSource(batches))
    done = redact("clean", stream, RedactSettings(**settings), ledger)
    op.output("out", done.kept, TestingSink(out))
    op.output("bad", done.quarantined, TestingSink(bad))
    run_main(flow)


def test_the_operator_parts_kept_from_quarantined() -> None:
    """Batches of all signals in one stream; a batch of which nothing is left does not appear."""
    traces = batch_from_message(_traces(a="jane@example.com"), Signal.TRACES)
    dtype = RECORD_SCHEMAS[Signal.TRACES].field("attributes").type
    one = _with_column(traces, "records", "attributes", _undecodable(3, 0, dtype)).slice(0, 1)
    logs = batch_from_message(request_with(Signal.LOGS, lambda _r, _c: None, None), Signal.LOGS)
    out: list[TelemetryBatch] = []
    bad: list[TelemetryBatch] = []
    ledger = Ledger()
    _run([traces, one, logs, TelemetryBatch.empty(Signal.METRICS)], out, bad, ledger)
    assert [b.signal for b in out] == [Signal.TRACES, Signal.LOGS]
    assert _values(out[0], "a") == ["[EMAIL]"]
    assert [b.num_rows for b in bad] == [1]
    assert [(r.signal, r.count, r.reason) for r in ledger.rows()] == [(Signal.TRACES, 1, "undecodable value")]


def test_settings_that_cannot_be_compiled_are_refused_before_data_flows() -> None:
    """When the flow is built, with the name of the rule."""
    stream = op.input("in", Dataflow("flow"), TestingSource[TelemetryBatch]([]))
    settings = RedactSettings(patterns=(PatternRule(name="ticket", pattern="T-(\\d"),))
    with pytest.raises(ConfigError, match="ticket"):
        redact("clean", stream, settings)
    secret = RedactSettings(
        detectors={"email": DetectorSettings(action="hash")}, hash_key=HashKey(env="TELFLOW_NO_SUCH")
    )
    with pytest.raises(ConfigError, match="TELFLOW_NO_SUCH"):
        redact("other", stream, secret)
