"""Names, refusals and the google.rpc.Status they become."""

from __future__ import annotations

import json

import grpc
import pytest
from google.rpc import error_details_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from connectors.otlp.protocol import HTTP_PATHS, RPC_METHODS, Refusal, resolve_tenant, retry_after_s, status_bytes
from telflow import Signal
from telflow.errors import DecodeError, DeliveryError


def test_02_methods_and_paths_are_those_of_the_official_services() -> None:
    """(2) As the installed opentelemetry-proto names them."""
    services = {Signal.TRACES: trace_service_pb2, Signal.METRICS: metrics_service_pb2, Signal.LOGS: logs_service_pb2}
    for signal, module in services.items():
        (service,) = module.DESCRIPTOR.services_by_name.values()
        assert RPC_METHODS[signal] == f"/{service.full_name}/{service.methods[0].name}"
    assert sorted(HTTP_PATHS.values()) == ["/v1/logs", "/v1/metrics", "/v1/traces"]


def test_09_an_undecodable_request_says_where() -> None:
    """(9) Field and byte in the BadRequest, both in the message too."""
    refusal = Refusal.undecodable(DecodeError("invalid UTF-8", 7, "resource_logs[0].schema_url"))
    assert (refusal.code, refusal.http_status) == (grpc.StatusCode.INVALID_ARGUMENT, 400)
    bad = error_details_pb2.BadRequest()
    assert refusal.status().details[0].Unpack(bad)
    assert bad.field_violations[0].field == "resource_logs[0].schema_url"
    assert bad.field_violations[0].description == "invalid UTF-8 at byte 7"
    assert refusal.message == "invalid UTF-8 at byte 7 in resource_logs[0].schema_url"


def test_10_an_overload_says_when_to_come_back() -> None:
    """(10) RetryInfo to the nanosecond, a second when nobody said."""
    assert retry_after_s(Refusal.overloaded(DeliveryError("full", retry_after_s=0.25)).status()) == 0.25
    assert retry_after_s(Refusal.overloaded(DeliveryError("full")).status()) == 1.0
    assert retry_after_s(Refusal.internal().status()) is None


def test_08_a_status_in_json_is_the_protobuf_mapping() -> None:
    """(8) Details with their type URL, lowerCamelCase fields."""
    status = Refusal.undecodable(DecodeError("cut off", path="a.b")).status()
    assert json.loads(status_bytes(status, "json")) == {
        "code": 3,
        "message": "cut off in a.b",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "a.b", "description": "cut off"}],
            }
        ],
    }


@pytest.mark.parametrize(("header", "tenant"), [(None, "house"), ("acme", "acme"), ("größe 7", "größe 7")])
def test_the_header_goes_before_the_setting(header: str | None, tenant: str) -> None:
    """Any printable name will do."""
    assert resolve_tenant(header, "house") == tenant
    assert resolve_tenant(None, None) is None


@pytest.mark.parametrize("header", ["", "x" * 257, "a\nb", "\x7f"])
def test_what_cannot_be_a_name_is_refused(header: str) -> None:
    """It never becomes the default tenant."""
    with pytest.raises(Refusal, match="1 to 256 printable characters"):
        resolve_tenant(header, "house")
