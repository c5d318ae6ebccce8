"""Pairs the halves of requests, for one part of a tenant's traces. No clock and no I/O; times are Unix nanoseconds.

The first half of a client's span to come is paired with the first of a server's with the same trace and span id, the
second with the second, and so on. A half waits until the latest end of all spans (never ahead of the system clock) is
`wait` after its own; whatever batches spans are cut into, a half that comes later than that does not meet it any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.hashing import mix
from telflow.rows import take_rows
from telflow.schema import Signal
from telflow.service_graph.halves import dimension_fields, halves_schema
from telflow.service_graph.settings import ServiceGraphSettings, nanos
from telflow.state_version import state_version
from telflow.window_logic import Refused, Update

__all__ = ["Pairing", "edges_schema"]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_STATE_VERSION = 1
_NEVER = -(2**62)
# Scalars with a type: to infer one pyarrow looks for pandas, each time anew (0.1 ms).
_TEXTS = {
    text: pa.scalar(text, pa.string()) for text in ("messaging_system", "", "unknown", "user", "client", "server")
}
_NO_TEXT, _NO_TIME = pa.scalar(None, pa.string()), pa.scalar(None, pa.int64())


def edges_schema(settings: ServiceGraphSettings) -> pa.Schema:
    """Return the columns of edges: requests of which both ends are known."""
    return pa.schema(
        [
            ("tenant", pa.string()),
            ("client", pa.string()),
            ("server", pa.string()),
            ("connection_type", pa.string()),
            ("failed", pa.bool_()),
            ("virtual_node", pa.string()),
            ("client_duration", pa.int64()),
            ("server_duration", pa.int64()),
            ("end", pa.int64()),
            *dimension_fields("client_", settings),
            *dimension_fields("server_", settings),
        ]
    )


class Pairing:
    """The kernel; see `telflow.window_logic.WindowKernel`. Its rows are edges."""

    def __init__(self, settings: ServiceGraphSettings) -> None:
        self._settings = settings
        self._schema = halves_schema(settings)
        self._edges_schema = edges_schema(settings)
        self._no_edges = pa.RecordBatch.from_pylist([], self._edges_schema)
        self._wait = nanos(settings.wait)
        self._limit = -(-settings.max_items // settings.shards)
        self._open = pa.RecordBatch.from_pylist([], self._schema)
        self._high = _NEVER
        self._silent_since: int | None = None

    def __len__(self) -> int:
        """Halves that wait."""
        return int(self._open.num_rows)

    def add(self, halves: pa.RecordBatch, now_unix_nano: int) -> Update:
        """Pair halves with those that wait and with each other."""
        self._silent_since = now_unix_nano
        ends = halves["end"].to_numpy()
        ahead = ends > now_unix_nano + nanos(self._settings.max_ahead)
        refused = self._refused(halves, int(np.count_nonzero(ahead)), "ahead of clock")
        if ahead.any():
            halves = take_rows(halves, np.flatnonzero(~ahead).astype(np.uint32))
            ends = ends[~ahead]
        high = np.maximum.accumulate(np.append(self._high, np.minimum(ends, now_unix_nano)))
        self._high = int(high[-1])
        edges: list[pa.RecordBatch] = []
        alone = self._complete(halves)
        if alone.any():
            server = halves["is_server"].to_numpy(zero_copy_only=False)
            edges.append(self._database(_some(halves, alone & ~server)))
            lonely, left_out = self._single(_some(halves, alone & server))
            edges.append(lonely)
            refused += left_out

        waiting = self._open.num_rows
        both = pa.concat_batches([self._open, _some(halves, ~alone)])
        met = np.concatenate([np.full(waiting, _NEVER), high[:-1][~alone]])
        clients, servers = self._pairs(both, waiting, met)
        if clients.size:
            edges.append(self._edges(take_rows(both, clients), take_rows(both, servers)))
        left = np.ones(both.num_rows, np.bool_)
        left[clients] = left[servers] = False
        gone = left & (both["end"].to_numpy() + self._wait <= self._high)
        expired, left_out = self._single(_some(both, gone))
        edges.append(expired)
        refused += left_out
        self._open = _some(both, left & ~gone)
        if self._open.num_rows > self._limit:
            refused += self._refused(self._open, self._open.num_rows - self._limit, "store full")
            self._open = take_rows(self._open, np.arange(self._limit, dtype=np.uint32))
        return self._update(edges, refused)

    def due_unix_nano(self) -> int | None:
        """System time at which `advance` ends the waiting if no spans come until then; None when nothing waits."""
        idle = self._settings.idle_timeout
        if idle is None or not self._open.num_rows or self._silent_since is None:
            return None
        return self._silent_since + max(nanos(idle), self._wait)

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment."""
        self._silent_since = system_unix_nano

    def advance(self, now_unix_nano: int) -> Update:
        """End the waiting, the input being silent."""
        self._silent_since = now_unix_nano
        return self.flush()

    def flush(self) -> Update:
        """End the waiting."""
        found, refused = self._single(self._open)
        self._open = self._open.slice(0, 0)
        return self._update([found], refused)

    def state(self) -> dict[str, Any]:
        """Return everything as plain, versioned data that later changes do not touch."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._schema) as writer:
            writer.write_batch(self._open)
        return {"version": _STATE_VERSION, "open": sink.getvalue().to_pybytes(), "high": self._high}

    def restore(self, state: Mapping[str, Any]) -> Update:
        """Take over what `state` returned; dimensions that were not asked for then are not there.

        Raises:
            BatchError: Another version of telflow wrote it, in a form this one does not read.
        """
        state_version(state, "service_graph", _STATE_VERSION)
        with pa.ipc.open_stream(state["open"]) as reader:
            found = reader.read_all().combine_chunks()
        columns = [
            found[field.name].combine_chunks() if field.name in found.column_names else pa.nulls(len(found), field.type)
            for field in self._schema
        ]
        self._open = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        self._high = state["high"]
        return Update()

    def _complete(self, halves: pa.RecordBatch) -> Mask:
        """Which halves wait for none: requests to a database, and servers' spans without a parent."""
        root = (halves["span"].to_numpy() == 0) & halves["is_server"].to_numpy(zero_copy_only=False)
        return np.asarray(root | halves["database"].is_valid().to_numpy(zero_copy_only=False))

    def _pairs(self, both: pa.RecordBatch, waiting: int, met: Ints) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Rows of clients and servers that belong together.

        Args:
            both: Halves that wait, and those that came.
            waiting: How many are the former.
            met: The latest end of all spans when each one came.
        """
        span, high, low = (both[name].to_numpy() for name in ("span", "trace_high", "trace_low"))
        hashes = mix(span ^ mix(low ^ mix(high)))
        came = np.sort(hashes[waiting:])
        place = np.searchsorted(came, hashes[:waiting])
        touched = place < len(came)
        touched[touched] = came[place[touched]] == hashes[:waiting][touched]
        rows = np.concatenate([np.flatnonzero(touched), np.arange(waiting, both.num_rows)])
        server = both["is_server"].to_numpy(zero_copy_only=False)
        rows = rows[np.lexsort((server[rows], hashes[rows]))]
        if not rows.size:
            return rows.astype(np.uint32), rows.astype(np.uint32)
        new = np.ones(len(rows), np.bool_)
        new[1:] = False
        for column in (high, low, span):
            ordered = column[rows]
            new[1:] |= ordered[1:] != ordered[:-1]
        starts = np.flatnonzero(new)
        servers = np.add.reduceat(server[rows].astype(np.int64), starts)
        clients = np.diff(np.append(starts, len(rows))) - servers
        pairs = np.minimum(clients, servers)
        first = np.repeat(starts, pairs)
        rank = np.arange(int(pairs.sum())) - np.repeat(np.cumsum(pairs) - pairs, pairs)
        client, serving = rows[first + rank], rows[first + np.repeat(clients, pairs) + rank]
        earlier, later = np.minimum(client, serving), np.maximum(client, serving)
        in_time = both["end"].to_numpy()[earlier] + self._wait > met[later]
        return client[in_time].astype(np.uint32), serving[in_time].astype(np.uint32)

    def _edges(self, clients: pa.RecordBatch, servers: pa.RecordBatch) -> pa.RecordBatch:
        messaging = pc.or_(clients["messaging"], servers["messaging"])
        return self._table(
            clients,
            servers,
            client=clients["service"],
            server=servers["service"],
            connection_type=pc.if_else(messaging, _TEXTS["messaging_system"], _TEXTS[""]),
            failed=pc.or_(clients["failed"], servers["failed"]),
            client_duration=clients["duration"],
            server_duration=servers["duration"],
            end=pc.max_element_wise(clients["end"], servers["end"]),
        )

    def _database(self, clients: pa.RecordBatch) -> pa.RecordBatch:
        return self._table(
            clients,
            None,
            client=clients["service"],
            server=clients["database"],
            connection_type="database",
            failed=clients["failed"],
            client_duration=clients["duration"],
            # A database has no span of its own: what the client saw is all there is to know.
            server_duration=clients["duration"],
            end=clients["end"],
        )

    def _single(self, halves: pa.RecordBatch) -> tuple[pa.RecordBatch, list[Refused]]:
        """Edges with a virtual node, of halves that have waited in vain; the others of them are refused."""
        if not halves.num_rows:
            return self._no_edges, []
        server = halves["is_server"].to_numpy(zero_copy_only=False)
        usable = ~server | (halves["span"].to_numpy() == 0)
        if not self._settings.virtual_nodes:
            usable[:] = False
        refused = self._refused(halves, int(np.count_nonzero(~usable)), "unpaired")
        halves = _some(halves, usable)
        of_server = halves["is_server"]
        peer = pc.coalesce(halves["peer"], _TEXTS["unknown"])
        labelled = self._settings.virtual_node_extra_label
        label = pc.if_else(of_server, _TEXTS["client"], _TEXTS["server"]) if labelled else None
        own = halves["duration"]
        clients = self._table(
            halves,
            halves,
            client=pc.if_else(of_server, _TEXTS["user"], halves["service"]),
            server=pc.if_else(of_server, halves["service"], peer),
            connection_type="virtual_node",
            failed=halves["failed"],
            virtual_node=label,
            client_duration=pc.if_else(of_server, _NO_TIME, own),
            server_duration=pc.if_else(of_server, own, _NO_TIME),
            end=halves["end"],
        )
        for prefix, wrong in (("client_", of_server), ("server_", pc.invert(of_server))):
            for field in dimension_fields(prefix, self._settings):
                place = clients.schema.get_field_index(field.name)
                clients = clients.set_column(place, field, pc.if_else(wrong, _NO_TEXT, clients[field.name]))
        return clients, refused

    def _table(self, clients: pa.RecordBatch, servers: pa.RecordBatch | None, **values: Any) -> pa.RecordBatch:
        rows = clients.num_rows
        if not rows:
            return self._no_edges
        values["tenant"] = clients["tenant"]
        for name in self._settings.dimensions:
            values[f"client_{name}"] = clients[name]
            values[f"server_{name}"] = None if servers is None else servers[name]
        columns = []
        for field in self._edges_schema:
            value = values.get(field.name)
            given = isinstance(value, pa.Array)
            columns.append(value if given else pa.repeat(pa.scalar(value, field.type), rows))
        return pa.RecordBatch.from_arrays(columns, schema=self._edges_schema)

    def _refused(self, halves: pa.RecordBatch, count: int, reason: str) -> list[Refused]:
        return [Refused(Signal.TRACES, halves["tenant"][0].as_py(), count, reason)] if count else []

    def _update(self, edges: list[pa.RecordBatch], refused: list[Refused]) -> Update:
        found = pa.concat_batches(edges)
        return Update(rows=(found,) if found.num_rows else (), refused=tuple(refused))


def _some(table: pa.RecordBatch, mask: Mask) -> pa.RecordBatch:
    if not mask.any():
        return table.slice(0, 0)
    return table if mask.all() else take_rows(table, np.flatnonzero(mask).astype(np.uint32))
