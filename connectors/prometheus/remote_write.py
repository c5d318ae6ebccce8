"""Metrics as a request of Prometheus' remote write protocol, version 1.0: a `WriteRequest` in protobuf.

Samples are sorted by series and time, as receivers want them, and put together by whole-array operations; only what is
seen for the first time (a series, a resource, a family) is worked out by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.prometheus.exemplars import exemplars
from connectors.prometheus.native_histograms import native_histograms, unrepresentable
from connectors.prometheus.samples import float_samples
from connectors.prometheus.series_labels import Family, SeriesLabels, encoded_labels
from connectors.prometheus.settings import LabelSettings
from connectors.prometheus.wire import delimited, doubles, fields, join, lists_joined, varint
from telflow.attributes_json import attributes_json
from telflow.batch import TelemetryBatch
from telflow.schema import MetricType
from telflow.series import distinct_rows

__all__ = ["Refusal", "Request", "Translator", "acceptable", "values_of"]

Ints = npt.NDArray[np.int64]

_DELTA = 1
_MOST_FAMILIES = 10_000
_INFO_EVERY_MS = 60_000
"""How often `target_info` is sent again; Prometheus takes a series for gone after 5 minutes."""
_SAMPLE, _EXEMPLAR = 0, 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Points that Prometheus has no form for.

    Attributes:
        batch: The points.
        reason: Why, as the ledger has it.
    """

    batch: TelemetryBatch
    reason: str


@dataclass(frozen=True, slots=True)
class Request:
    """What a batch becomes.

    Attributes:
        body: The `WriteRequest`, not compressed.
        info: Another one with what is known of targets and families; None when nothing of it is due.
        overwritten: Points of which nothing is left: others of the same series and time came after them.
    """

    body: bytes
    info: bytes | None
    overwritten: int


def acceptable(batch: TelemetryBatch) -> tuple[TelemetryBatch, list[Refusal]]:
    """Split off the points that cannot be sent: of delta temporality, or exponential histograms too coarse."""
    records = batch.records
    sums = np.isin(records["type"].to_numpy(), [MetricType.SUM, MetricType.HISTOGRAM, MetricType.EXPONENTIAL_HISTOGRAM])
    delta = sums & (records["aggregation_temporality"].to_numpy() == _DELTA)
    coarse = unrepresentable(records) & ~delta
    refused = [
        Refusal(batch.take(np.flatnonzero(rows)), reason)
        for rows, reason in ((delta, "delta temporality"), (coarse, "exponential histogram below scale -4"))
        if rows.any()
    ]
    return (batch.take(np.flatnonzero(~(delta | coarse))) if refused else batch), refused


class Translator:
    """Makes requests for one destination; for one thread at a time.

    Args:
        settings: How series are named and labelled.
        target_info: Whether to say what is known of targets and families.
    """

    def __init__(self, settings: LabelSettings, *, target_info: bool = True) -> None:
        self.series = SeriesLabels(settings)
        self._target_info = target_info
        self._told_ms: dict[bytes, int] = {}
        self._told_families: set[Family] = set()
        self._told_in = self.series.generation

    def request(self, batch: TelemetryBatch) -> Request:
        """Return the request that carries a batch.

        Args:
            batch: Data points, all `acceptable`.
        """
        slots = self.series.slots(batch)
        if self._told_in != self.series.generation or len(self._told_families) > _MOST_FAMILIES:
            # As bounded as the series: who brings new ones without end is not remembered for it.
            self._told_in = self.series.generation
            self.forget_info()
        records = batch.records
        times = (records["time_unix_nano"].to_numpy() // 1_000_000).astype(np.int64)
        floats = float_samples(records, slots, self.series)
        native_rows, native = native_histograms(records, times)
        example_keys, example_times, examples = exemplars(records, slots, self.series)
        plain = self.series.suffix(("", "", ""))
        of_floats = times[floats.rows]
        payload = delimited(0x12, join(doubles(0x09, floats.values), fields(0x10, of_floats)))
        rows = np.concatenate([floats.rows, native_rows])
        keys = self.series.ids(np.concatenate([floats.keys, self.series.keys(slots[native_rows], plain)]))
        at = np.concatenate([of_floats, times[native_rows]])
        kept = _last_of_each(keys, at, rows)
        overwritten = 0
        if len(kept) < len(keys):
            overwritten = len(np.setdiff1d(rows, rows[kept]))
            keys, at = keys[kept], at[kept]
        samples = pa.concat_arrays([payload, native])
        if len(kept) < len(samples):
            samples = samples.take(pa.array(kept))
        body = self._body(
            np.concatenate([keys, self.series.ids(example_keys)]),
            np.concatenate([at, example_times]),
            np.repeat([_SAMPLE, _EXEMPLAR], [len(keys), len(example_keys)]),
            pa.concat_arrays([samples, examples]),
        )
        return Request(body, self._info(batch, times) if self._target_info else None, overwritten)

    def forget_info(self) -> None:
        """Say everything about targets and families again, because the last request about them did not arrive."""
        self._told_ms.clear()
        self._told_families.clear()

    def _body(self, keys: Ints, times: Ints, which: Ints, payloads: pa.Array) -> bytes:
        """One TimeSeries for each series: labels, samples and exemplars, each in the order of time."""
        if not len(keys):
            return b""
        order = np.lexsort((times, which, keys))
        keys, which = keys[order], which[order]
        first = np.ones(len(keys), np.bool_)
        first[1:] = keys[1:] != keys[:-1]
        starts = np.flatnonzero(first)
        # An exemplar whose series has no sample here would be a series without any.
        has_sample = which[starts] == _SAMPLE
        ordered = payloads.take(pa.array(order))
        grouped = ordered
        if len(starts) < len(keys):
            grouped = lists_joined(np.append(starts, len(keys)), ordered)
        series = delimited(0x0A, join(self.series.blobs(keys[starts]), grouped))
        if not has_sample.all():
            series = series.filter(pa.array(has_sample))
        return values_of(series)

    def _info(self, batch: TelemetryBatch, times: Ints) -> bytes | None:
        """Targets whose turn it is, at the time of their newest point, and families not told of before."""
        out = bytearray()
        resources = batch.resources
        newest = np.full(resources.num_rows, -1, np.int64)
        np.maximum.at(newest, _resource_rows(batch), times)
        texts = attributes_json(resources["attributes"]).to_pylist()
        for tenant, text, time_ms in zip(resources["tenant"].to_pylist(), texts, newest.tolist(), strict=True):
            identity, further = self.series.target(tenant, text)
            if time_ms < 0 or not further or not ({"job", "instance"} & identity.keys()):
                continue
            labels = encoded_labels(list((further | identity | {"__name__": "target_info"}).items()))
            if time_ms < self._told_ms.get(labels, -_INFO_EVERY_MS) + _INFO_EVERY_MS:
                continue
            self._told_ms[labels] = time_ms
            sample = doubles(0x09, np.ones(1))[0].as_py() + b"\x10" + varint(time_ms)
            message = labels + b"\x12" + varint(len(sample)) + sample
            out += b"\x0a" + varint(len(message)) + message
        for family in self._families(batch) - self._told_families:
            self._told_families.add(family)
            out += _metadata(family)
        return bytes(out) or None

    def _families(self, batch: TelemetryBatch) -> set[Family]:
        names = ("name", "unit", "type", "description", "is_monotonic")
        first, _ = distinct_rows([batch.records[name] for name in names])
        some = batch.records.select(list(names)).take(pa.array(first)).to_pylist()
        return {
            self.series.family(row["name"], row["unit"], row["type"], row["description"], monotonic=row["is_monotonic"])
            for row in some
        }


def _resource_rows(batch: TelemetryBatch) -> Ints:
    """Return the row of each point's resource."""
    return np.asarray(batch.records["resource"].to_numpy(), np.int64)


def _metadata(family: Family) -> bytes:
    out = b"\x08" + varint(int(family.kind))
    for tag, text in ((0x12, family.name), (0x22, family.help), (0x2A, family.unit)):
        octets = text.encode()
        out += bytes([tag]) + varint(len(octets)) + octets if octets else b""
    return b"\x1a" + varint(len(out)) + out


def _last_of_each(keys: Ints, times: Ints, rows: Ints) -> Ints:
    """Return, ascending, where the sample of the last row of each series and time is."""
    order = np.lexsort((rows, times, keys))
    last = np.ones(len(order), np.bool_)
    last[:-1] = (keys[order][1:] != keys[order][:-1]) | (times[order][1:] != times[order][:-1])
    if last.all():
        return np.arange(len(keys))
    return np.sort(order[last])


def values_of(column: pa.Array) -> bytes:
    """Return all values of a binary array, one after the other."""
    if not len(column):
        return b""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    values: bytes = column.buffers()[2][int(offsets[0]) : int(offsets[-1])].to_pybytes()
    return values
