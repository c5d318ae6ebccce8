"""Find sensitive text wherever a batch can hold it, and remove it before anything leaves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import bytewax.operators as op
import pyarrow.compute as pc
from bytewax.dataflow import Stream, operator

from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.governance import Redactor, RedactSettings

__all__ = ["RedactOut", "RedactSettings", "Redacted", "redact", "redact_batch"]

_LOG = logging.getLogger(__name__)

_UNDECODABLE = "undecodable value"
_KERNEL_FAILED = "redaction failed"


@dataclass(frozen=True, slots=True)
class Redacted:
    """A batch after redaction.

    Attributes:
        kept: The records that may go on; the very same object as came in when nothing was found.
        quarantined: The records, untouched, that could not be judged and must not go on; None when there are none.
        counts: How often each rule acted in each place: {(rule, place): number}.
        reason: Why records are quarantined, in a fixed word or two, and what kind of error it was; never the data.
    """

    kept: TelemetryBatch
    quarantined: TelemetryBatch | None = None
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RedactOut:
    """Streams out of `redact`.

    Attributes:
        kept: Redacted batches; a batch of which nothing is left does not appear.
        quarantined: Records that could not be judged, as they came: sensitive, for a sink that may hold such data.
    """

    kept: Stream[TelemetryBatch]
    quarantined: Stream[TelemetryBatch]


def redact_batch(batch: TelemetryBatch, redactor: Redactor) -> Redacted:
    """Remove what the redactor's rules find in a batch of any signal. Pure, and fails closed.

    A record that holds something unreadable (nested bytes that are no AnyValue) is quarantined by itself; should the
    kernel fail, the whole batch is. Nothing is raised for data, and no message quotes it.
    """
    try:
        done = redactor.redact(batch)
        if done.failed is None:
            return Redacted(done.batch, None, done.counts)
        # compact: a resource that could not be judged must not stay behind unused
        kept = done.batch.filter(pc.invert(done.failed)).compact()
        if kept.num_rows == batch.num_rows:  # only a resource or scope that no record refers to
            return Redacted(kept, None, done.counts)
        return Redacted(kept, batch.filter(done.failed), done.counts, _UNDECODABLE)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 (a Rust panic is none of Exception; nothing unjudged may pass)
        reason = f"{_KERNEL_FAILED} ({type(error).__name__})"
        return Redacted(TelemetryBatch.empty(batch.signal), batch, {}, reason)


@operator
def redact(
    step_id: str,
    up: Stream[TelemetryBatch],
    settings: RedactSettings,
    ledger: Ledger = LEDGER,
) -> RedactOut:
    """Remove sensitive text from every batch.

    Args:
        step_id: Unique id of the step.
        up: Batches of any signals.
        settings: What to look for and what to do.
        ledger: Where quarantined records are counted.

    Returns:
        Redacted batches, and the records that could not be judged.

    Raises:
        ConfigError: The settings cannot be compiled.
    """
    redactor = Redactor(settings)

    def split(batch: TelemetryBatch) -> list[tuple[bool, TelemetryBatch]]:
        done = redact_batch(batch, redactor)
        out = [(True, done.kept)] if done.kept.num_rows else []
        if done.quarantined is not None:
            ledger.add_batch(Outcome.QUARANTINED, done.quarantined, component=step_id, reason=done.reason)
            _LOG.warning("%s: %d records quarantined: %s", step_id, done.quarantined.num_rows, done.reason)
            out.append((False, done.quarantined))
        return out

    def is_kept(item: tuple[bool, TelemetryBatch]) -> bool:
        return item[0]

    def batch_of(item: tuple[bool, TelemetryBatch]) -> TelemetryBatch:
        return item[1]

    parts = op.branch("branch", op.flat_map("split", up, split), is_kept)
    return RedactOut(op.map("kept", parts.trues, batch_of), op.map("quarantined", parts.falses, batch_of))
