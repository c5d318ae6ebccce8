"""The series of a destination: which labels each has, made once and kept as the bytes that requests hold.

A data point's series is named by numbers only: its *slot* (resource, scope, metric and attributes) and a *suffix*
(which of the samples of a histogram or summary). What belongs to a slot is worked out in Python when it is first seen;
after that, finding a batch's labels is one look-up over whole columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.prometheus.names import Kind, family_name, label_set
from connectors.prometheus.settings import LabelSettings
from connectors.prometheus.wire import varint
from telflow.attributes_json import attributes_json
from telflow.batch import TelemetryBatch
from telflow.schema import MetricType
from telflow.series import SeriesTable, Vocabulary

__all__ = ["Family", "SeriesLabels", "Suffix", "encoded_labels"]

Ints = npt.NDArray[np.int64]
_MOST_SERIES = 1 << 19
"""Beyond this the memory of series is emptied, and what is still there comes in again."""
_SUFFIX_BITS = 20
_DIMENSIONS = 8
_KINDS = {
    MetricType.GAUGE: Kind.GAUGE,
    MetricType.SUM: Kind.GAUGE,
    MetricType.HISTOGRAM: Kind.HISTOGRAM,
    MetricType.EXPONENTIAL_HISTOGRAM: Kind.HISTOGRAM,
    MetricType.SUMMARY: Kind.SUMMARY,
}
Suffix = tuple[str, str, str]
"""What a sample's name ends with, and the name and value of its own label, where it has one."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family.

    Attributes:
        name: Its name, with suffixes; a histogram's samples have further ones.
        kind: Its type.
        unit: Its unit in words.
        help: Its description.
    """

    name: str
    kind: Kind
    unit: str
    help: str


class SeriesLabels:
    """All series seen by one sink, up to a limit.

    Attributes:
        generation: Changes when the memory is emptied: numbers of before mean nothing then.
    """

    def __init__(self, settings: LabelSettings) -> None:
        """Begin without any."""
        self._settings = settings
        self.generation = 0
        self._suffixes: dict[Suffix, int] = {}
        self._empty()

    def _empty(self) -> None:
        self.generation += 1
        self._table = SeriesTable([pa.string()] * _DIMENSIONS, max_series=_MOST_SERIES)
        self._bases: list[tuple[str, list[tuple[str, str]]]] = []
        self._keys = Vocabulary(pa.int64())
        self._ids = np.empty(0, np.int64)  # of each key: keys with equal labels are one series
        self._places: dict[bytes, int] = {}
        self._blobs: pa.Array = pa.array([], pa.binary())

    def slots(self, batch: TelemetryBatch) -> Ints:
        """Return each point's slot."""
        columns = _identity(batch)
        found = self._table.slots(columns)
        if self._table.overflowed.any():
            self._empty()
            found = self._table.slots(columns)
        new = len(self._table) - len(self._bases)
        if new:
            decoded = self._table.decode(np.arange(len(self._bases), len(self._table)))
            rows = zip(*(column.to_pylist() for column in decoded), strict=True)
            self._bases += [self._base(row) for row in rows]
        return found

    def suffix(self, suffix: Suffix) -> int:
        """Return the number of a suffix."""
        return self._suffixes.setdefault(suffix, len(self._suffixes))

    def keys(self, slots: Ints, suffixes: Ints | int) -> Ints:
        """Return the number of each series, of its slot and suffix."""
        return np.asarray((slots << _SUFFIX_BITS) | suffixes)

    def of_slots(self, slots: Ints) -> tuple[Ints, Ints]:
        """Return, for slots, all series seen: which of `slots` each belongs to, and its number."""
        known = self._keys.values.to_numpy()
        order = np.argsort(known, kind="stable")
        of_slot = known[order] >> _SUFFIX_BITS
        first, last = np.searchsorted(of_slot, slots, "left"), np.searchsorted(of_slot, slots, "right")
        counts = last - first
        places = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return np.repeat(np.arange(len(slots)), counts), known[order[places]]

    def ids(self, keys: Ints) -> Ints:
        """Return the series that each key stands for: one for all whose labels are the same."""
        codes = self._keys.codes(pa.array(keys, pa.int64()))
        if codes.size and codes.min() < 0:
            before, known = len(self._keys), len(self._places)
            codes = self._keys.add(pa.array(keys, pa.int64()))
            suffixes = list(self._suffixes)
            new = self._keys.values.to_numpy()[before:].tolist()
            made = [encoded_labels(self.labels(key, suffixes)) for key in new]
            ids = [self._places.setdefault(blob, len(self._places)) for blob in made]
            self._ids = np.concatenate([self._ids, np.array(ids, np.int64)])
            self._blobs = pa.concat_arrays([self._blobs, pa.array(list(self._places)[known:], pa.binary())])
        return np.asarray(self._ids[codes])

    def blobs(self, ids: Ints) -> pa.Array:
        """Return the labels of each series, as they stand in a request."""
        return self._blobs.take(pa.array(ids))

    def labels(self, key: int, suffixes: Sequence[Suffix] | None = None) -> list[tuple[str, str]]:
        """Return the labels of a series, its name first."""
        ending, name, value = (suffixes or list(self._suffixes))[key & ((1 << _SUFFIX_BITS) - 1)]
        family, labels = self._bases[key >> _SUFFIX_BITS]
        own = [(name, value)] if name else []
        # A label that says which bucket this is stands above an attribute of that name.
        return [("__name__", family + ending), *(pair for pair in labels if pair[0] != name), *own]

    def family(self, name: str, unit: str, kind: int, description: str, *, monotonic: bool) -> Family:
        """Return the family of a metric."""
        chosen = _kind(kind, monotonic=monotonic)
        named = family_name(name, unit, chosen, suffixes=self._settings.add_metric_suffixes)
        return Family(named, chosen, unit, description)

    def target(self, tenant: str | None, resource: str | None) -> tuple[dict[str, str], dict[str, str]]:
        """Return a resource's identifying labels, and those that `target_info` has besides."""
        attributes = label_set(resource or "{}")
        service, namespace = attributes.pop("service_name", ""), attributes.pop("service_namespace", "")
        instance = attributes.pop("service_instance_id", "")
        known = {"job": f"{namespace}/{service}" if namespace and service else service, "instance": instance}
        if tenant and self._settings.tenant_label:
            known[self._settings.tenant_label] = tenant
        return {name: text for name, text in known.items() if text} | dict(self._settings.external_labels), attributes

    def _base(self, row: Sequence[str | None]) -> tuple[str, list[tuple[str, str]]]:
        tenant, resource, scope, version, name, unit, kind, attributes = row
        number, monotonic = divmod(int(kind or 0), 2)
        family = self.family(name or "", unit or "", number, "", monotonic=bool(monotonic))
        identity, further = self.target(tenant, resource)
        promoted = {label: further[label] for label in self._settings.promoted if label in further}
        scoped = {"otel_scope_name": scope, "otel_scope_version": version} if self._settings.scope_labels else {}
        labels = promoted | label_set(attributes or "{}") | {k: v for k, v in scoped.items() if v} | identity
        return family.name, list(labels.items())


def encoded_labels(labels: Sequence[tuple[str, str]]) -> bytes:
    """Return labels as fields of a TimeSeries, sorted as receivers want them."""
    out = bytearray()
    for name, value in sorted((name.encode(), value.encode()) for name, value in labels):
        label = b"\x0a" + varint(len(name)) + name + b"\x12" + varint(len(value)) + value
        out += b"\x0a" + varint(len(label)) + label
    return bytes(out)


def _kind(number: int, *, monotonic: bool) -> Kind:
    if number == MetricType.SUM and monotonic:
        return Kind.COUNTER
    return _KINDS.get(MetricType(number), Kind.UNKNOWN)


def _identity(batch: TelemetryBatch) -> list[pa.Array]:
    """What tells series apart; what belongs to resource and scope is worked out once for each of them."""
    records, resources, scopes = batch.records, batch.resources, batch.scopes

    def spread(place: str, values: pa.Array) -> pa.Array:
        return pa.DictionaryArray.from_arrays(records[place], values, safe=False)

    kind = records["type"].to_numpy().astype(np.int64) * 2 + records["is_monotonic"].to_numpy(zero_copy_only=False)
    return [
        spread("resource", resources["tenant"]),
        spread("resource", attributes_json(resources["attributes"])),
        spread("scope", scopes["name"]),
        spread("scope", scopes["version"]),
        records["name"].dictionary_encode(),
        records["unit"].dictionary_encode(),
        pa.array(kind).cast(pa.string()).dictionary_encode(),
        attributes_json(records["attributes"]),
    ]
