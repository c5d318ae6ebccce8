"""The newest value of every series that passes, to be scraped: Prometheus' text format, 0.0.4."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from pydantic import Field
from typing_extensions import override

from connectors.prometheus.names import Kind
from connectors.prometheus.remote_write import Refusal, acceptable, values_of
from connectors.prometheus.samples import STALE, float_samples
from connectors.prometheus.series_labels import Family, SeriesLabels
from connectors.prometheus.settings import LabelSettings
from connectors.prometheus.wire import join
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.attributes_json import attributes_json
from telflow.batch import TelemetryBatch
from telflow.schema import MetricType, Signal
from telflow.settings import Duration

__all__ = ["ExposeSettings", "ExpositionSink"]

Ints = npt.NDArray[np.int64]

_TYPES = {Kind.COUNTER: "counter", Kind.GAUGE: "gauge", Kind.HISTOGRAM: "histogram", Kind.SUMMARY: "summary"}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})


class ExposeSettings(LabelSettings):
    """Shows the metrics that a gateway makes and receives at its own `/metrics`."""

    metric_expiration: Duration = Field(default=timedelta(minutes=5), gt=timedelta())
    """A series without a new value for so long is not shown any more."""


class ExpositionSink(FixedPartitionedSink[TelemetryBatch, None]):
    """Keeps what is to be scraped in memory; what a restart forgets comes again with the next value.

    Exponential histograms, which the text format does not know, delta points, and records that are no metrics are
    dropped and counted.
    """

    def __init__(
        self,
        settings: ExposeSettings,
        *,
        ledger: Ledger = LEDGER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing to show.

        Args:
            settings: Names, labels, and for how long values are shown.
            ledger: Where shown and dropped records are counted.
            clock: Monotonic seconds.
        """
        self._series = SeriesLabels(settings)
        self._expiration_s = settings.metric_expiration.total_seconds()
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """Begin anew, as the series do when there are too many; so all that is kept here is as bounded as they are."""
        self._generation = self._series.generation
        self._families: dict[str, tuple[int, Family]] = {}  # by name; the first of a name says what it is
        self._targets: dict[str, float] = {}
        self._texts: pa.Array = pa.array([], pa.binary())
        self._family, self._values, self._seen_s = np.empty(0, np.int64), np.empty(0), np.empty(0)

    def show(self, batch: TelemetryBatch) -> list[Refusal]:
        """Take in the values of data points; returns those that cannot be shown."""
        fits, refusals = _showable(batch)
        with self._lock:
            slots = self._series.slots(fits)
            if self._series.generation != self._generation:
                self._forget()
            samples = float_samples(fits.records, slots, self._series)
            ids = self._series.ids(samples.keys)
            now_s = self._clock()
            if ids.size and int(ids.max()) >= len(self._values):
                self._admit(fits, samples.keys, samples.rows, ids)
            self._values[ids] = samples.values
            ended = samples.values.view(np.uint64) == np.array(STALE).view(np.uint64)
            self._seen_s[ids] = np.where(ended, -np.inf, now_s)
            self._note_targets(fits, now_s)
        return refusals

    def render(self) -> bytes:
        """Return what is to be scraped now; may be called by any thread."""
        with self._lock:
            oldest_s = self._clock() - self._expiration_s
            shown = np.flatnonzero(self._seen_s > oldest_s)
            shown = shown[np.argsort(self._family[shown], kind="stable")]
            of, texts, values = self._family[shown], self._texts.take(pa.array(shown)), self._values[shown]
            families = [family for _, family in self._families.values()]
            self._targets = {text: seen_s for text, seen_s in self._targets.items() if seen_s > oldest_s}
            targets = list(self._targets)
        lines = join(texts, pa.array(values).cast(pa.string()).cast(pa.binary()), pa.scalar(b"\n", pa.binary()))
        out = []
        starts = np.flatnonzero(np.diff(of, prepend=-1))
        for start, end in itertools.pairwise([*starts.tolist(), len(of)]):
            out += [_head(families[int(of[start])]), values_of(lines.slice(start, end - start))]
        if targets:
            head = _head(Family("target_info", Kind.GAUGE, "", "Attributes of what the metrics are of."))
            out += [head, *(f"target_info{text} 1\n".encode() for text in targets)]
        return b"".join(out)

    @override
    def list_parts(self) -> list[str]:
        return ["exposition"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _ExpositionPartition:
        return _ExpositionPartition(self, step_id, self._ledger)

    def _admit(self, batch: TelemetryBatch, keys: Ints, rows: Ints, ids: Ints) -> None:
        """Give new series their text and family."""
        known = len(self._values)
        distinct, first = np.unique(ids, return_index=True)
        new = first[distinct >= known]
        count = int(distinct.max()) + 1
        texts = {int(ids[at]): _text(self._series.labels(int(keys[at]))).encode() + b" " for at in new.tolist()}
        # A number that nothing here has was given to a series of another kind of sample.
        made = [texts.get(number, b"") for number in range(known, count)]
        self._texts = pa.concat_arrays([self._texts, pa.array(made, pa.binary())])
        grown = count - known
        self._values = np.concatenate([self._values, np.zeros(grown)])
        self._seen_s = np.concatenate([self._seen_s, np.full(grown, -np.inf)])
        self._family = np.concatenate([self._family, np.zeros(grown, np.int64)])
        some = batch.records.select(["name", "unit", "type", "description", "is_monotonic"])
        for number, row in zip(ids[new].tolist(), some.take(pa.array(rows[new])).to_pylist(), strict=True):
            family = self._series.family(
                row["name"], row["unit"], row["type"], row["description"], monotonic=row["is_monotonic"]
            )
            self._family[number] = self._families.setdefault(family.name, (len(self._families), family))[0]

    def _note_targets(self, batch: TelemetryBatch, now_s: float) -> None:
        resources = batch.resources
        texts = attributes_json(resources["attributes"]).to_pylist()
        for tenant, text in zip(resources["tenant"].to_pylist(), texts, strict=True):
            identity, further = self._series.target(tenant, text)
            if further and {"job", "instance"} & identity.keys():
                self._targets[_text([("__name__", ""), *(further | identity).items()])] = now_s


class _ExpositionPartition(StatefulSinkPartition[TelemetryBatch, None]):
    def __init__(self, sink: ExpositionSink, step_id: str, ledger: Ledger) -> None:
        self._sink = sink
        self._step_id = step_id
        self._ledger = ledger

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        add = self._ledger.add_batch
        for batch in values:
            if batch.signal is not Signal.METRICS:
                add(Outcome.DROPPED, batch, component=self._step_id, reason="not metrics")
                continue
            refusals = self._sink.show(batch)
            for refusal in refusals:
                add(Outcome.DROPPED, refusal.batch, component=self._step_id, reason=refusal.reason)
            shown = _showable(batch)[0] if refusals else batch
            add(Outcome.DELIVERED, shown, component=self._step_id)

    @override
    def snapshot(self) -> None:
        return None


def _showable(batch: TelemetryBatch) -> tuple[TelemetryBatch, list[Refusal]]:
    fits, refusals = acceptable(batch)
    native = fits.records["type"].to_numpy() == MetricType.EXPONENTIAL_HISTOGRAM
    if native.any():
        refusals = [*refusals, Refusal(fits.take(np.flatnonzero(native)), "exponential histogram in text")]
        fits = fits.take(np.flatnonzero(~native))
    return fits, refusals


def _text(labels: list[tuple[str, str]]) -> str:
    (_, name), *others = labels
    inside = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in others)
    return f"{name}{{{inside}}}" if inside else name


def _head(family: Family) -> bytes:
    shown = f"# HELP {family.name} {family.help.translate(_HELP_ESCAPES)}\n" if family.help else ""
    return f"{shown}# TYPE {family.name} {_TYPES.get(family.kind, 'untyped')}\n".encode()
