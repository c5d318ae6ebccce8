"""The console: bounded, one line per record, nothing that steers the terminal; every record counted as delivered."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from connectors.console import ConsoleSettings, ConsoleSink, summarise
from telflow import Signal, TelemetryBatch
from telflow.accounting import Balance, Ledger
from tests.oracle import REQUESTS, batch_from_message


def _batch(signal: Signal, *records: dict[str, Any], tenant: str | None = "acme") -> TelemetryBatch:
    request: Any = REQUESTS[signal]()
    if signal is Signal.TRACES:
        envelope = request.resource_spans.add()
        target = envelope.scope_spans.add().spans
    elif signal is Signal.LOGS:
        envelope = request.resource_logs.add()
        target = envelope.scope_logs.add().log_records
    else:
        envelope = request.resource_metrics.add()
        target = envelope.scope_metrics.add().metrics
    envelope.resource.attributes.add(key="service.name").value.string_value = "shop"
    for record in records:
        target.add(**record)
    return batch_from_message(request, signal, tenant)


SPAN = {"name": "GET /cart", "start_time_unix_nano": 1_000_000, "end_time_unix_nano": 3_500_000, "status": {"code": 2}}


def test_a_span_is_its_service_name_duration_and_status() -> None:
    """What one wants to see of a span."""
    assert summarise(_batch(Signal.TRACES, SPAN)).splitlines() == [
        "traces: 1 records, 1 resources, 1 scopes, tenants acme",
        "  shop  GET /cart  2.500 ms  ERROR",
    ]


@pytest.mark.parametrize(("status", "shown"), [({}, ""), ({"code": 1}, "OK"), ({"code": 77}, "77"), (None, "")])
def test_a_status_of_any_kind_is_shown(status: dict[str, int] | None, shown: str) -> None:
    """Unset, known and unknown codes."""
    span = {k: v for k, v in SPAN.items() if k != "status"} | ({"status": status} if status is not None else {})
    assert summarise(_batch(Signal.TRACES, span)).splitlines()[1] == f"  shop  GET /cart  2.500 ms  {shown}".rstrip()


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"severity_text": "WARN", "body": {"string_value": "disk full"}}, "  shop  WARN  disk full"),
        ({"severity_number": 9, "body": {"int_value": 3}}, "  shop  9  3"),
        ({"body": {"kvlist_value": {}}}, "  shop  …"),
        ({}, "  shop"),
    ],
)
def test_a_log_record_is_its_severity_and_body(record: dict[str, Any], shown: str) -> None:
    """Text and numbers as they are, maps and lists as a mark."""
    assert summarise(_batch(Signal.LOGS, record)).splitlines()[1] == shown


@pytest.mark.parametrize(
    ("metric", "shown"),
    [
        ({"name": "up", "gauge": {"data_points": [{"as_int": 0}]}}, "  shop  up  gauge  0"),
        ({"name": "t", "unit": "s", "sum": {"data_points": [{"as_double": 0.5}]}}, "  shop  t  sum  0.5 s"),
        (
            {"name": "d", "unit": "ms", "exponential_histogram": {"data_points": [{"count": 4, "sum": 2.0}]}},
            "  shop  d  exponential histogram  count 4 sum 2.0 ms",
        ),
    ],
)
def test_a_data_point_is_its_metric_kind_and_value(metric: dict[str, Any], shown: str) -> None:
    """A number, or count and sum."""
    assert summarise(_batch(Signal.METRICS, metric)).splitlines()[1] == shown


def test_no_more_rows_than_asked_for_and_no_line_without_end() -> None:
    """A large batch does not flood the terminal."""
    batch = _batch(Signal.TRACES, *[SPAN | {"name": "x" * 5000}] * 100)
    lines = summarise(batch, max_rows=3).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) < 100
    assert summarise(batch, max_rows=0).count("\n") == 0


def test_control_characters_do_not_reach_the_terminal() -> None:
    """Data cannot clear the screen or break the line."""
    text = summarise(_batch(Signal.TRACES, SPAN | {"name": "a\x1b[2Jb\nc"}))
    assert "a·[2Jb·c" in text
    assert "\x1b" not in text


def _write(settings: ConsoleSettings | None, *batches: TelemetryBatch) -> tuple[str, Ledger]:
    stream, ledger = io.StringIO(), Ledger()
    sink = ConsoleSink(settings, stream=stream, ledger=ledger)
    assert sink.list_parts() == ["console"]
    part = sink.build_part("show", "console", 5)
    part.write_batch(list(batches))
    assert part.snapshot() == 5 + len(batches)
    part.close()
    return stream.getvalue(), ledger


def test_json_is_otlp_json_one_request_per_line() -> None:
    """Each line is a document that any OTLP/JSON reader takes, cut to max_rows records."""
    settings = ConsoleSettings(format="json", max_rows=2)
    text, ledger = _write(settings, _batch(Signal.TRACES, *[SPAN] * 5), _batch(Signal.LOGS, {"severity_number": 9}))
    traces, logs = map(json.loads, text.splitlines())
    assert [span["name"] for span in traces["resourceSpans"][0]["scopeSpans"][0]["spans"]] == ["GET /cart"] * 2
    assert logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["severityNumber"] == 9
    assert ledger.balance()["acme", Signal.TRACES] == Balance(delivered=5)


def test_by_default_it_writes_summaries_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stream it is standard output, found when it writes."""
    part = ConsoleSink(ledger=Ledger()).build_part("show", "console", None)
    part.write_batch([_batch(Signal.LOGS, {"severity_text": "INFO"}, tenant=None)])
    part.snapshot()
    part.close()
    assert capsys.readouterr().out == "logs: 1 records, 1 resources, 1 scopes\n  shop  INFO\n"
