"""The examples of docs/archive.md run, one after the other, on a small archive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench.payloads import traces
from connectors.archive import ArchiveSettings, ArchiveSink
from telflow import Signal
from telflow.codec import decode

PAGE = Path(__file__).parents[2] / "docs" / "archive.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each prints what it says: routes, errors by host, spans by tenant; the replay makes a second archive."""
    sink = ArchiveSink(ArchiveSettings(path=tmp_path))
    part = sink.build_part("docs.archive", sink.list_parts()[0], None)
    part.write_batch([decode(traces(512), Signal.TRACES, tenant="acme")])
    part.close()
    names: dict[str, Any] = {"archive": str(tmp_path)}
    assert len(EXAMPLES) == 4
    for example in EXAMPLES:
        exec(compile(example, PAGE.name, "exec"), names)  # noqa: S102  (it is our own page)
    assert names["slowest"].height > 3
    assert all(host and path for _, host, _, path in names["errors"])
    assert "acme" in capsys.readouterr().out
    (checkout,) = names["query"](tmp_path / "checkout-only", "SELECT count(*) FROM traces").row(0)
    assert checkout == 64
