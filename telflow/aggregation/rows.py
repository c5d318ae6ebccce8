"""From batches to the rows of an aggregation: event times, keys and values, by the key of a stream."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.accounting import split_by_tenant
from telflow.aggregation.partial import Partial
from telflow.aggregation.settings import AggregateSettings, SessionWindow
from telflow.batch import TelemetryBatch
from telflow.distinct import hash_values
from telflow.fields import Records
from telflow.rows import take_rows
from telflow.schema import Signal
from telflow.session_windows import sift_sessions
from telflow.window_logic import Refused
from telflow.windows import Ints, Sifted, sift

__all__ = ["NO_TENANT", "event_times", "partial_of", "partials_of", "split_by_key"]

NO_TENANT = "(none)"
"""Key of records whose owner is unknown."""


def event_times(batch: TelemetryBatch) -> npt.NDArray[np.uint64]:
    """Return when each record happened: a span when it ended, a log record without a time when it was observed."""
    if batch.signal is Signal.TRACES:
        return np.asarray(batch.records["end_time_unix_nano"].to_numpy())
    times = batch.records["time_unix_nano"].to_numpy()
    if batch.signal is Signal.LOGS:
        unset = times == 0
        if unset.any():
            times = np.where(unset, batch.records["observed_time_unix_nano"].to_numpy(), times)
    return np.asarray(times)


def partial_of(batch: TelemetryBatch, tenant: str | None, sifted: Sifted, settings: AggregateSettings) -> Partial:
    """Return keys and values of the accepted records of a batch of one tenant."""
    table = batch.records.select(settings.reads(batch.signal))
    if sifted.accepted is not None:
        table = take_rows(table, sifted.accepted.astype(np.uint32))
    records = Records(batch.signal, table, batch.resources, batch.scopes)
    values = {
        f"{name}.{column}": found
        for name, measure in settings.measures.items()
        for column, found in measure.inputs(records).items()
    }
    keys = [records.key(field) for field in settings.by]
    return Partial(batch.signal, tenant, sifted, keys, values, np.ones(table.num_rows, np.int64), settings.columns())


def split_by_key(batch: TelemetryBatch, settings: AggregateSettings) -> list[tuple[str, TelemetryBatch]]:
    """Split a batch by the key its records belong to: the tenant, and with several shards a hash of the series."""
    if batch.signal not in settings.signals or not batch.num_rows:
        return []
    parts = []
    for tenant, owned in split_by_tenant(batch):
        name = tenant or NO_TENANT
        if settings.shards == 1:
            parts.append((name, owned))
            continue
        shard = _shards(owned, settings)
        parts += [
            (f"{name}/{number}", owned.take(np.flatnonzero(shard == number)).compact())
            for number in np.unique(shard).tolist()
        ]
    return parts


def partials_of(
    batch: TelemetryBatch, settings: AggregateSettings, now_unix_nano: int
) -> tuple[list[tuple[str, Partial]], list[Refused]]:
    """Return the parts of a batch by key, and what its own times refuse."""
    partials, refused = [], []
    sifting = sift_sessions if isinstance(settings.window, SessionWindow) else sift
    shape = settings.window_shape()
    for key, part in split_by_key(batch, settings):
        tenant = part.resources["tenant"][part.places("resource")[0]].as_py()
        sifted = sifting(event_times(part), now_unix_nano, shape)
        for rows, reason in ((sifted.late, "late"), (sifted.ahead, "ahead of clock")):
            if rows.size:
                refused.append(Refused(part.signal, tenant, len(rows), reason))
        if sifted.high:
            partials.append((key, partial_of(part, tenant, sifted, settings)))
    return partials, refused


def _shards(batch: TelemetryBatch, settings: AggregateSettings) -> Ints:
    table = batch.records.select(settings.reads(batch.signal))
    records = Records(batch.signal, table, batch.resources, batch.scopes)
    mixed = np.zeros(batch.num_rows, np.uint64)
    for field in settings.by:
        key = records.key(field)
        if isinstance(key, pa.DictionaryArray):
            hashed = hash_values(key.dictionary)[pc.fill_null(key.indices, 0).to_numpy()]
        else:
            hashed = hash_values(key)
        mixed = mixed * np.uint64(31) + hashed.view(np.uint64)
    return np.asarray((mixed >> np.uint64(33)) % np.uint64(settings.shards)).astype(np.int64)
