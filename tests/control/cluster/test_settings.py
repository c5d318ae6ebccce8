"""The cluster file: what it must say, where workers go, and which addresses are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from control.cluster.settings import ClusterSettings, one_host, refuse_public
from telflow.errors import ConfigError

SECRET = "0123456789abcdef"  # noqa: S105 - of a test


def cluster(**changes: Any) -> ClusterSettings:
    hosts = {"a": {"address": "127.0.0.1", "workers": 2}, "b": {"address": "127.0.0.2"}}
    return ClusterSettings.model_validate({"hosts": hosts, "recovery_dir": "state", "secret": SECRET} | changes)


def test_workers_are_placed_as_the_file_says_or_evenly() -> None:
    """Workers of one host side by side; another total is spread."""
    settings = cluster()
    assert settings.workers == 3
    assert settings.placed(3) == ["a", "a", "b"]
    assert settings.placed(5) == ["a", "a", "a", "b", "b"]
    assert settings.placed(1) == ["a"]
    assert one_host(4, Path("state")).placed(2) == ["local", "local"]


def test_each_host_may_keep_its_state_elsewhere() -> None:
    """Its own folder, or the cluster's."""
    settings = cluster(hosts={"a": {"address": "127.0.0.1"}, "b": {"address": "127.0.0.2", "recovery_dir": "other"}})
    assert [settings.recovery_dir_of(name) for name in "ab"] == [Path("state"), Path("other")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret": None}, "secret: expected one"),
        ({"secret": "short"}, "at least 16 characters"),
        ({"port": 0}, "numbers above 0"),
        ({"hosts": {}}, "hosts"),
        ({"hosts": {"A b": {"address": "127.0.0.1"}}}, "pattern"),
    ],
)
def test_a_file_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    """With what was expected."""
    with pytest.raises(ValidationError, match=message):
        cluster(**changes)


@pytest.mark.parametrize("address", ["8.8.8.8", "0.0.0.0", "2001:4860:4860::8888", "::"])  # noqa: S104 - is refused
def test_a_public_address_is_refused_unless_it_is_allowed(address: str) -> None:
    """Also one that stands for all addresses; the message says why."""
    hosts = {"a": {"address": "127.0.0.1"}, "b": {"address": address}}
    with pytest.raises(ConfigError, match="private network"):
        refuse_public(cluster(hosts=hosts))
    refuse_public(cluster(hosts=hosts, allow_public=True))


def test_private_addresses_are_fine_and_unknown_names_are_not() -> None:
    """10/8, 192.168/16, loopback; a name that does not resolve is named."""
    addresses = {"a": "10.1.2.3", "b": "192.168.0.1", "c": "::1"}
    refuse_public(cluster(hosts={name: {"address": address} for name, address in addresses.items()}))
    with pytest.raises(ConfigError, match=r"hosts\.a\.address"):
        refuse_public(cluster(hosts={"a": {"address": "no-such-host.invalid"}}))
