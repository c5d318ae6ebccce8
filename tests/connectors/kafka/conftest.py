"""Fixtures for the tests against a Kafka broker."""

from __future__ import annotations

import itertools

import pytest

_NUMBERS = itertools.count()


@pytest.fixture
def topic() -> str:
    """A topic name of this test's own."""
    return f"test-{next(_NUMBERS)}"
