"""A gateway's settings as one of several workers of a host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from control.cluster.described import Described, describe_target
from control.cluster.gateway_worker import beside_others, endpoints, gateway_of
from control.cluster.spec import WorkerSpec
from control.exit_codes import FlowError
from flows.gateway import GatewaySettings


def settings(**given: Any) -> GatewaySettings:
    return GatewaySettings.model_validate_json(json.dumps(given))


@pytest.mark.parametrize(
    ("given", "number", "expected"),
    [("127.0.0.1:9000", 2, "127.0.0.1:9002"), ("127.0.0.1:0", 2, "127.0.0.1:0"), ("[::1]:9000", 1, "[::1]:9001")],
)
def test_workers_share_ports_and_tell_about_themselves_at_ports_of_their_own(
    given: str, number: int, expected: str
) -> None:
    """The given one and those after it; whose choice the port is stays known."""
    found = beside_others(settings(telemetry={"endpoint": given}), number)
    assert found.receivers.otlp.reuse_port
    assert found.telemetry is not None
    assert found.telemetry.endpoint == expected
    assert "endpoint" in found.telemetry.model_fields_set
    by_default = beside_others(settings(), number)
    assert by_default.telemetry is not None
    assert "endpoint" not in by_default.telemetry.model_fields_set
    assert beside_others(settings(telemetry=False), number).telemetry is None


def test_a_worker_opens_its_place_below_the_storage_folder(tmp_path: Path) -> None:
    """And says where it listens."""
    (tmp_path / "telflow.yaml").write_text(
        'receivers: {otlp: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}\n'
        f'storage: {{dir: {tmp_path / "state"}}}\ntelemetry: {{endpoint: "127.0.0.1:0"}}\n'
        f"quarantine: {{path: {tmp_path / 'q'}}}\n"
    )
    recovery = tmp_path / "recovery"
    recovery.mkdir()
    spec = WorkerSpec(
        1,
        "local",
        1,
        2,
        ("a:1", "a:2"),
        str(tmp_path / "telflow.yaml"),
        recovery,
        places=("0", "1", "2", "3"),
        here=("1", "3"),
    )
    gateway = gateway_of(WorkerSpec.from_json(spec.to_json()))
    listens = endpoints(gateway, gateway.start())
    gateway._close()
    assert sorted(listens) == ["grpc", "http", "telemetry"]
    assert not any(address.endswith(":0") for address in listens.values())
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["worker-1", "worker-3"]
    assert (tmp_path / "state" / "worker-1" / "deadletter.db").exists()
    assert not (tmp_path / "state" / "worker-3" / "deadletter.db").exists()


def test_a_target_is_described(tmp_path: Path) -> None:
    """A gateway also by where it keeps things; what is wrong is said."""
    file = tmp_path / "telflow.yaml"
    file.write_text(f"storage: {{dir: {tmp_path}}}\n")
    assert describe_target(str(file)) == Described("gateway", str(tmp_path), str(tmp_path / "recovery"))
    file.write_text("storage: {durability: memory}\n")
    assert describe_target(str(file)).recovery_dir is None
    with pytest.raises(FlowError, match="nothing"):
        describe_target(str(tmp_path / "nothing.py"))
