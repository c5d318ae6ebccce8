"""The generated documentation is current, and says what it is for."""

from __future__ import annotations

import pytest

from docs import build
from flows.gateway import GatewaySettings
from telflow.configuration import read


@pytest.mark.parametrize("name", build.PAGES)
def test_the_committed_page_is_current(name: str) -> None:
    """`make docs` writes it anew."""
    assert (build.HERE / name).read_text(encoding="utf-8") == build.PAGES[name](), "run: make docs"


def test_the_reference_has_every_key_of_the_gateway() -> None:
    """With a description; no setting goes undocumented, however deep."""
    text = build.configuration()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    undescribed = [row for row in rows if not row.rstrip(" |").split(" | ")[-1].strip()]
    assert undescribed == []
    assert all(any(row.startswith(f"| `{key}` ") for row in rows) for key in GatewaySettings.model_fields)


def test_the_example_is_valid() -> None:
    """As it stands, and with the variable set."""
    assert read(build._EXAMPLE, GatewaySettings, environ={}).exporters["backend"].endpoint == "localhost:14317"
    assert read(build._EXAMPLE, GatewaySettings, environ={"BACKEND": "b:1"}).exporters["backend"].endpoint == "b:1"
