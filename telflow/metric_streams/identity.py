"""What tells metric streams apart: a hash of 128 bits for each data point's stream.

A stream is (OpenTelemetry metrics data model, "Timeseries model") a resource, an instrumentation scope, a metric's
name, unit, kind, temporality and monotonicity, and a point's attributes, whose order does not matter. Added to these
are what must be equal for values to be added: whether a number is whole, and the bounds of a histogram.

The hashes are part of saved state, so they are the same in every process and on every machine. They spread well, but
are no protection against a sender who looks for two streams with one hash: that sender would only mix up its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.batch import TelemetryBatch
from telflow.hashing import hash_rows
from telflow.rows import take_rows

__all__ = ["StreamHash", "Words", "stream_hashes"]

Words: TypeAlias = npt.NDArray[np.uint64]

_NAMES = ("name", "unit", "attributes", "explicit_bounds")
_KINDS = ("type", "aggregation_temporality", "is_monotonic", "value_int", "bucket_counts")
# A scalar with a type: to infer one pyarrow looks for pandas, each time anew (0.1 ms).
_ZERO = pa.scalar(0, pa.int32())


class StreamHash(NamedTuple):
    """Two independent hashes of 64 bits for each of some rows."""

    high: Words
    low: Words

    def take(self, rows: npt.NDArray[Any]) -> StreamHash:
        """Return the hashes of some rows."""
        return StreamHash(self.high[rows], self.low[rows])


def stream_hashes(batch: TelemetryBatch, rows: npt.NDArray[np.int64] | None = None) -> StreamHash:
    """Return the hash of the stream of some points of a metrics batch, by default of all, in their order."""
    records = batch.records.select([*_NAMES, *_KINDS])
    places = batch.places("resource"), batch.places("scope")
    if rows is not None and len(rows) < batch.num_rows:
        records = take_rows(records, rows.astype(np.uint32))
        places = places[0][rows], places[1][rows]
    owner = StreamHash(*hash_rows(batch.resources.select(["tenant", "attributes"]))).take(places[0])
    scope = StreamHash(*hash_rows(batch.scopes.select(["name", "version", "attributes"]))).take(places[1])
    kind = records["type"].to_numpy().astype(np.uint64)
    kind |= records["aggregation_temporality"].to_numpy().astype(np.uint64) << np.uint64(8)
    kind |= records["is_monotonic"].to_numpy(zero_copy_only=False).astype(np.uint64) << np.uint64(40)
    kind |= records["value_int"].is_valid().to_numpy(zero_copy_only=False).astype(np.uint64) << np.uint64(41)
    widths = pc.fill_null(pc.list_value_length(records["bucket_counts"]), _ZERO)
    words = [*owner, *scope, kind]
    points = [*(pa.array(word) for word in words), widths, *(records[name] for name in _NAMES)]
    return StreamHash(*hash_rows(pa.RecordBatch.from_arrays(points, [str(n) for n in range(len(points))])))
