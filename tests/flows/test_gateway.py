"""The gateway's wiring: what goes in comes out where it should, governed, counted, and nothing else does."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bytewax.testing import run_main
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from connectors.archive import query
from connectors.otlp import NullOtlpServer
from connectors.quarantine import read_quarantine
from flows.gateway import GatewaySettings, build, check, tenant_of
from operators import NO_KEY
from telflow import codec
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.configuration import ConfigurationError, read
from telflow.delivery.intake import MemoryIntake
from telflow.errors import ConfigError
from telflow.schema import Signal, ValueType
from tests.batches import key_value
from tests.same import assert_same_batch
from tests.sampling import Row, kept_rows, rows_batch
from tests.spans import EPOCH, SECOND, Span, points, spans_batch

MESSAGES: dict[Signal, Any] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}


def logs(*bodies: str, tenant: str | None = "acme") -> TelemetryBatch:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for body in bodies:
        records.add(time_unix_nano=EPOCH, severity_number=9).body.string_value = body
    return codec.decode(request.SerializeToString(), Signal.LOGS, tenant=tenant)


def gauges(tenant: str | None = "acme") -> TelemetryBatch:
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.append(key_value("service.name", "shop"))
    metric = resource.scope_metrics.add().metrics.add(name="queue.length", unit="1")
    metric.gauge.data_points.add(time_unix_nano=EPOCH, as_int=7)
    return codec.decode(request.SerializeToString(), Signal.METRICS, tenant=tenant)


class Given(MemoryIntake):
    """An intake of batches that no receiver has made: each one as it is, also such as no payload becomes."""

    def __init__(self, batches: Sequence[TelemetryBatch]) -> None:
        super().__init__()
        self._given = list(batches)

    def take(self, *, timeout_s: float, max_bytes: int, linger_s: float = 0.0) -> list[TelemetryBatch]:
        if self._given:
            return [self._given.pop(0)]
        return super().take(timeout_s=timeout_s, max_bytes=max_bytes, linger_s=linger_s)

    @property
    def drained(self) -> bool:
        return not self._given and super().drained


def run(batches: Sequence[TelemetryBatch], /, **settings: Any) -> Ledger:
    """Run a gateway over the batches until all have left it; return its account."""
    ledger, intake = Ledger(), Given(batches)
    for batch in batches:
        ledger.add_batch(Outcome.RECEIVED, batch, component="otlp")
    intake.close()
    settings = {"storage": {"durability": "memory"}, **settings}
    run_main(
        build(GatewaySettings.model_validate(settings), intake, ledger=ledger), epoch_interval=timedelta(seconds=1)
    )
    return ledger


def counts(ledger: Ledger, outcome: Outcome) -> dict[tuple[str, str], int]:
    return {(row.component, row.signal.value): row.count for row in ledger.rows() if row.outcome is outcome}


def kept(server: NullOtlpServer, signal: Signal) -> list[TelemetryBatch]:
    return [codec.decode(r.payload, r.signal, r.encoding) for r in server.kept if r.signal is signal]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "http/json"])
def test_every_destination_gets_every_record_as_it_came(protocol: str, tmp_path: Path) -> None:
    """All three signals, two exporters and an archive; the ledger calls all but one of them copies."""
    sent = {
        Signal.TRACES: spans_batch([Span(EPOCH + n, name=f"s{n}", attributes={"n": n}) for n in range(5)]),
        Signal.METRICS: gauges(),
        Signal.LOGS: logs("one", "two"),
    }
    with NullOtlpServer(keep=True) as a, NullOtlpServer(keep=True) as b:
        ports = {"grpc": (a.grpc_port, b.grpc_port)}.get(protocol, (a.http_port, b.http_port))
        names = ("first", "second")
        ledger = run(
            list(sent.values()),
            exporters={
                name: {"endpoint": f"127.0.0.1:{port}", "protocol": protocol}
                for name, port in zip(names, ports, strict=True)
            },
            archive={"path": tmp_path / "archive"},
            span_metrics=False,
        )
    for server in (a, b):
        for signal, batch in sent.items():
            (got,) = kept(server, signal)
            expected = MESSAGES[signal].FromString(codec.encode(batch))
            assert MESSAGES[signal].FromString(codec.encode(got)) == expected
    assert query(tmp_path / "archive", "select count(*) as n from traces")["n"].to_list() == [5]
    delivered = counts(ledger, Outcome.DELIVERED)
    assert delivered["gateway.export_first.write", "traces"] == delivered["gateway.export_second.write", "traces"] == 5
    assert delivered["gateway.archive.write", "logs"] == 2
    assert counts(ledger, Outcome.DERIVED)["gateway.export_second", "traces"] == 5
    assert all(balance.in_flight == 0 for balance in ledger.balance().values())


def test_personal_data_leaves_nowhere(tmp_path: Path) -> None:
    """By default, without a word about redaction in the settings."""
    mail = "jane.roe@example.com"
    spans = spans_batch([Span(EPOCH, name=f"mail {mail}", attributes={"user.email": mail})])
    with NullOtlpServer(keep=True) as server:
        run(
            [spans, logs(f"sent to {mail}")],
            exporters={"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}},
            archive={"path": tmp_path / "archive"},
        )
    assert len(server.kept) == 3  # spans, logs, and the metrics of the spans
    assert not any(mail.encode() in request.payload for request in server.kept)
    for sql in ("select * from traces", "select * from logs", "select * from metrics"):
        rows = query(tmp_path / "archive", sql).to_dicts()
        assert rows
        assert mail not in str(rows)


def test_span_metrics_go_where_the_spans_go_and_count_as_derived() -> None:
    """Open windows are closed when the gateway stops, since nothing would bring them back."""
    spans = spans_batch([Span(EPOCH + n * SECOND, status=2 if n == 3 else None) for n in range(4)])
    with NullOtlpServer(keep=True) as server:
        ledger = run([spans], exporters={"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}})
    metrics = TelemetryBatch.concat(kept(server, Signal.METRICS))
    calls = metrics.filter(pa.array([name.endswith("calls") for name in metrics.records["name"].to_pylist()]))
    status = calls.attribute("status.code").to_pylist()
    assert dict(zip(status, calls.records["value_int"].to_pylist(), strict=True)) == {
        "STATUS_CODE_UNSET": 3,
        "STATUS_CODE_ERROR": 1,
    }
    assert counts(ledger, Outcome.DERIVED) == {("gateway.span_metrics", "metrics"): metrics.num_rows}
    assert ledger.balance()["acme", Signal.METRICS].in_flight == 0


def test_with_recovery_open_windows_wait_for_the_next_run(tmp_path: Path) -> None:
    """A restart must not split a window in two: nothing of it is sent when the gateway stops."""
    with NullOtlpServer(keep=True) as server:
        exporters = {"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}}
        run([spans_batch([Span(EPOCH)])], exporters=exporters, storage={"dir": tmp_path})
    assert kept(server, Signal.METRICS) == []
    assert len(kept(server, Signal.TRACES)) == 1


def test_tenants_are_kept_apart(tmp_path: Path) -> None:
    """A request of each, joined on the way, and one of nobody's; each archived and counted under its own name."""
    batches = [logs("a", tenant="acme"), logs("b", "c", tenant="globex"), logs("d", tenant=None)]
    ledger = run(batches, archive={"path": tmp_path})
    rows = query(tmp_path, "select tenant, count(*) as n from logs group by tenant order by n desc, tenant").rows()
    assert sorted(rows, key=str) == sorted([("acme", 1), ("globex", 2), (None, 1)], key=str)
    delivered = {tenant: balance.delivered for (tenant, _), balance in ledger.balance().items()}
    assert delivered == {"acme": 1, "globex": 2, "": 1}


def test_unwanted_records_are_dropped_and_counted_by_their_reason() -> None:
    """Each condition by its own; what fits none goes on."""
    spans = spans_batch([Span(EPOCH, name=name) for name in ("GET /health", "GET /cart", "GET /health")])
    with NullOtlpServer(keep=True) as server:
        ledger = run(
            [spans, logs("kept")],
            drop=[{"names": ["* /health"], "reason": "health check"}, {"names": ["nothing"]}],
            exporters={"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}},
            span_metrics=False,
        )
    (got,) = kept(server, Signal.TRACES)
    assert got.records["name"].to_pylist() == ["GET /cart"]
    assert [batch.num_rows for batch in kept(server, Signal.LOGS)] == [1]
    (dropped,) = [row for row in ledger.rows() if row.outcome is Outcome.DROPPED]
    assert (dropped.component, dropped.reason, dropped.count) == ("gateway.drop_0", "health check", 2)


def test_attributes_are_edited_before_they_are_redacted() -> None:
    """What a rename moves is still found."""
    spans = spans_batch([Span(EPOCH, attributes={"mail": "jane.roe@example.com", "old": 1})])
    edits = [{"action": "rename", "names": {"mail": "contact"}}, {"action": "delete", "keys": ["old"]}]
    with NullOtlpServer(keep=True) as server:
        run(
            [spans],
            edit_attributes={"edits": edits},
            exporters={"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}},
            span_metrics=False,
        )
    (got,) = kept(server, Signal.TRACES)
    assert [a["key"] for a in got.records["attributes"][0].as_py()] == ["contact"]
    assert "@" not in str(got.records["attributes"].to_pylist())


def test_what_cannot_be_judged_is_quarantined_and_nothing_else(tmp_path: Path) -> None:
    """A record whose nested value is no AnyValue: it waits in its file, as it came; its neighbour goes on."""
    batch = logs("fine", "broken")
    bodies = batch.records["body"].to_pylist()
    bodies[1] = {"type": int(ValueType.ARRAY), "str": None, "int": None, "double": None, "bool": None, "bytes": b"\xff"}
    place = batch.records.schema.get_field_index("body")
    body = pa.array(bodies, batch.records.schema.field("body").type)
    broken = batch.with_records(batch.records.set_column(place, batch.records.schema.field(place), body))
    with NullOtlpServer(keep=True) as server:
        ledger = run(
            [broken],
            exporters={"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}},
            quarantine={"path": tmp_path / "quarantine"},
        )
    (got,) = kept(server, Signal.LOGS)
    assert [b["str"] for b in got.records["body"].to_pylist()] == ["fine"]
    (held,) = read_quarantine(tmp_path / "quarantine")
    assert_same_batch(held.compact(), broken.slice(1).compact())
    balance = ledger.balance()["acme", Signal.LOGS]
    assert (balance.received, balance.delivered, balance.quarantined, balance.in_flight) == (2, 1, 1, 0)


def test_without_a_destination_the_console_shows_a_summary(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The defaults do something a newcomer can see; with another destination it is silent unless asked for."""
    run([logs("hello")], coalesce=False)
    assert "hello" in capsys.readouterr().out
    run([logs("hello")], archive={"path": tmp_path / "a"})
    assert capsys.readouterr().out == ""
    run([logs("hello")], archive={"path": tmp_path / "b"}, console={"format": "json"})
    assert json.loads(capsys.readouterr().out)["resourceLogs"]


def test_every_part_can_be_switched_off() -> None:
    """What is left is a relay: the personal data in it goes out, because that was asked for."""
    with NullOtlpServer(keep=True) as server:
        run(
            [logs("to jane.roe@example.com")],
            coalesce=False,
            redact=False,
            span_metrics=False,
            exporters={"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}},
        )
    assert b"jane.roe@example.com" in server.kept[0].payload


@pytest.mark.parametrize(
    ("archive", "durability", "epoch", "seconds"),
    [(None, "memory", None, 1), ("x", "fsync", None, 1), ("x", "memory", None, 10), ("x", "memory", "3s", 3)],
)
def test_an_archive_without_a_queue_makes_epochs_longer(
    archive: str | None, durability: str, epoch: str | None, seconds: int
) -> None:
    """Every flush of it makes files; with a queue epochs have nothing to do with files; a stated epoch wins."""
    settings = GatewaySettings.model_validate(
        {"archive": archive and {"path": archive}, "epoch": epoch, "storage": {"durability": durability}}
    )
    assert settings.epoch_interval == timedelta(seconds=seconds)


def test_a_key_without_settings_keeps_the_protection() -> None:
    """`redact:` with nothing behind it is redaction with its defaults; only false is none."""
    assert read("redact:\n", GatewaySettings).redact is not None
    assert read("redact: false\n", GatewaySettings).redact is None
    assert read("receivers: {otlp: {grpc: }}\n", GatewaySettings).receivers.otlp.grpc is not None
    with pytest.raises(ConfigurationError, match=r"archive\.path is missing"):
        read("archive:\n", GatewaySettings)
    with pytest.raises(ConfigurationError, match="did you mean exporters"):
        read("exporter: {}\n", GatewaySettings)
    with pytest.raises(ValidationError):
        GatewaySettings.model_validate({"exporters": {"bad name.": {"endpoint": "x:1"}}})


def test_what_only_setting_up_would_find_is_found_by_check() -> None:
    """A pattern that does not compile, before anything is started."""
    check(GatewaySettings())
    bad = GatewaySettings.model_validate({"redact": {"patterns": [{"name": "mine", "pattern": "("}]}})
    with pytest.raises(ConfigError):
        check(bad)


def test_the_tenant_of_a_batch() -> None:
    """Of its records, not of resources that none of them uses."""
    batch = spans_batch([Span(EPOCH, tenant="a", service="x"), Span(EPOCH, tenant="b", service="y")])
    assert tenant_of(batch.slice(1)) == "b"
    assert tenant_of(TelemetryBatch.empty(Signal.LOGS)) == NO_KEY
    assert tenant_of(logs("x", tenant=None)) == NO_KEY


def test_the_old_name_of_the_storage_folder_is_refused_with_the_new_one() -> None:
    """A settings file from before says what to write instead."""
    with pytest.raises(ValidationError, match=r"recovery_dir: expected storage\.dir instead"):
        GatewaySettings.model_validate({"recovery_dir": "state"})


def test_tail_sampling_comes_after_span_metrics() -> None:
    """Kept traces go out whole, dropped ones are accounted for, and metrics count both; other signals pass."""
    rows = [Row(trace=n // 3, span=n, error=n < 3, tenant="acme" if n < 9 else "initech") for n in range(18)]
    with NullOtlpServer(keep=True) as server:
        ledger = run(
            [rows_batch(rows), logs("one")],
            exporters={"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}},
            tail_sampling={"policies": [{"type": "status"}], "decision_wait": "1h"},
            span_metrics={"idle_timeout": None},
        )
        assert sorted(kept_rows(kept(server, Signal.TRACES))) == [0, 1, 2]
        assert sum(batch.num_rows for batch in kept(server, Signal.LOGS)) == 1
        metrics = points(kept(server, Signal.METRICS))
    assert sum(p["value_int"] for p in metrics if p["name"].endswith("calls")) == 18
    assert counts(ledger, Outcome.DROPPED) == {("gateway.tail_sampling", "traces"): 9}
    assert ledger.balance()["acme", Signal.TRACES].in_flight == 0
    assert ledger.balance()["initech", Signal.TRACES].in_flight == 0


def test_a_settings_file_cannot_name_functions() -> None:
    """A policy that calls a function is for flows in Python."""
    with pytest.raises(ValidationError, match="function 'slow': expected policies that a file can hold"):
        GatewaySettings.model_validate({"tail_sampling": {"policies": [{"type": "function", "name": "slow"}]}})


def test_metrics_of_everything_go_where_it_goes() -> None:
    """Counts, sums, metrics of logs and aggregations of any signal, beside what they are of; counted as derived."""
    spans = spans_batch([Span(EPOCH + n, name=f"s{n % 2}", attributes={"size": n}) for n in range(4)])
    yaml = """
    storage: {durability: memory}
    span_metrics: false
    count:
      spans: {span.count: {attributes: [{key: region, default_value: none}]}}
      logs: {error.count: {conditions: [{severity_at_least: 17}]}, all.count: {}}
      span_events: {}
      metrics: {}
    sum: {spans: {size.sum: {source_attribute: size}}}
    log_metrics:
      metrics: {took: {measure: {kind: last, of: {name: body, pattern: "took (?P<value>[0-9]+)"}}}}
    aggregate:
      by-name:
        signals: [traces]
        conditions: [{names: ["s1"]}]
        by: [name]
        measures: {spans.named: {kind: count}}
        window: 1m
    """
    with NullOtlpServer(keep=True) as server:
        options = read(yaml, GatewaySettings).model_dump()
        options["exporters"] = {"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}}
        ledger = run([spans, logs("took 7", "nothing"), gauges()], **options)
    found = points(kept(server, Signal.METRICS))
    assert sorted((p["name"], p["value_int"] or p["value_double"]) for p in found) == [
        ("all.count", 2),
        ("metric.datapoint.count", 1),
        ("queue.length", 7),
        ("size.sum", 6.0),
        ("span.count", 4),
        ("spans.named", 2),
        ("took", 7.0),
    ]
    by_name = {p["name"]: p for p in found}
    assert by_name["span.count"]["attributes"] == {"region": "none"}
    assert by_name["span.count"]["resource"] == {"service.name": "shop"}
    assert len(kept(server, Signal.TRACES)) == len(kept(server, Signal.LOGS)) == 1
    assert sum(counts(ledger, Outcome.DERIVED).values()) == 6
    assert all(balance.in_flight == 0 for balance in ledger.balance().values())


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("aggregate: {a: {measurs: {n: {kind: count}}, window: 1m}}", "did you mean measures"),
        ("aggregate: {a: {measures: {n: {kind: sum, off: x}}, window: 1m}}", "did you mean of"),
        (
            "aggregate: {a: {measures: {n: {kind: count}}, window: 1m, late: correct}}",
            "late: drop and no early results",
        ),
        ("aggregate: {a: {measures: {n: {kind: count}}, window: 1m, early: 1s}}", "late: drop and no early results"),
        ("span_metrics: {late: side_output}", "expected: late: drop, as nothing takes late spans"),
        ("count: {spanevents: {}}", "did you mean span_events"),
        ("count: {logs: {n: {conditions: [{severity: 9}]}}}", "conditions[0].severity is not a known key"),
        ("sum: {logs: {n: {source_atribute: size}}}", "did you mean source_attribute"),
        ("log_metrics: {metrics: {n: {measure: {kind: lst, of: x}}}}", "measure.kind is not valid"),
        ("log_metrics: {metrics: {n: {measure: {kind: lst, of: x}}}}", "did you mean last"),
        ("counts: {}", "did you mean count"),
    ],
)
def test_what_is_wrong_with_an_aggregation_is_said(yaml: str, message: str) -> None:
    """With the nearest name there is."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read(yaml, GatewaySettings)
