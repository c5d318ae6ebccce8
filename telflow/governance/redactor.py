"""`Redactor`: settings compiled into the native kernel, and what it makes of a batch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from telflow import _native
from telflow.batch import TelemetryBatch
from telflow.errors import ConfigError
from telflow.governance.detectors import DETECTORS
from telflow.governance.exactness import is_exact
from telflow.governance.numbering import CARD_ISSUERS, IBAN_ACCOUNTS, NOT_DOMAINS
from telflow.governance.settings import DEFAULT_KEYS, HashKey, RedactSettings

__all__ = ["Finding", "Redaction", "Redactor"]

_MIN_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """Sensitive text in a text.

    Attributes:
        detector: Name of the detector or pattern.
        start: Offset of its first byte in the text's UTF-8 form.
        end: Offset behind its last byte.
    """

    detector: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Redaction:
    """What became of a batch.

    Attributes:
        batch: The batch without what was found; the very same object when there was nothing to do.
        failed: For each record whether it could not be judged (such records stand unredacted in `batch`); None when
            all could be.
        counts: How often each rule acted in each place: {(rule, place): number}.
    """

    batch: TelemetryBatch
    failed: pa.BooleanArray | None
    counts: Mapping[tuple[str, str], int]


class Redactor:
    """Rules compiled once, applied to any number of batches by any number of threads.

    >>> from telflow.governance.settings import RedactSettings
    >>> redactor = Redactor(RedactSettings())
    >>> redactor.replace("mail to jane@example.com, card 4111 1111 1111 1111")
    'mail to [EMAIL], card [CARD]'
    >>> redactor.find("jane@example.com")
    [Finding(detector='email', start=0, end=16)]

    Raises:
        ConfigError: A pattern is no regular expression, or the secret of the hash cannot be had.
    """

    def __init__(self, settings: RedactSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        keys = (*settings.keys, *(DEFAULT_KEYS if settings.default_keys else ()))
        try:
            self._native = _native.Redactor(
                rules=_rules(settings),
                keys=[(f"key {rule.key}", rule.key, rule.label, rule.action) for rule in keys],
                hash_key=_secret(settings.hash_key, environ),
                hash_digits=settings.hash_digits,
                issuers=[(first, last, list(lengths)) for first, last, lengths in CARD_ISSUERS],
                ibans=list(IBAN_ACCOUNTS),
                not_domains=list(NOT_DOMAINS),
                skipped_places=list(settings.skipped_places()),
            )
        except ValueError as error:
            raise ConfigError(f"redact: {error}") from None

    def redact(self, batch: TelemetryBatch) -> Redaction:
        """Replace what the rules find anywhere in the batch.

        Raises:
            RuntimeError: The batch is malformed. The message does not quote it.
        """
        counts: Counter[tuple[str, str]] = Counter()
        tables: dict[str, pa.RecordBatch] = {}
        unjudged: dict[str, pa.Array] = {}
        for name, table in (("record", batch.records), ("resource", batch.resources), ("scope", batch.scopes)):
            # What a slice does not show would leave the process with it: copy what it shows.
            changed, failed, found = self._native.redact(name, table, not (batch.is_whole or is_exact(table)))
            tables[name] = table if changed is None else changed
            if failed is not None:
                unjudged[name] = failed
            for rule, place, count in found:
                counts[rule, place] += count
        same = tables["record"] is batch.records and tables["resource"] is batch.resources
        if not (same and tables["scope"] is batch.scopes):
            batch = TelemetryBatch(
                batch.signal, tables["record"], tables["resource"], tables["scope"], batch.unknown_fields
            )
        return Redaction(batch, _failed_records(batch, unjudged), counts)

    def find(self, text: str) -> list[Finding]:
        """Return what the detectors find in a text, in order; rules by attribute name do not apply."""
        return [Finding(rule, start, end) for start, end, rule in self._native.find(text.encode())]

    def replace(self, text: str) -> str | None:
        """Return the text as it may be shown, or None when a rule deletes it."""
        clean = self._native.replace(text.encode())
        return None if clean is None else clean.decode()


_Rule = tuple[str, str, str, int, str, str, str, list[str]]


def _rules(settings: RedactSettings) -> list[_Rule]:
    rules: list[_Rule] = []
    for name, detector in DETECTORS.items():
        chosen = settings.detectors.get(name)
        if chosen.enabled if chosen else detector.is_default:
            action = (chosen and chosen.action) or settings.action
            label = (chosen and chosen.label) or detector.label
            keep_last = chosen.keep_last if chosen else 0
            rules.append((name, label, action, keep_last, detector.shape, detector.pattern, detector.check, []))
    for rule in settings.patterns:
        head = (rule.name, rule.label or rule.name.upper(), rule.action or settings.action, rule.keep_last)
        rules.append((*head, "pattern", rule.pattern, rule.check or "", list(rule.keywords)))
    return rules


def _secret(source: HashKey | None, environ: Mapping[str, str]) -> bytes:
    if source is None:
        return b""
    if source.env is not None:
        where = f"environment variable {source.env}"
        secret = environ.get(source.env, "").encode()
    else:
        where = f"file {source.file}"
        try:
            secret = source.file.read_bytes().strip() if source.file else b""
        except OSError as error:
            raise ConfigError(f"redact: hash_key: {where}: {error.strerror}") from None
    if len(secret) < _MIN_KEY_BYTES:
        raise ConfigError(f"redact: hash_key: {where}: expected {_MIN_KEY_BYTES} bytes or more, got {len(secret)}")
    return secret


def _failed_records(batch: TelemetryBatch, unjudged: Mapping[str, pa.Array]) -> pa.BooleanArray | None:
    """Records that could not be judged themselves, or whose resource or scope could not."""
    if not unjudged:
        return None
    failed = np.zeros(batch.num_rows, dtype=bool)
    if "record" in unjudged:
        failed[unjudged["record"].to_numpy()] = True
    for table, rows in (("resource", batch.resources.num_rows), ("scope", batch.scopes.num_rows)):
        if table in unjudged:
            bad = np.zeros(rows, dtype=bool)
            bad[unjudged[table].to_numpy()] = True
            failed |= bad[batch.records[table].to_numpy()]
    return pa.array(failed)
