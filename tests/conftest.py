"""Fixtures that several packages' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kafka_broker import Broker, run_broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A Kafka broker; tests that ask for it are skipped where Java or Maven is missing."""
    with run_broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running
