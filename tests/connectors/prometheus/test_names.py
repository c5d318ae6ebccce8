"""Names and labels are what Prometheus accepts, and what its users expect."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.prometheus.names import Kind, family_name, label_name, label_set, number_text, unit_words


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", Kind.HISTOGRAM, "http_server_request_duration_seconds"),
        ("system.io", "By", Kind.COUNTER, "system_io_bytes_total"),
        ("system.io.bytes", "By", Kind.COUNTER, "system_io_bytes_total"),
        ("requests_total", "", Kind.COUNTER, "requests_total"),
        ("requests_total", "s", Kind.COUNTER, "requests_seconds_total"),
        ("cpu.utilization", "1", Kind.GAUGE, "cpu_utilization_ratio"),
        ("hits", "1", Kind.COUNTER, "hits_total"),
        ("speed", "m/s", Kind.GAUGE, "speed_meters_per_second"),
        ("rate", "{request}/s", Kind.GAUGE, "rate_per_second"),
        ("odd", "furlong/fortnight", Kind.GAUGE, "odd_furlong_per_fortnight"),
        ("load", "%", Kind.GAUGE, "load_percent"),
        ("a..b--c", "", Kind.SUMMARY, "a_b_c"),
        ("job:rate5m", "", Kind.GAUGE, "job:rate5m"),
        ("", "", Kind.GAUGE, "_"),
        ("größe", "", Kind.GAUGE, "gr_e"),
    ],
)
def test_families(name: str, unit: str, kind: Kind, expected: str) -> None:
    """Suffixes in their order, none twice, nothing that is not allowed."""
    assert family_name(name, unit, kind) == expected


def test_without_suffixes() -> None:
    """Only what Prometheus does not allow changes."""
    assert family_name("system.io", "By", Kind.COUNTER, suffixes=False) == "system_io"


@given(st.text(), st.text(max_size=8), st.sampled_from(Kind))
def test_any_name_becomes_a_valid_one(name: str, unit: str, kind: Kind) -> None:
    """Whatever a sender calls it."""
    assert re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", family_name(name, unit, kind))
    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", label_name(name))
    assert "__" not in label_name(name)
    assert re.fullmatch(r"[a-zA-Z0-9_]*", unit_words(unit))


def test_labels_of_values_of_every_kind() -> None:
    """Text as it is, the others as JSON; empty ones are left out."""
    values = {"t": "x", "i": -5, "f": 1e22, "b": False, "n": None, "e": "", "l": [1, "ä", {"k": 2.5, "o": {}}], "m": []}
    assert label_set(json.dumps(values, separators=(",", ":"))) == {
        "t": "x",
        "i": "-5",
        "f": "1e+22",
        "b": "false",
        "l": '[1,"ä",{"k":2.5,"o":{}}]',
        "m": "[]",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-7, "0.0000001"), (1e21, "1000000000000000000000"), (100.0, "100"), (-0.5, "-0.5"), (float("-inf"), "-Inf")],
)
def test_bounds(value: float, text: str) -> None:
    """Never with an exponent: the same bound is one label, whoever writes it."""
    assert number_text(value) == text
    assert number_text(float("nan")) == "NaN"
