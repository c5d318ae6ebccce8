"""Part of an aggregation on its way to where the windows are.

On its way within a process a partial is the rows' own values. When it crosses to another process it is folded first,
to one row for each series and pane, and travels as Arrow IPC: what crosses grows with the series, not the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from telflow.accumulator import Accumulator, Measure
from telflow.errors import BatchError
from telflow.schema import Signal
from telflow.series import distinct_rows
from telflow.windows import Ints, Sifted, Values
from telflow.wire import PayloadCache

__all__ = ["Partial"]

_PAYLOADS = PayloadCache(64 * 1024 * 1024)
_FORMAT = b"1"
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Partial:
    """Rows of one key of a stream, sifted by themselves.

    Attributes:
        signal: Of the records.
        tenant: Whose they are.
        sifted: When they were, and what that means for windows; only accepted rows are left.
        keys: Dimension values.
        values: Inputs of the measures per row, or an accumulator with a slot per row.
        records: How many records each row stands for.
        measures: What is measured.
    """

    signal: Signal
    tenant: str | None
    sifted: Sifted
    keys: list[pa.Array]
    values: Mapping[str, Values] | Accumulator
    records: Ints
    measures: Mapping[str, Measure]

    def fold(self) -> Partial:
        """Return the same with equal rows joined, so that it is one row for each pane and series."""
        if isinstance(self.values, Accumulator):
            return self
        sifted = self.sifted
        places = [pa.array(sifted.starts)] + ([] if sifted.firsts is None else [pa.array(sifted.firsts)])
        first, numbers = distinct_rows([*places, *self.keys])
        values = Accumulator(self.measures)
        values.add(numbers, self.values, slots=len(first))
        records = np.bincount(numbers, weights=self.records, minlength=len(first)).astype(np.int64)
        chosen = Sifted(
            sifted.starts[first],
            None if sifted.firsts is None else sifted.firsts[first],
            None,
            _NONE,
            _NONE,
            sifted.high,
            sifted.now,
        )
        taken = [key.take(pa.array(first)) for key in self.keys]
        keys = [key.dictionary_decode() if isinstance(key, pa.DictionaryArray) else key for key in taken]
        return Partial(self.signal, self.tenant, chosen, keys, values, records, self.measures)

    def take(self, rows: Ints) -> Partial:
        """Return only some rows."""
        sifted = self.sifted
        chosen = Sifted(
            sifted.starts[rows],
            None if sifted.firsts is None else sifted.firsts[rows],
            None,
            _NONE,
            _NONE,
            sifted.high,
            sifted.now,
        )
        values: Mapping[str, Values] | Accumulator
        if isinstance(self.values, Accumulator):
            values = self.values.take(rows)
        else:
            values = {name: column[rows] for name, column in self.values.items()}
        keys = [key.take(pa.array(rows)) for key in self.keys]
        return Partial(self.signal, self.tenant, chosen, keys, values, self.records[rows], self.measures)

    def without(self, rows: Ints) -> Partial:
        """Return all but some rows."""
        if not rows.size:
            return self
        kept = np.ones(len(self.records), np.bool_)
        kept[rows] = False
        return self.take(np.flatnonzero(kept))

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        # Bytewax pickles twice: once for the size, once to write.
        return _unpickle, (_PAYLOADS.get(self, lambda: _pack(self)), dict(self.measures))


def _pack(partial: Partial) -> bytes:
    folded = partial.fold()
    values, sifted = folded.values, folded.sifted
    assert isinstance(values, Accumulator)  # noqa: S101 - `fold` has made it so
    columns = {"start": pa.array(sifted.starts), "records": pa.array(folded.records)}
    if sifted.firsts is not None:
        columns["first"] = pa.array(sifted.firsts)
    columns |= {f"key {n}": key for n, key in enumerate(folded.keys)}
    columns |= {f"value {n}": value for n, value in enumerate(values.to_arrow())}
    said = {
        b"format": _FORMAT,
        b"signal": partial.signal.encode(),
        b"high": b"%d" % sifted.high,
        b"now": b"%d" % sifted.now,
    }
    if partial.tenant is not None:
        said[b"tenant"] = partial.tenant.encode()
    table = pa.RecordBatch.from_arrays(list(columns.values()), list(columns)).replace_schema_metadata(said)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(table)
    return bytes(sink.getvalue())


def _unpickle(payload: bytes, measures: dict[str, Measure]) -> Partial:
    table = pa.ipc.open_stream(payload).read_next_batch()
    said = table.schema.metadata
    if said.get(b"format") != _FORMAT:
        raise BatchError("a partial aggregate came from another version of telflow: run one version in a cluster")
    names = table.schema.names
    firsts = table["first"].to_numpy() if "first" in names else None
    sifted = Sifted(table["start"].to_numpy(), firsts, None, _NONE, _NONE, int(said[b"high"]), int(said[b"now"]))
    keys = [table[name] for name in names if name.startswith("key ")]
    values = Accumulator(measures)
    values.from_arrow([table[name] for name in names if name.startswith("value ")], table.num_rows)
    tenant = said[b"tenant"].decode() if b"tenant" in said else None
    return Partial(
        Signal(said[b"signal"].decode()), tenant, sifted, keys, values, table["records"].to_numpy(), measures
    )
