"""How many spans each span stands for, as an attribute that can be summed up."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from telflow.batch import TelemetryBatch
from telflow.sampling.trace_state import adjusted_counts, read_trace_state
from telflow.schema import Signal

__all__ = ["with_adjusted_counts"]


def with_adjusted_counts(
    batch: TelemetryBatch, key: str = "sampling.adjusted_count", unknown: float = 1.0
) -> TelemetryBatch:
    """Return spans with their adjusted count as an attribute; batches of other signals as they are.

    The sum of this attribute over kept spans is an estimate, without bias, of how many there were before sampling
    (OpenTelemetry specification, "TraceState: Probability Sampling", "Adjusted count").

    Args:
        batch: Records of any signal.
        key: Of the attribute, a double; one that is there already is replaced.
        unknown: What a span without a threshold counts as.

    >>> with_adjusted_counts(TelemetryBatch.empty(Signal.TRACES)).num_rows
    0
    """
    if batch.signal is not Signal.TRACES or not batch.num_rows:
        return batch
    counts = adjusted_counts(read_trace_state(batch.records["trace_state"])[0])
    counts[np.isnan(counts)] = unknown
    return batch.with_attributes("record", {key: pa.array(counts)})
