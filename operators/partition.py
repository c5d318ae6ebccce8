"""partition: give every record a key, by tenant, by an attribute or by a function; batches split where keys differ."""

from __future__ import annotations

from collections.abc import Callable

import bytewax.operators as op
import numpy as np
import pyarrow as pa
from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream
from pydantic import Field

from telflow.batch import Level, TelemetryBatch
from telflow.errors import UserFunctionError
from telflow.settings import Settings
from telflow.user_functions import call, name_of

__all__ = ["NO_KEY", "KeyFunction", "PartitionSettings", "keys_of", "partition", "partition_batch"]

NO_KEY = "(none)"
"""Key of records that have none."""

KeyFunction = Callable[[TelemetryBatch], pa.Array]
"""A function that returns a key for each record of a batch, of any type that can be written as text."""


class PartitionSettings(Settings):
    """What `partition` takes as a record's key."""

    by: str = Field(default="tenant", min_length=1)
    """`tenant`, or the name of an attribute."""

    level: Level = "resource"
    """Where the attribute is."""

    missing: str = NO_KEY
    """Key of records without one."""


def keys_of(batch: TelemetryBatch, settings: PartitionSettings) -> pa.Array:
    """Return the key of each record as text; null where there is none."""
    if settings.by == "tenant":
        return batch.tenants()
    return batch.attribute(settings.by, level=settings.level, type=pa.string())


def partition_batch(batch: TelemetryBatch, keys: pa.Array, missing: str = NO_KEY) -> list[tuple[str, TelemetryBatch]]:
    """Split a batch into one for each distinct key, in the order of their first record.

    Within a key records keep their order. A batch of one key is passed on as it is; the parts of another hold only
    the resources and scopes of their own records.

    Args:
        batch: What to split.
        keys: A key for each record; what is not text is written as text.
        missing: Key of records whose key is null.

    Raises:
        ValueError: There is not one key for each record, or keys cannot be written as text.
    """
    if not isinstance(keys, pa.Array | pa.ChunkedArray):
        raise ValueError(f"expected keys as an Arrow array, got {type(keys).__name__}")  # noqa: TRY004 - one kind for all
    if len(keys) != batch.num_rows:
        raise ValueError(f"expected {batch.num_rows} keys, one for each record, got {len(keys)}")
    if not batch.num_rows:
        return []
    try:
        texts = keys.cast(pa.string())
    except pa.ArrowNotImplementedError as error:
        raise ValueError(f"expected keys that can be written as text, got {keys.type}") from error
    encoded = texts.fill_null(missing).dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    names = encoded.dictionary.to_pylist()
    if len(names) == 1:
        return [(names[0], batch)]
    codes = encoded.indices.to_numpy()
    ordered = batch.take(np.argsort(codes, kind="stable"))
    counts = np.bincount(codes, minlength=len(names)).tolist()
    parts, start = [], 0
    for name, count in zip(names, counts, strict=True):
        parts.append((name, ordered.slice(start, count).compact()))
        start += count
    return parts


def _partition(batch: TelemetryBatch, settings: PartitionSettings) -> list[tuple[str, TelemetryBatch]]:
    """Split by a tenant or an attribute. That all belongs to one tenant, the usual case, the few resources tell."""
    if settings.by == "tenant" and batch.num_rows:
        owners = batch.resources["tenant"].unique()
        if len(owners) == 1:
            owner = owners[0].as_py()
            return [(settings.missing if owner is None else owner, batch)]
    return partition_batch(batch, keys_of(batch, settings), settings.missing)


@operator
def partition(
    step_id: str,
    up: Stream[TelemetryBatch],
    by: PartitionSettings | str | KeyFunction = "tenant",
) -> KeyedStream[TelemetryBatch]:
    """Split batches so that each has one key, and key the stream by it.

    Args:
        step_id: Unique ID.
        up: Batches of any signal.
        by: `"tenant"`; the name of a resource attribute; settings that say more; or a function that returns a key for
            each record.

    Returns:
        Keyed batches. Records without a key have that of `PartitionSettings.missing`.
    """
    settings = (
        by if isinstance(by, PartitionSettings) else PartitionSettings(by=by if isinstance(by, str) else "tenant")
    )
    function = by if callable(by) else None

    def shim(batch: TelemetryBatch) -> list[tuple[str, TelemetryBatch]]:
        if function is None:
            return _partition(batch, settings)
        keys = call(step_id, function, batch)
        try:
            return partition_batch(batch, keys, settings.missing)
        except ValueError as error:
            raise UserFunctionError(f"step {step_id!r}: function {name_of(function)}: {error}") from error

    return op.flat_map("flat_map", up, shim)
