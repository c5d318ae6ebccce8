"""Adjusted counts as an attribute: what is left says how much there was."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from telflow.batch import TelemetryBatch
from telflow.sampling import with_adjusted_counts
from telflow.sampling.settings import TailSamplingSettings
from telflow.sampling.trace_state import threshold_of
from telflow.schema import Signal
from tests.sampling import Row, Runner, rows_batch
from tests.spans import EPOCH

KEY = "sampling.adjusted_count"


def counts(batch: TelemetryBatch, key: str = KEY) -> list[float]:
    found: list[float] = batch.attribute(key, type=pa.float64()).to_pylist()
    return found


def test_what_each_span_stands_for() -> None:
    """By its threshold; one without counts as what is said, and what was there under the key is replaced."""
    states = ["ot=th:8", "ot=th:c,v=1", "ot=th:0", "", "ot=th:zz", "v=1"]
    batch = rows_batch([Row(trace=n, span=n, trace_state=s, attributes={KEY: "?"}) for n, s in enumerate(states)])
    assert counts(with_adjusted_counts(batch)) == [2.0, 4.0, 1.0, 1.0, 1.0, 1.0]
    assert counts(with_adjusted_counts(batch, key="n", unknown=0.0), "n") == [2.0, 4.0, 1.0, 0.0, 0.0, 0.0]


def test_sums_over_kept_spans_are_those_of_all() -> None:
    """Evenly spread randomness, a share of the plain traces and all errors: exactly as many as there were."""
    settings = TailSamplingSettings.model_validate(
        {"policies": [{"type": "status"}, {"type": "probabilistic", "percentage": 25}], "shards": 3}
    )
    runner = Runner(settings)
    rows = [
        Row(trace=n, span=n, error=n % 5 == 0, trace_state=f"ot=rv:{n // 5 * 2**56 // 256:014x}") for n in range(1280)
    ]
    runner.add(rows_batch(rows), EPOCH)
    runner.finish()
    kept = [count for batch in runner.out for count in counts(with_adjusted_counts(batch))]
    assert len(kept) == 256 + 1024 // 4
    assert np.isclose(sum(kept), 1280, rtol=1e-4)
    assert threshold_of(0.25) == 3 << 54


def test_other_signals_pass() -> None:
    """They have no trace state."""
    logs = TelemetryBatch.empty(Signal.LOGS)
    assert with_adjusted_counts(logs) is logs
