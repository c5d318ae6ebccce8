"""A gateway tells how it is: to Prometheus, to a load balancer, and as OTLP, without feeding itself."""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from connectors.otlp import NullOtlpServer, OtlpClient, OtlpClientSettings
from control.exit_codes import UnavailableError
from control.gateway_run import Gateway
from control.self_telemetry import exporters_of
from flows.gateway import GatewaySettings
from telflow.accounting import Ledger, Outcome
from telflow.schema import Signal
from tests.connectors.otlp.conftest import request_message
from tests.control.test_telemetry_server import get
from tests.kafka_broker import free_ports
from tests.oracle import batch_from_message
from tests.prometheus_server import needs_prometheus, run_prometheus


def settings(folder: Path, **options: Any) -> dict[str, Any]:
    return {
        "receivers": {"otlp": {"grpc": False, "http": {"endpoint": "127.0.0.1:0"}}},
        "telemetry": {"endpoint": "127.0.0.1:0"},
        "quarantine": {"path": str(folder / "quarantine")},
        "storage": {"dir": str(folder / "storage")},
        "epoch": "100ms",
    } | options


@contextmanager
def running(given: dict[str, Any], ledger: Ledger) -> Iterator[tuple[Gateway, str, str]]:
    """A gateway in a thread: itself, the address of its telemetry and that of its receiver."""
    gateway = Gateway(GatewaySettings.model_validate_json(json.dumps(given)), ledger=ledger)
    ports = gateway.start()
    thread = threading.Thread(target=gateway.run)
    thread.start()
    try:
        assert gateway.telemetry is not None
        assert gateway.telemetry.address is not None
        yield gateway, gateway.telemetry.address, f"127.0.0.1:{ports.http}"
    finally:
        gateway.drain.request()
        thread.join(60)


def send(address: str, records: int, signal: Signal = Signal.LOGS) -> None:
    with OtlpClient(OtlpClientSettings.http(f"http://{address}")) as client:
        client.send(batch_from_message(request_message(signal, records), signal, None))


def metrics(address: str) -> dict[str, float]:
    """Sums over all labels, by the sample's name."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(get(address, "/metrics")[2]):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def wait_until(reached: Any, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.05)


def test_metrics_follow_the_records(tmp_path: Path) -> None:
    """Accepted, sent, in flight, queue, epochs, process: what was sent is what is shown, and the accounts agree."""
    with NullOtlpServer(http=None) as backend:
        exporters = {"backend": {"endpoint": f"127.0.0.1:{backend.grpc_port}"}}
        with running(settings(tmp_path, exporters=exporters), Ledger()) as (gateway, address, receiver):
            assert gateway._flow is not None
            assert exporters_of(gateway._flow)["gateway.export_backend.write"] == "export_backend"
            wait_until(lambda: get(address, "/readyz")[0] == 200)
            send(receiver, 7)
            wait_until(lambda: metrics(address).get("telflow_exporter_sent_log_records_total") == 7)
            wait_until(lambda: metrics(address).get("telflow_exporter_flushes_total", 0) > 0)
            found = metrics(address)
            assert found["telflow_receiver_accepted_log_records_total"] == 7
            assert found["telflow_records_in_flight"] == 0
            assert found["telflow_account_balanced"] == 1
            assert found["telflow_exporter_queue_size"] == 0
            assert found["telflow_exporter_circuit_closed"] == 1
            assert found["telflow_intake_capacity_bytes"] == 256 << 20
            assert found["telflow_epoch_age_seconds"] < 60
            assert found["telflow_process_memory_rss_bytes"] > 10 << 20
            gateway.drain.requested = True
            status, _, body = get(address, "/readyz")
            assert (status, json.loads(body)["reasons"]) == (503, ["the gateway is being stopped"])
            assert get(address, "/healthz")[0] == 200
            gateway.drain.requested = False


def test_refusals_and_the_log_are_told(tmp_path: Path) -> None:
    """What was refused stands beside what was accepted; the ingest log says what it holds and what its safety cost."""
    with running(settings(tmp_path), Ledger()) as (_, address, receiver):
        send(receiver, 7)
        found = metrics(address)
        assert "telflow_receiver_refused_requests_total" not in found
        assert found["telflow_log_appended_entries_total"] == 1
        assert found["telflow_log_appended_bytes_total"] > 7 * 4
        assert found["telflow_log_commits_total"] == 1
        assert found["telflow_log_commit_seconds_total"] > 0
        assert found["telflow_log_capacity_bytes"] >= 4 << 30
        wait_until(lambda: metrics(address)["telflow_log_entries"] == 0)
        assert metrics(address)["telflow_log_oldest_age_seconds"] == 0
        client = http.client.HTTPConnection(receiver, timeout=60)
        client.request("POST", "/v1/logs", b"\xff", {"Content-Type": "application/x-protobuf"})
        assert client.getresponse().status == 400
        client.close()
        text = get(address, "/metrics")[2]
    labels = 'reason="malformed",receiver="otlp",signal="logs",transport="http"'
    assert f"telflow_receiver_refused_requests_total{{{labels}}} 1.0" in text


def test_names_in_the_tenant_header_do_not_fill_the_counts(tmp_path: Path) -> None:
    """A sender with ever new tenants: two are counted apart, the rest together, and the accounts agree."""
    given = settings(tmp_path, telemetry={"endpoint": "127.0.0.1:0", "max_tenants": 2})
    given["receivers"]["otlp"]["tenant_header"] = "tenant"
    ledger = Ledger()
    with running(given, ledger) as (_, address, receiver):
        for number in range(6):
            options = OtlpClientSettings.http(f"http://{receiver}").with_header("tenant", f"name-{number}")
            with OtlpClient(options) as client:
                client.send(batch_from_message(request_message(Signal.LOGS, 3), Signal.LOGS, None))
        wait_until(lambda: sum(b.delivered for b in ledger.balance().values()) == 18)
        found = metrics(address)
        assert found["telflow_receiver_accepted_log_records_total"] == 18
        assert found["telflow_records_in_flight"] == 0
        assert found["telflow_account_balanced"] == 1
    received = {row.tenant: row.count for row in ledger.rows() if row.outcome is Outcome.RECEIVED}
    assert received == {"name-0": 3, "name-1": 3, "_other": 12}


def test_an_account_that_does_not_agree_raises_the_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has to ask: the check runs by itself, and says it in the log."""
    telemetry = {"endpoint": "127.0.0.1:0", "check_interval": "50ms"}
    ledger = Ledger()
    with running(settings(tmp_path, telemetry=telemetry), ledger) as (_, address, _receiver):
        ledger.add(Outcome.DELIVERED, Signal.LOGS, "acme", 1, component="x")
        wait_until(lambda: "the accounts do not agree" in caplog.text)
        assert metrics(address)["telflow_account_balanced"] == 0


def test_a_gateway_that_sends_its_metrics_to_itself_does_not_grow(tmp_path: Path) -> None:
    """Its metrics are data that it counts; the same number of points comes each time, and no more."""
    [port] = free_ports(1)
    given = settings(
        tmp_path,
        receivers={"otlp": {"grpc": False, "http": {"endpoint": f"127.0.0.1:{port}"}}},
        telemetry={
            "endpoint": "127.0.0.1:0",
            "export": {"endpoint": f"http://127.0.0.1:{port}", "protocol": "http/protobuf", "interval": "1s"},
        },
        console={},
    )
    with running(given, Ledger()) as (_, address, _receiver):
        accepted: list[float] = []
        series: list[int] = []

        def five_more() -> bool:
            now = metrics(address).get("telflow_receiver_accepted_metric_points_total", 0)
            if now and (not accepted or now != accepted[-1]):
                accepted.append(now)
                series.append(get(address, "/metrics")[2].count("\n"))
            return len(accepted) >= 6

        wait_until(five_more)
    added = [after - before for before, after in pairwise(accepted)]
    assert added[-1] == added[-2] == added[-3]
    assert series[-1] == series[-2]


def test_own_metrics_reach_another_backend(tmp_path: Path) -> None:
    """As OTLP, at their interval, and a backend that is not there does not disturb the gateway."""
    with NullOtlpServer(grpc=None) as backend:
        export = {"endpoint": f"http://127.0.0.1:{backend.http_port}", "protocol": "http/protobuf", "interval": "1s"}
        given = settings(tmp_path, telemetry={"endpoint": "127.0.0.1:0", "export": export})
        with running(given, Ledger()):
            wait_until(lambda: backend.requests(Signal.METRICS) >= 2)


def test_the_default_port_may_be_taken_but_not_a_chosen_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two gateways on a host: the second says that it serves no metrics. An address of one's own is an error."""
    with NullOtlpServer(grpc=None) as taken, caplog.at_level(logging.WARNING):
        address = f"127.0.0.1:{taken.http_port}"
        chosen = GatewaySettings.model_validate_json(json.dumps(settings(tmp_path, telemetry={"endpoint": address})))
        with pytest.raises(UnavailableError, match=r"telemetry\.endpoint"):
            Gateway(chosen, ledger=Ledger()).start()
        telemetry = chosen.telemetry
        assert telemetry is not None
        by_default = telemetry.model_copy()
        by_default.model_fields_set.discard("endpoint")
        gateway = Gateway(chosen.model_copy(update={"telemetry": by_default}), ledger=Ledger())
        gateway.start()
        assert gateway.telemetry is not None
        assert gateway.telemetry.address is None
        assert "own metrics and health are not served" in caplog.text
        gateway.drain.request()
        gateway.run()


def test_without_telemetry_no_port_is_opened(tmp_path: Path) -> None:
    """`telemetry: false` means nothing of it."""
    off = settings(tmp_path, telemetry=False)
    gateway = Gateway(GatewaySettings.model_validate_json(json.dumps(off)), ledger=Ledger())
    gateway.start()
    assert gateway.telemetry is not None
    assert gateway.telemetry.address is None
    assert not {"telflow-telemetry", "telflow-accounts"} & {thread.name for thread in threading.enumerate()}
    gateway.drain.request()
    gateway.run()


@needs_prometheus
def test_prometheus_scrapes_it(tmp_path: Path) -> None:
    """The real one finds the target up, and answers a Collector dashboard's query with our numbers."""
    [port] = free_ports(1)
    with running(settings(tmp_path, telemetry={"endpoint": "127.0.0.1:0", "prefix": "otelcol"}), Ledger()) as started:
        _, address, receiver = started
        send(receiver, 9, Signal.TRACES)
        with run_prometheus(tmp_path / "prometheus", port, targets=(address,)) as server:
            accepted = 'sum(otelcol_receiver_accepted_spans_total{receiver="otlp"})'
            server.wait(lambda: server.value("up") == 1)
            server.wait(lambda: server.value(accepted) == 9)
            assert server.value("otelcol_account_balanced") == 1
