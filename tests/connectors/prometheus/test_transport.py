"""How requests travel: headers, answers, and what is not an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from pydantic import ValidationError

from connectors.prometheus import PrometheusExporterSettings
from connectors.prometheus.transport import PrometheusTransport
from telflow.batch import TelemetryBatch
from telflow.codec import decode, encode
from telflow.delivery.transport import Answer, Router, Verdict
from telflow.errors import ConfigError
from telflow.schema import Signal
from tests.certificates import make_certificates
from tests.connectors.prometheus.receiver import receiver_of
from tests.connectors.prometheus.write_request import WriteRequest, read

T0_NANO = 1_750_000_000_000_000_000


def _gauges(count: int, tenant: str | None = None) -> TelemetryBatch:
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    of_resource.resource.attributes.add(key="host.name").value.string_value = "h"
    metric = of_resource.scope_metrics.add().metrics.add(name="g")
    for number in range(count):
        point = metric.gauge.data_points.add(time_unix_nano=T0_NANO, as_int=number)
        point.attributes.add(key="n").value.int_value = number
    return decode(request.SerializeToString(), Signal.METRICS, tenant=tenant)


def _send(transport: PrometheusTransport, batch: TelemetryBatch) -> Answer:
    [(route, part)] = transport.split(batch)
    assert transport.leads(route)
    return transport.send_to(route, Signal.METRICS, encode(part))


def test_a_request_is_what_the_protocol_says() -> None:
    """Snappy, version and content type; own headers; the tenant as header and label; targets by themselves after it."""
    with receiver_of() as receiver:
        settings = PrometheusExporterSettings.model_validate(
            {"endpoint": receiver.url, "headers": {"authorization": "Bearer x"}, "tenant_header": "X-Scope-OrgID"}
        )
        transport = PrometheusTransport(settings)
        assert isinstance(transport, Router)
        assert not transport.leads("")
        assert _send(transport, _gauges(2, "acme")) == Answer(Verdict.ACCEPTED, "HTTP 204")
        transport.close()
        (headers, body), (_, info) = receiver.requests
        assert headers["Content-Encoding"] == "snappy"
        assert headers["Content-Type"] == "application/x-protobuf"
        assert headers["X-Prometheus-Remote-Write-Version"] == "0.1.0"
        assert (headers["authorization"], headers["X-Scope-OrgID"]) == ("Bearer x", "acme")
        assert {dict(labels)["tenant"] for labels in read(body)} == {"acme"}
        assert [m.metric_family_name for m in WriteRequest.FromString(info).metadata] == ["g"]


def test_what_may_be_repeated() -> None:
    """5xx and 429, with the wait that they ask for; other refusals not. What a target is, is said again then."""
    with receiver_of((503, {}), (429, {"Retry-After": "7"}), (401, {}), (204, {}), (500, {}), (204, {})) as receiver:
        transport = PrometheusTransport(PrometheusExporterSettings(endpoint=receiver.url))
        batch = _gauges(1)
        busy, limited, refused = (_send(transport, batch) for _ in range(3))
        assert (busy.verdict, busy.status, busy.retry_after_s) == (Verdict.RETRYABLE, "HTTP 503", None)
        assert (limited.verdict, limited.retry_after_s) == (Verdict.RETRYABLE, 7.0)
        assert (refused.verdict, refused.status) == (Verdict.REFUSED, "HTTP 401")
        # The metrics arrive, and the word about the target does not: it is said with the next.
        for _ in range(2):
            assert _send(transport, batch).verdict is Verdict.ACCEPTED
        assert len(receiver.requests) == 7
        assert receiver.requests[-1][1] == receiver.requests[-3][1]
        transport.close()
        assert _send(transport, batch).status == "no answer"


def test_nobody_there() -> None:
    """No answer is a reason to try again."""
    with receiver_of() as receiver:
        url = receiver.url
    transport = PrometheusTransport(PrometheusExporterSettings(endpoint=url))
    answer = _send(transport, _gauges(1))
    assert (answer.verdict, answer.status) == (Verdict.RETRYABLE, "no answer")
    transport.close()


def test_a_refused_request_is_searched_for_what_is_wrong() -> None:
    """In halves; when the receiver is busy on the way, all is repeated; when all is refused, it is refused."""
    no: tuple[int, dict[str, str]] = (400, {})
    yes: tuple[int, dict[str, str]] = (204, {})
    with receiver_of(no, no, no, yes, yes, no, no, (503, {}), no, no, no) as receiver:
        settings = PrometheusExporterSettings(endpoint=receiver.url, target_info=False)
        transport = PrometheusTransport(settings)
        partly = _send(transport, _gauges(4))  # 4: no; 2: no; 1: no; 1: yes; 2: yes
        assert (partly.verdict, partly.rejected, partly.message) == (
            Verdict.ACCEPTED,
            1,
            "because of user@example.com",
        )
        assert _send(transport, _gauges(4)).verdict is Verdict.RETRYABLE
        assert _send(transport, _gauges(2)).verdict is Verdict.REFUSED
        transport.close()
    assert not receiver.answers


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": "localhost:9090"}, "expected a URL such as http"),
        ({"endpoint": "http://h/w", "tls": {}}, "expected https:// together with tls"),
        ({"endpoint": "http://h/w", "sending_queue": {"num_consumers": 4}}, "num_consumers: expected 1, got 4"),
        ({"endpoint": "http://h/w", "external_labels": {"a-b": "c"}}, "pattern"),
    ],
)
def test_wrong_settings_are_told(options: dict[str, Any], said: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValidationError, match=said):
        PrometheusExporterSettings.model_validate(options)


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    """Said when the sink is built."""
    options = {"endpoint": "https://h/w", "tls": {"ca_file": tmp_path / "none.pem"}}
    with pytest.raises(ConfigError, match="cannot use the certificates"):
        PrometheusTransport(PrometheusExporterSettings.model_validate(options))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server by another name than its address, and a client."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, {"server": "prometheus.test", "client": None})
    return folder


def _send_with(url: str, folder: Path, **tls: str) -> Answer:
    """Send two points with these options, of which those that end in `_file` name what is in the folder."""
    options = {key: folder / value if key.endswith("_file") else value for key, value in tls.items()}
    settings = PrometheusExporterSettings.model_validate({"endpoint": url, "tls": options, "target_info": False})
    transport = PrometheusTransport(settings)
    answer = _send(transport, _gauges(2))
    transport.close()
    return answer


def test_over_tls(certificates: Path) -> None:
    """Trusting the authority and expecting the certificate's name, the metrics arrive; in any other case nothing."""
    with receiver_of(tls=certificates) as receiver:
        said = _send_with(receiver.url, certificates, ca_file="ca.pem", server_name="prometheus.test")
        assert said == Answer(Verdict.ACCEPTED, "HTTP 204")
        [(headers, body)] = receiver.requests
        assert headers["Content-Encoding"] == "snappy"
        assert len(read(body)) == 2
        for tls in ({"server_name": "prometheus.test"}, {"ca_file": "ca.pem"}):
            answer = _send_with(receiver.url, certificates, **tls)
            assert (answer.verdict, answer.message) == (Verdict.RETRYABLE, "ClientConnectorCertificateError")
        assert len(receiver.requests) == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_receiver_that_wants_to_know_its_clients(certificates: Path, known: bool) -> None:
    """With mTLS only the client with a certificate of the authority gets through."""
    tls = {"ca_file": "ca.pem", "server_name": "prometheus.test"}
    if known:
        tls |= {"cert_file": "client.pem", "key_file": "client.key"}
    with receiver_of(tls=certificates, mutual=True) as receiver:
        answer = _send_with(receiver.url, certificates, **tls)
        assert answer.verdict is (Verdict.ACCEPTED if known else Verdict.RETRYABLE)
        assert len(receiver.requests) == known
