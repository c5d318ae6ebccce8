"""From batches to the rows of an aggregation: which count, event times, keys and values, by the key of a stream."""

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
from telflow.fields import Records, event_times
from telflow.resource_keys import keys_of_resources
from telflow.rows import take_rows
from telflow.session_windows import sift_sessions
from telflow.window_logic import Refused
from telflow.windows import Ints, Sifted, sift

__all__ = ["NO_TENANT", "partial_of", "partials_of", "split_by_key"]

NO_TENANT = "(none)"
"""Key of records whose owner is unknown."""


def partial_of(
    batch: TelemetryBatch, tenant: str | None, sifted: Sifted, settings: AggregateSettings, rows: Ints | None = None
) -> Partial:
    """Return keys and values of the accepted records of a batch of one tenant; not of those that lack a required key.

    Args:
        batch: The records.
        tenant: Whose they are.
        sifted: What sifting gave.
        settings: What is measured.
        rows: The records that were sifted; None: all.
    """
    table = batch.records.select(settings.reads(batch.signal))
    accepted = sifted.accepted
    if rows is not None:
        accepted = rows if accepted is None else rows[accepted]
    if accepted is not None:
        table = take_rows(table, accepted.astype(np.uint32))
    records = Records(batch.signal, table, batch.resources, batch.scopes)
    values = {
        f"{name}.{column}": found
        for name, measure in settings.measures.items()
        for column, found in measure.inputs(records).items()
    }
    keys = [records.key(field) for field in settings.by]
    lacking = [_missing(key) for field, key in zip(settings.by, keys, strict=True) if field.required]
    if settings.resource_attributes:
        keys.append(records.resources(keys_of_resources(batch.resources, settings.resource_attributes)))
    partial = Partial(batch.signal, tenant, sifted, keys, values, np.ones(table.num_rows, np.int64), settings.columns())
    if lacking and (gaps := np.logical_or.reduce(lacking)).any():
        return partial.take(np.flatnonzero(~gaps))
    return partial


def split_by_key(batch: TelemetryBatch, settings: AggregateSettings) -> list[tuple[str, TelemetryBatch]]:
    """Split the records of a batch that are measured by the key they belong to.

    That is the tenant, and with several shards a hash of the series.
    """
    if batch.signal in settings.signals and (rows := settings.chosen(batch)) is not None:
        batch = batch.take(rows)
    return _split(batch, settings)


def partials_of(
    batch: TelemetryBatch, settings: AggregateSettings, now_unix_nano: int
) -> tuple[list[tuple[str, Partial]], list[Refused]]:
    """Return the parts of a batch by key, and what its own times refuse."""
    partials, refused = [], []
    sifting = sift_sessions if isinstance(settings.window, SessionWindow) else sift
    shape = settings.window_shape()
    for key, part in _split(batch, settings):
        tenant = part.resources["tenant"][part.places("resource")[0]].as_py()
        times, chosen = event_times(part.signal, part.records), settings.chosen(part)
        sifted = sifting(times if chosen is None else times[chosen], now_unix_nano, shape)
        for rows, reason in ((sifted.late, "late"), (sifted.ahead, "ahead of clock")):
            if rows.size:
                refused.append(Refused(part.signal, tenant, len(rows), reason))
        if sifted.high:
            partials.append((key, partial_of(part, tenant, sifted, settings, chosen)))
    return partials, refused


def _split(batch: TelemetryBatch, settings: AggregateSettings) -> list[tuple[str, TelemetryBatch]]:
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


def _missing(key: pa.Array) -> npt.NDArray[np.bool_]:
    if isinstance(key, pa.DictionaryArray):
        return np.asarray(_missing(key.dictionary)[key.indices.to_numpy()])
    return np.asarray(key.is_null().to_numpy(zero_copy_only=False))


def _shards(batch: TelemetryBatch, settings: AggregateSettings) -> Ints:
    table = batch.records.select(settings.reads(batch.signal))
    records = Records(batch.signal, table, batch.resources, batch.scopes)
    mixed = np.zeros(batch.num_rows, np.uint64)
    keys = [records.key(field) for field in settings.by]
    if settings.resource_attributes:
        keys.append(records.resources(keys_of_resources(batch.resources, settings.resource_attributes)))
    for key in keys:
        if isinstance(key, pa.DictionaryArray):
            hashed = hash_values(key.dictionary)[pc.fill_null(key.indices, 0).to_numpy()]
        else:
            hashed = hash_values(key)
        mixed = mixed * np.uint64(31) + hashed.view(np.uint64)
    return np.asarray((mixed >> np.uint64(33)) % np.uint64(settings.shards)).astype(np.int64)
