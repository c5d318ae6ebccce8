"""`gateway`: OTLP in, governed, aggregated, and out to any number of destinations.

    receive → coalesce → partition by tenant → drop → edit → redact ─→ tail sampling ─→ exporters, archive, console
                                                                 │  └─→ span metrics, aggregations ─→ (the same)
                                                                 └ what could not be judged ─→ quarantine

Every part is optional and built from `GatewaySettings`, which is what `telflow.yaml` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream, operator
from bytewax.outputs import FixedPartitionedSink
from pydantic import Field, StringConstraints, model_validator

from connectors.archive import ArchiveSettings
from connectors.console import ConsoleSettings
from connectors.intake_source import IntakeSource
from connectors.kafka import KafkaExporterSettings, KafkaReceiverSettings, KafkaSource, is_place
from connectors.merged_source import MergedSource
from connectors.otlp import OtlpExporterSettings, OtlpReceiverSettings
from connectors.placed_sink import PlacedSink
from connectors.prometheus import ExposeSettings, PrometheusExporterSettings
from connectors.quarantine import QuarantineSettings, QuarantineSink
from flows.gateway_metrics import at_end, convert_metrics, make_metrics, tenant_of
from flows.gateway_sinks import sinks_of
from flows.telemetry_settings import TelemetrySettings
from operators import (
    CoalesceSettings,
    CountSettings,
    CumulativeToDeltaSettings,
    DeltaToCumulativeSettings,
    EditAttributesSettings,
    FilterSettings,
    LogMetricsSettings,
    ReaggregateSettings,
    RedactSettings,
    ServiceGraphSettings,
    SpanMetricsSettings,
    SumSettings,
    TailSamplingSettings,
    coalesce,
    edit_attributes,
    filter_records,
    partition,
    redact,
    tail_sampling,
    tap,
)
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.aggregation import AggregateSettings
from telflow.batch import TelemetryBatch
from telflow.condition import Condition
from telflow.delivery.committed import CommittedStates
from telflow.delivery.committed_here import CommittedHere
from telflow.delivery.dead_letters import DeadLetterSettings
from telflow.delivery.intake import Intake
from telflow.delivery.outgoing import IN_MEMORY, Outgoing
from telflow.delivery.storage import StorageSettings
from telflow.governance import Redactor
from telflow.memory_budget import MemorySettings
from telflow.placement import Placement, key_at
from telflow.sampling import Function, leaves
from telflow.schema import Signal
from telflow.settings import Duration, Settings, Switchable

__all__ = [
    "FLOW_ID",
    "GatewaySettings",
    "IntakeSettings",
    "ReceiversSettings",
    "Share",
    "build",
    "check",
    "deliver",
    "tenant_of",
]

Sink = FixedPartitionedSink[TelemetryBatch, Any]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_/-]*$")]

FLOW_ID = "gateway"
"""Name of the dataflow, and of its folder in the user's state home."""
_EPOCH = timedelta(seconds=1)
_LINGER = timedelta(milliseconds=30)
"""How long what was received waits for more, where it would wait in `coalesce` next, whose default is 200 ms."""
_ARCHIVE_EPOCH = timedelta(seconds=10)
_INTAKE = "intake"
_WAIT_S = 0.02
_WAIT_BESIDE_PEERS_S = 0.005


class ReceiversSettings(Settings):
    """How data comes in."""

    otlp: OtlpReceiverSettings = OtlpReceiverSettings()
    """OTLP over gRPC and HTTP."""

    kafka: Switchable[KafkaReceiverSettings] = None
    """OTLP messages from Kafka; needs a folder (`storage`), where offsets are kept."""


class IntakeSettings(Settings):
    """What waits in memory between the receivers and the flow."""

    max_bytes: int = Field(default=256 << 20, ge=1 << 20)
    """Memory for received data. When it is spent, what comes is read back later from the disk (`storage`); without one,
    senders are told to come back later (UNAVAILABLE, 503)."""

    retry_after: Duration = timedelta(seconds=1)
    """When they are told to come back."""


class GatewaySettings(Settings):
    """A gateway. Every part is optional; without any, it redacts, makes span metrics and prints a summary."""

    receivers: ReceiversSettings = ReceiversSettings()
    """How data comes in."""

    intake: IntakeSettings = IntakeSettings()
    """What waits in memory."""

    coalesce: Switchable[CoalesceSettings] = CoalesceSettings()
    """Puts small requests together to batches of a size that is quick to work on; false: each request by itself."""

    drop: tuple[Condition, ...] = ()
    """Records that are not wanted: each that fits one of these conditions is dropped and counted."""

    edit_attributes: Switchable[EditAttributesSettings] = None
    """Adds, renames and removes attributes."""

    redact: Switchable[RedactSettings] = RedactSettings()
    """Removes personal data and secrets before anything leaves; false: what came in goes out."""

    span_metrics: Switchable[SpanMetricsSettings] = SpanMetricsSettings()
    """Makes request, error and duration metrics of spans, before any are left out; false: none."""

    count: Switchable[CountSettings] = None
    """Counts spans, span events, metrics, data points and log records, as the Collector's `count` connector does."""

    sum: Switchable[SumSettings] = None
    """Adds up attributes of records, as the Collector's `sum` connector does."""

    log_metrics: Switchable[LogMetricsSettings] = None
    """Makes metrics of numbers in log records."""

    aggregate: Mapping[Name, AggregateSettings] = {}
    """Aggregations of any signal by name: what is measured, by which keys, in which windows."""

    service_graph: Switchable[ServiceGraphSettings] = None
    """Makes metrics of the requests between services, of the spans at both ends, before any are left out."""

    tail_sampling: Switchable[TailSamplingSettings] = None
    """Keeps whole traces or drops them, by policies; with a `storage` on disk open traces survive a restart."""

    memory: MemorySettings = MemorySettings()
    """What the whole process may take."""

    reaggregate: Switchable[ReaggregateSettings] = None
    """Leaves attributes out of metrics and merges the points that then belong together."""

    delta_to_cumulative: Switchable[DeltaToCumulativeSettings] = None
    """Turns delta sums and histograms into totals, as Prometheus wants them; with a `storage` on disk they survive a
    restart."""

    cumulative_to_delta: Switchable[CumulativeToDeltaSettings] = None
    """Turns totals into deltas, for backends that add up for themselves."""

    exporters: Mapping[Name, OtlpExporterSettings] = {}
    """OTLP destinations by name. Each gets everything, with requests, retries and counts of its own."""

    kafka: Mapping[Name, KafkaExporterSettings] = {}
    """Kafka clusters by name. Each gets everything, as OTLP messages."""

    prometheus: Mapping[Name, PrometheusExporterSettings] = {}
    """Prometheus servers by name, and what else takes remote write. Each gets the metrics."""

    expose: Switchable[ExposeSettings] = None
    """Shows the metrics at the telemetry port's `/metrics`, for Prometheus to scrape."""

    archive: Switchable[ArchiveSettings] = None
    """Keeps everything as Delta tables, to be queried and replayed."""

    console: Switchable[ConsoleSettings] = None
    """Shows what goes out; on without being asked where nothing else takes it."""

    quarantine: QuarantineSettings = QuarantineSettings()
    """Where records go that could not be redacted."""

    storage: StorageSettings = StorageSettings()
    """Where what was received survives a crash, and the flow's state (open windows, open traces) a restart."""

    dead_letters: Switchable[DeadLetterSettings] = DeadLetterSettings()
    """Keeps what destinations refuse for good, in the storage folder; false: it is only counted."""

    telemetry: Switchable[TelemetrySettings] = TelemetrySettings()
    """What the gateway says about itself; false: no port for it is opened and nothing sent."""

    epoch: Duration | None = Field(default=None, ge=timedelta(milliseconds=10))
    """How often state is saved, and sinks flush that have no queue on disk. By default 1s; 10s with an archive that has
    none (``storage: {durability: memory}``), whose every flush makes files."""

    epoch_max_bytes: int = Field(default=512 << 20, ge=1 << 20)
    """Bytes that a source brings into the flow in one epoch, so that a slow destination, for which the end of an epoch
    waits, does not find more than this in front of it."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: object) -> object:
        if isinstance(values, Mapping) and "recovery_dir" in values:
            raise ValueError("recovery_dir: expected storage.dir instead; the flow's state is in its folder `recovery`")
        return values

    @model_validator(mode="after")
    def _check(self) -> GatewaySettings:
        for leaf in leaves(self.tail_sampling.policies) if self.tail_sampling is not None else ():
            if isinstance(leaf, Function):
                raise ValueError(f"tail_sampling: function {leaf.name!r}: expected policies that a file can hold")  # noqa: TRY004 - pydantic's
        if self.span_metrics is not None and self.span_metrics.late != "drop":
            raise ValueError("span_metrics: expected late: drop, as nothing takes late spans here, got side_output")
        for name, aggregation in self.aggregate.items():
            # Metrics have no place for results that replace each other, and here nothing else takes late records.
            if aggregation.late != "drop" or aggregation.early is not None:
                raise ValueError(f"aggregate: expected late: drop and no early results, got others in {name}")
        if self.delta_to_cumulative is not None and self.cumulative_to_delta is not None:
            raise ValueError("cumulative_to_delta: expected one of it and delta_to_cumulative, got both")
        if self.expose is not None and self.telemetry is None:
            raise ValueError("expose: expected telemetry, at whose port metrics are shown, got telemetry: false")
        if self.receivers.kafka is not None and self.recovery_dir is None:
            raise ValueError("receivers.kafka: expected storage.dir too, where the flow keeps the offsets it has read")
        return self

    @property
    def recovery_dir(self) -> Path | None:
        """Folder in which the flow's state survives a restart; None: a stop closes all windows."""
        return self.storage.recovery_dir(FLOW_ID)

    @property
    def epoch_interval(self) -> timedelta:
        """`epoch`, or the default for these parts."""
        makes_files = self.archive is not None and self.storage.durability == "memory"
        return self.epoch or (_ARCHIVE_EPOCH if makes_files else _EPOCH)

    @property
    def queue_bytes(self) -> int:
        """Bytes that the queues of all destinations may take on disk together, compressed."""
        queued = (*self.exporters.values(), *self.prometheus.values())
        sizes = [exporter.sending_queue.queue_size for exporter in queued]
        return sum(sizes) + (self.archive.queue_size if self.archive is not None else 0)


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part of a gateway that runs, or has run, in a cluster.

    Attributes:
        placement: Which places it has.
        recovery_dir: Where the engine keeps the cluster's state.
        committed: What is committed of its sinks.
        left_over: What workers that are no more have left at the places that it empties.
    """

    placement: Placement
    recovery_dir: Path | None
    committed: CommittedHere
    left_over: Mapping[str, tuple[Intake, Outgoing]]


def build(
    settings: GatewaySettings,
    intake: Intake,
    *,
    outgoing: Outgoing = IN_MEMORY,
    ledger: Ledger = LEDGER,
    flow_id: str = FLOW_ID,
    share: Share | None = None,
) -> Dataflow:
    """Return the gateway's dataflow; the caller runs a receiver that fills `intake`.

    It ends when `intake` is closed and empty, and a Kafka source has been stopped.

    Args:
        settings: Which parts, and their options.
        intake: Where received batches come from.
        outgoing: Where what is not delivered yet survives.
        ledger: Where outcomes are counted.
        flow_id: Name of the dataflow; recovery knows it by that.
        share: This worker's part of a cluster; None: there is no other worker, and never was.

    Raises:
        ConfigError: A part cannot be set up: a folder is not writable, a pattern does not compile.
        ArchiveError: The archive is damaged.
    """
    flow = Dataflow(flow_id)
    recovery_dir = settings.recovery_dir if share is None else share.recovery_dir
    source = _source(settings, intake, outgoing, ledger, f"{flow_id}.receive", share)
    stream: Stream[TelemetryBatch] = op.input("receive", flow, source)
    if settings.coalesce is not None:
        by_signal = op.key_on("by_signal", stream, _signal_keys(share))
        stream = op.key_rm("coalesced", coalesce("coalesce", by_signal, settings.coalesce))
    stream = op.key_rm("partitioned", partition("partition", stream, "tenant"))
    for number, condition in enumerate(settings.drop):
        options = FilterSettings(signals=condition.signals, reason=condition.reason)
        stream = filter_records(f"drop_{number}", stream, condition.others, options, ledger)
    if settings.edit_attributes is not None:
        stream = edit_attributes("edit_attributes", stream, settings.edit_attributes)
    if settings.redact is not None:
        redacted = redact("redact", stream, settings.redact, ledger)
        kept_apart = _shared(
            lambda _: {"quarantine": QuarantineSink(settings.quarantine, ledger=ledger)}, outgoing, share
        )
        deliver("quarantine", redacted.quarantined, kept_apart["quarantine"], share=share)
        stream = redacted.kept
    keeps_state = recovery_dir is not None
    metrics = make_metrics(settings, stream, ledger, keeps_state=keeps_state)
    if settings.tail_sampling is not None:
        # Batches are held as they come, each of one tenant; so what comes out of them is, too.
        stream = tail_sampling(
            "tail_sampling", stream, at_end(settings.tail_sampling, keeps_state=keeps_state), ledger=ledger
        )
    if metrics:
        unkeyed = [op.key_rm(name, made) for name, made in metrics.items()]
        stream = op.merge("with_metrics", stream, *unkeyed)
    stream = convert_metrics(settings, stream, ledger, keeps_state=keeps_state)
    sinks = _shared(lambda out: sinks_of(settings, out, ledger), outgoing, share)
    takes_metrics = {"expose", *(f"prometheus_{name}" for name in settings.prometheus)}
    for number, (name, sink) in enumerate(sinks.items()):
        # What takes metrics only need not be handed the rest, unless nobody else is there to account for it.
        chosen = op.filter(f"for_{name}", stream, _is_metrics) if number and name in takes_metrics else stream
        deliver(name, chosen, sink, copies=ledger if number else None, share=share)
    return flow


def _is_metrics(batch: TelemetryBatch) -> bool:
    return batch.signal is Signal.METRICS


def _intake_source(settings: GatewaySettings, intake: Intake, share: Share | None) -> IntakeSource:
    linger_s = min(_LINGER, settings.coalesce.timeout).total_seconds() if settings.coalesce is not None else 0.0
    if share is None:
        return IntakeSource(intake, linger_s=linger_s, epoch_budget_bytes=settings.epoch_max_bytes)
    placement = share.placement
    wait_s = _WAIT_S if placement.workers == 1 else _WAIT_BESIDE_PEERS_S
    return IntakeSource(
        intake,
        partition=placement.named(_INTAKE, placement.own),
        wait_s=wait_s,
        linger_s=min(wait_s, linger_s),
        epoch_budget_bytes=settings.epoch_max_bytes,
        others={placement.named(_INTAKE, place): left for place, (left, _) in share.left_over.items()},
        on_committed=share.committed.commit,
        epoch_s=settings.epoch_interval.total_seconds() if placement.workers > 1 else None,
    )


def _signal_keys(share: Share | None) -> Callable[[TelemetryBatch], str]:
    if share is None:
        return lambda batch: batch.signal.value
    placement = share.placement
    # What is gathered may be gathered anywhere, so it is where it came in: nothing need cross processes for it.
    keys = {signal: key_at(signal.value, placement.worker, placement.workers) for signal in Signal}
    return lambda batch: keys[batch.signal]


def _shared(
    make: Callable[[Outgoing], Mapping[str, Sink]], outgoing: Outgoing, share: Share | None
) -> Mapping[str, Sink]:
    """Make sinks, in a cluster at each place of this worker."""
    if share is None:
        return make(outgoing)
    left_over = {place: make(left) for place, (_, left) in share.left_over.items()}
    by_place = {share.placement.own: make(outgoing), **left_over}
    return {
        name: PlacedSink(share.placement, {place: sinks[name] for place, sinks in by_place.items()}, share.committed)
        for name in by_place[share.placement.own]
    }


@operator
def deliver(
    step_id: str, up: Stream[TelemetryBatch], sink: Sink, copies: Ledger | None = None, share: Share | None = None
) -> None:
    """Hand batches to one of several sinks.

    Args:
        step_id: Unique ID.
        up: Batches, each of one tenant. All sinks get the same objects.
        sink: Where they go.
        copies: Counts what the sink gets as copies, which all sinks but one of a stream get; None for that one.
        share: This worker's part of a cluster, in which data leaves from the worker it is on.
    """
    if copies is not None:

        def count(batch: TelemetryBatch) -> None:
            copies.add_batch(Outcome.DERIVED, batch, component=step_id, reason="copy")

        up = tap("copies", up, count)
    if share is None:
        op.output("write", op.key_on("by_tenant", up, tenant_of), sink)
        return
    own = share.placement.own
    op.output("write", op.key_on("by_place", up, lambda _: own), sink)


def check(settings: GatewaySettings) -> None:
    """Find what only setting up the parts would find, without opening or writing anything.

    Raises:
        ConfigError: A pattern does not compile, a secret is missing.
    """
    if settings.redact is not None:
        Redactor(settings.redact)


def _source(  # noqa: PLR0917 - what `build` was given
    settings: GatewaySettings,
    intake: Intake,
    outgoing: Outgoing,
    ledger: Ledger,
    step_id: str,
    share: Share | None,
) -> IntakeSource | MergedSource:
    received = _intake_source(settings, intake, share)
    recovery_dir = settings.recovery_dir if share is None else share.recovery_dir
    kafka: list[KafkaSource] = []
    if settings.receivers.kafka is not None:
        # Nobody is told that a message cannot be decoded, so it is kept where anything is.
        source = KafkaSource(
            settings.receivers.kafka,
            recovery_dir=recovery_dir,
            epoch_budget_bytes=settings.epoch_max_bytes,
            dead_letters=outgoing.dead_letters,
            ledger=ledger,
        )
        kafka.append(source)
    retired = _read_before(recovery_dir, step_id)
    return MergedSource(received, *kafka, retired=retired) if kafka or retired else received


def _read_before(recovery_dir: Path | None, step_id: str) -> list[str]:
    """Return which partitions of Kafka's topics earlier runs have read."""
    if recovery_dir is None or not recovery_dir.exists():
        return []
    with CommittedStates(recovery_dir) as states:
        return [name for name in states.keys(step_id) if is_place(name)]
