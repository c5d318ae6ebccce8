"""Fixtures that several packages' tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka_broker import Broker, run_broker


@pytest.fixture(autouse=True)
def _state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's gateways keep their state in a folder of the test's own, not in the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))


@pytest.fixture(autouse=True)
def _import_path() -> Iterator[None]:
    """What a test loads by its path, which puts the folder on the import path, does not change other tests' imports."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A Kafka broker; tests that ask for it are skipped where Java or Maven is missing."""
    with run_broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running
