"""Merges points: those of one stream, or of several that are one when attributes are left out, become one point.

Sums and histograms of both kinds add up; histograms of other bounds are other streams. Gauges do not add up: of each
stream only the latest point is kept, and in the end a chosen function makes one value of them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.batch import TelemetryBatch
from telflow.metric_streams.exponential_points import add_up
from telflow.metric_streams.identity import StreamHash, stream_hashes
from telflow.metric_streams.points import Buckets, PointValues, read_points, write_points
from telflow.metric_streams.tracker import keys_of
from telflow.rows import replace_column, take_rows
from telflow.sampling.trace_index import TraceIndex

__all__ = ["GaugeFunction", "latest_points", "merge_gauges", "merge_points"]

Ints: TypeAlias = npt.NDArray[np.int64]
GaugeFunction: TypeAlias = Literal["last", "min", "max", "mean", "sum"]

_FAR = np.uint64(2**64 - 1)


def merge_points(batch: TelemetryBatch, max_size: int) -> TelemetryBatch:
    """Add up the points of each stream, in their order; streams stand in the order of their first point.

    Args:
        batch: Sums and histograms.
        max_size: Most buckets of an exponential histogram on either side of zero.
    """
    slots, first = _streams(stream_hashes(batch))
    count = len(first)
    values = read_points(batch.records, np.arange(batch.num_rows))
    whole, real, counts = np.zeros(count, np.int64), np.zeros(count), np.zeros(count, np.uint64)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.add.at(whole, slots, values.whole)
    np.add.at(real, slots, values.real)
    np.add.at(counts, slots, values.count)
    with np.errstate(invalid="ignore"):
        np.minimum.at(low, slots, values.low)  # one that is not known makes the result so
        np.maximum.at(high, slots, values.high)
    buckets = {}
    for width, found in values.buckets.items():
        at, into = np.unique(slots[found.at], return_inverse=True)
        total = np.zeros((len(at), width), np.uint64)
        np.add.at(total, into, found.counts)
        buckets[width] = Buckets(at, total)
    exponential, exponential_at = None, np.empty(0, np.int64)
    if values.exponential is not None:
        exponential_at, into = np.unique(slots[values.exponential_at], return_inverse=True)
        exponential = add_up([(values.exponential, into)], len(exponential_at), max_size)
    records = take_rows(batch.records, first.astype(np.uint32))
    merged = PointValues(whole, real, counts, low, high, buckets, exponential_at, exponential)
    records = write_points(records, np.arange(count), merged)
    begin = batch.records["start_time_unix_nano"].to_numpy()
    starts, ends = np.full(count, _FAR), np.zeros(count, np.uint64)
    np.minimum.at(starts, slots, np.where(begin == 0, _FAR, begin))
    np.maximum.at(ends, slots, batch.records["time_unix_nano"].to_numpy())
    starts[starts == _FAR] = 0
    records = replace_column(records, "start_time_unix_nano", pa.array(starts))
    return batch.with_records(replace_column(records, "time_unix_nano", pa.array(ends))).compact()


def latest_points(batch: TelemetryBatch) -> TelemetryBatch:
    """Keep the latest point of each stream; of several of one time the last."""
    slots, first = _streams(stream_hashes(batch))
    if len(first) == batch.num_rows:
        return batch
    times = batch.records["time_unix_nano"].to_numpy()
    order = np.lexsort((times, slots))  # stable
    last = np.append(slots[order][1:] != slots[order][:-1], [True])
    return batch.take(order[last].astype(np.uint32)).compact()


def merge_gauges(batch: TelemetryBatch, streams: StreamHash, function: GaugeFunction) -> TelemetryBatch:
    """Make one point of those that belong together.

    Args:
        batch: Gauges, with the attributes that are left.
        streams: What belongs together.
        function: What their values become; `last` is that of the latest time.
    """
    slots, first = _streams(streams)
    count = len(first)
    times = batch.records["time_unix_nano"].to_numpy()
    order = np.lexsort((times, slots))
    last = order[np.append(slots[order][1:] != slots[order][:-1], [True])]
    records = take_rows(batch.records, last.astype(np.uint32))
    if function == "last" or (count == batch.num_rows and function != "mean"):
        return batch.with_records(records).compact()
    whole = pc.fill_null(batch.records["value_int"], pa.scalar(0, pa.int64())).to_numpy()
    is_whole = records["value_int"].is_valid().to_numpy(zero_copy_only=False)
    real = pc.fill_null(batch.records["value_double"], pa.scalar(0.0, pa.float64())).to_numpy()
    sums, real_sums = np.zeros(count, np.int64), np.zeros(count)
    match function:
        case "min" | "max":
            bound, reduce = (2**63 - 1, np.minimum) if function == "min" else (-(2**63), np.maximum)
            sums[:] = bound
            real_sums[:] = np.inf if function == "min" else -np.inf
            reduce.at(sums, slots, whole)
            reduce.at(real_sums, slots, real)
        case _:
            np.add.at(sums, slots, whole)
            np.add.at(real_sums, slots, real)
    if function == "mean":
        real_sums = np.where(is_whole, sums, real_sums) / np.bincount(slots, minlength=count)
        is_whole = np.zeros(count, np.bool_)
    records = replace_column(records, "value_int", pa.array(sums, mask=~is_whole))
    return batch.with_records(replace_column(records, "value_double", pa.array(real_sums, mask=is_whole))).compact()


def _streams(streams: StreamHash) -> tuple[Ints, Ints]:
    """A number for each row's stream, in order of appearance, and the first row of each."""
    slots = TraceIndex().admit(keys_of(streams))
    first = np.empty(int(slots.max(initial=-1)) + 1, np.int64)
    first[slots[::-1]] = np.arange(len(slots))[::-1]  # of several assignments to one place the last one stays
    return slots, first
