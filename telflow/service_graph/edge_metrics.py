"""Counts and times edges of the service graph in windows of event time, as OTLP metrics, for one tenant.

Names and attributes are those of the Collector's ``servicegraph`` connector: ``request_total``,
``request_failed_total``, ``request_server_seconds``, ``request_client_seconds`` behind the namespace, with ``client``,
``server``, ``connection_type`` and ``failed``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from telflow.accumulator import Measure, Reduce
from telflow.batch import TelemetryBatch
from telflow.bounds import Bounds
from telflow.columns import attribute_lists
from telflow.metric_points import HistogramPoints, SumPoints, Temporality, metrics_batch
from telflow.schema import Signal
from telflow.series_windows import SeriesResult, SeriesWindows
from telflow.service_graph.settings import ServiceGraphSettings, nanos
from telflow.state_version import state_version
from telflow.window_logic import Refused, Update
from telflow.windows import EventWindows, WindowShape

__all__ = ["EdgeMetrics"]

_STATE_VERSION = 1
_SCOPE = "telflow.operators.service_graph"
_TEMPORALITIES = {"delta": Temporality.DELTA, "cumulative": Temporality.CUMULATIVE}
_NO_TIME = pa.scalar(0, pa.int64())
_SIDES = ("client", "server")


class EdgeMetrics:
    """The kernel; see `telflow.window_logic.WindowKernel`. What it adds are edges (`telflow.service_graph.pairing`)."""

    def __init__(self, settings: ServiceGraphSettings) -> None:
        self._settings = settings
        self._bounds = Bounds([nanos(bound) for bound in settings.buckets])
        width = len(self._bounds.values) + 1
        measures = {"requests": Measure(Reduce.SUM)}
        for side in _SIDES:
            measures |= {
                f"{side}_buckets": Measure(Reduce.BUCKETS, width=width),
                f"{side}_sum": Measure(Reduce.SUM, "float64"),
                f"{side}_min": Measure(Reduce.MIN, "float64"),
                f"{side}_max": Measure(Reduce.MAX, "float64"),
            }
        shape = WindowShape(nanos(settings.window), nanos(settings.lateness), nanos(settings.max_ahead))
        self._windows = EventWindows(measures, shape)
        self._names = ["tenant", "client", "server", "connection_type", "failed", "virtual_node"]
        self._names += [f"{side}_{name}" for side in _SIDES for name in settings.dimensions]
        self._series = SeriesWindows(
            [pa.int32() if name == "failed" else pa.string() for name in self._names],
            measures,
            self._windows,
            self._metrics,
            max_series=settings.max_series,
            expiry_nano=nanos(settings.series_expiry),
            cumulative=settings.temporality == "cumulative",
        )

    def add(self, edges: pa.RecordBatch, now_unix_nano: int) -> Update:
        """Count edges."""
        sifted = self._windows.sift(edges["end"].to_numpy().view(np.uint64), now_unix_nano)
        tenant = edges["tenant"][0].as_py()
        refused = tuple(
            Refused(Signal.TRACES, tenant, len(rows), reason)
            for rows, reason in ((sifted.late, "late"), (sifted.ahead, "ahead of clock"))
            if rows.size
        )
        if sifted.accepted is not None:
            edges = edges.take(pa.array(sifted.accepted))
        values: dict[str, Any] = {"requests": np.ones(edges.num_rows, np.int64)}
        for side in _SIDES:
            column = edges[f"{side}_duration"]
            known = column.is_valid().to_numpy(zero_copy_only=False)
            duration = column.fill_null(_NO_TIME).to_numpy()
            real = np.where(known, duration, np.nan)
            values |= {
                f"{side}_buckets": np.where(known, self._bounds.buckets(duration), -1),
                f"{side}_sum": duration.astype(np.float64),
                f"{side}_min": real,
                f"{side}_max": real,
            }
        keys = [edges[name].cast(pa.int32()) if name == "failed" else edges[name] for name in self._names]
        return Update(self._series.add(sifted, keys, values), refused=refused)

    def due_unix_nano(self) -> int | None:
        """System time at which `advance` closes a window if nothing comes until then; None when nothing is open."""
        idle = self._settings.idle_timeout
        return None if idle is None else self._windows.due_unix_nano(nanos(idle))

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment."""
        self._windows.idle_since(system_unix_nano)

    def advance(self, now_unix_nano: int) -> Update:
        """Let the system clock close windows, the input being silent."""
        return Update(self._series.advance(now_unix_nano))

    def flush(self) -> Update:
        """Close all open windows."""
        return Update(self._series.flush())

    def state(self) -> dict[str, Any]:
        """Return everything as plain, versioned data that later changes do not touch."""
        settings = self._settings.model_dump(mode="json")
        return {"version": _STATE_VERSION, "settings": settings, **self._series.state()}

    def restore(self, state: Mapping[str, Any]) -> Update:
        """Take over what `state` returned; windows of other options are closed under those, and returned.

        Raises:
            BatchError: Another version of telflow wrote it, in a form this one does not read.
        """
        state_version(state, "service_graph", _STATE_VERSION)
        before = ServiceGraphSettings.model_validate(state["settings"])
        if before.shape() != self._settings.shape():
            old = EdgeMetrics(before)
            old.restore(state)
            self._windows.restore_time(state["windows"])
            return old.flush()
        self._series.restore(state)
        return Update()

    def _metrics(self, result: SeriesResult) -> TelemetryBatch:
        columns = dict(zip(self._names, result.keys, strict=True))
        rows, overflowed = result.rows, result.overflowed
        failed = columns["failed"].cast(pa.bool_())
        attributes = [(name, columns[name]) for name in self._names[1:] if name != "failed"]
        attributes.insert(3, ("failed", failed))
        attributes.append(("otel.metric.overflow", pa.array(overflowed, mask=~overflowed)))
        requests = result.values["requests"][rows]
        prefix = f"{self._settings.namespace}_" if self._settings.namespace else ""
        failures = np.where(failed.fill_null(False).to_numpy(zero_copy_only=False), requests, 0)
        return metrics_batch(
            [
                SumPoints(f"{prefix}request_total", "Number of requests between two nodes", "{request}", requests),
                SumPoints(f"{prefix}request_failed_total", "Number of failed requests", "{request}", failures),
                *(self._histogram(side, prefix, result) for side in ("server", "client")),
            ],
            scope=_SCOPE,
            tenant=columns["tenant"],
            resource_attributes={},
            attributes=attribute_lists(len(rows), attributes),
            temporality=_TEMPORALITIES[self._settings.temporality],
            start_time_unix_nano=result.starts,
            time_unix_nano=result.ends,
        )

    def _histogram(self, side: str, prefix: str, result: SeriesResult) -> HistogramPoints:
        buckets = result.values[f"{side}_buckets"][result.rows]
        some = buckets.any(axis=1)
        total, low, high = (result.values[f"{side}_{name}"][result.rows] / 1e9 for name in ("sum", "min", "max"))
        return HistogramPoints(
            f"{prefix}request_{side}_seconds",
            f"Duration of requests as the {side} saw it",
            "s",
            bounds=self._bounds.values / 1e9,
            bucket_counts=buckets,
            sum=total,
            # Nothing has no extremes.
            min=pa.array(low, mask=~some),
            max=pa.array(high, mask=~some),
        )
