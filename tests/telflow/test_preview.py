"""What a batch looks like at a prompt."""

from __future__ import annotations

from hypothesis import given

from telflow import Signal, TelemetryBatch
from tests.batches import batches, spans
from tests.strategies import thorough


def test_a_few_spans_are_shown() -> None:
    """One line on the size, then the first five records with their service."""
    shown = repr(spans([{"n": i} for i in range(7)], resource={"service.name": "shop"})).splitlines()
    assert shown[0].startswith("TelemetryBatch(traces: 7 spans, 1 resource, 1 scope, ")
    assert shown[1].split() == ["start", "service", "name", "duration", "status", "attributes"]
    assert shown[2].split() == ["2023-11-14", "22:13:20.000", "shop", "span-0", "0.000", "ms", "1"]
    assert shown[-1] == "  and 2 more"
    assert len(shown) == 8


@thorough(30)
@given(batches())
def test_any_batch_can_be_shown(batch: TelemetryBatch) -> None:
    """Whatever a record holds (times out of range, unknown kinds, huge texts), there is a short text of it."""
    shown = repr(batch)
    assert shown.startswith(f"TelemetryBatch({batch.signal}: ")
    assert all(len(line) < 250 for line in shown.splitlines())
    assert len(shown.splitlines()) <= 8


def test_sizes_have_units() -> None:
    """Bytes are shown as a person reads them."""
    batch = spans([{"blob": b"x" * 2_000_000}])
    assert "1.9 MiB" in repr(batch)
    assert repr(TelemetryBatch.empty(Signal.METRICS)).endswith("0 B)")
