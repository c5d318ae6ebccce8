"""Does what `telflow deadletter` is asked to do."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from connectors.otlp.client_settings import OtlpClientSettings
from connectors.otlp.transport import connect
from control.endpoint import client_settings, require_listener
from control.exit_codes import LossError
from control.screen import Output, Screen, table
from control.storage import DEAD_LETTERS
from telflow.batch import TelemetryBatch
from telflow.codec import Encoding, decode, encode
from telflow.delivery.dead_letters import DeadLetter, DeadLetterReader, DeadLetters
from telflow.delivery.log import Entry
from telflow.delivery.retry import Backoff
from telflow.delivery.transport import Transport, Verdict
from telflow.errors import ConfigError, DecodeError, TelflowError
from telflow.schema import Signal
from telflow.settings import parse_duration

__all__ = ["Selection", "run_list", "run_purge", "run_replay", "run_show", "store_of"]

_RETRY = {"initial_interval": "500ms", "max_interval": "5s", "max_elapsed_time": "30s"}
_SHOWN_BYTES = 256


@dataclass(frozen=True)
class Selection:
    """Which letters are meant: those that fit all that is given."""

    ids: Sequence[str] | None = None
    origin: str | None = None
    reason: str | None = None
    tenant: str | None = None
    signal: str | None = None
    older_than: str | None = None

    def of(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Return the letters that fit.

        Raises:
            ConfigError: An option has a value that none can have.
        """
        if self.signal is not None and self.signal not in set(Signal):
            raise ConfigError(f"--signal: expected {', '.join(Signal)}, got {self.signal}")
        found = [letter for letter in letters if self._fits(letter, self._before_unix_nano())]
        missing = sorted(set(self.ids or ()) - {letter.id for letter in letters})
        if missing:
            raise ConfigError(f"no dead letter {', '.join(missing)}\n  hint: `telflow deadletter list` shows the ids")
        return found

    def _fits(self, letter: DeadLetter, before_unix_nano: int | None) -> bool:
        return (
            (not self.ids or letter.id in self.ids)
            and self.origin in (None, letter.origin)
            and (self.reason or "") in letter.reason
            and self.tenant in (None, letter.tenant)
            and self.signal in (None, letter.signal)
            and (before_unix_nano is None or letter.arrival_time_unix_nano < before_unix_nano)
        )

    def _before_unix_nano(self) -> int | None:
        if self.older_than is None:
            return None
        try:
            age = parse_duration(self.older_than)
        except ValueError as error:
            raise ConfigError(f"--older-than: {error}") from None
        assert isinstance(age, timedelta)  # noqa: S101 - it was a text
        return time.time_ns() - int(age.total_seconds() * 1e9)


def store_of(store: Path | None) -> Path:
    """Return the file of the dead-letter store: the one that is given, or that of the gateway's settings.

    Raises:
        ConfigurationError: The settings are wrong.
    """
    if store is not None:
        return store
    from control.target import settings_of
    from flows.gateway import FLOW_ID

    return settings_of(None)[0].storage.folder(FLOW_ID) / DEAD_LETTERS


def run_list(store: Path, selection: Selection, limit: int, screen: Screen) -> None:
    """Show which letters there are; a store that was never made has none."""
    found = selection.of(_letters(store))
    made = table("id", "received", "origin", "reason", "signal", "tenant", "#records", "#bytes")
    for letter in found[:limit]:
        made.add_row(
            letter.id,
            _moment(letter),
            Text(letter.origin),
            Text(letter.reason),
            letter.signal,
            Text(letter.tenant or "-"),
            f"{letter.records:,}",
            f"{letter.stored_bytes:,}",
        )
    screen.result([_plain(letter) for letter in found], *([made] if found else ["no dead letters"]))
    if len(found) > limit:
        screen.note(f"{len(found) - limit:,} more; --limit {len(found)} shows all")


def run_show(store: Path, letter_id: str, rows: int, raw: Path | None, screen: Screen) -> None:
    """Show a letter and its first records, or why they cannot be read."""
    selected = Selection([letter_id]).of(_letters(store))
    with DeadLetterReader(store) as reader:
        found = list(reader.read(selected))
    if not found:
        raise TelflowError(f"dead letter {letter_id} is damaged, or was removed just now")
    ((letter, entry),) = found
    data: dict[str, Any] = {**_plain(letter), "payload_bytes": len(entry.payload)}
    shown: list[Any] = [f"{name.replace('_', ' ')}: {value}" for name, value in data.items()]
    try:
        data["rows"] = _rows(entry, rows)
        shown += [f"record: {row}" for row in data["rows"]]
    except DecodeError as error:
        data["undecodable"] = str(error)
        data["first_bytes"] = entry.payload[:_SHOWN_BYTES].hex()
        shown += [f"undecodable: {error}", f"first bytes: {data['first_bytes']}"]
    if raw is not None:
        raw.write_bytes(entry.payload)
        shown.append(f"the payload is in {raw}")
    screen.result(data, *shown)


def run_replay(store: Path, selection: Selection, to: str, screen: Screen, *, keep: bool) -> None:
    """Send letters once more.

    Raises:
        LossError: Some were not delivered; they are still in the store.
        UnavailableError: Nothing listens there.
        LogError: A gateway has the store open.
    """
    settings = client_settings(to, retry=_RETRY)
    require_listener(settings)
    letters = selection.of(_letters(store))
    outcomes: list[dict[str, Any]] = []
    writer = None if keep or not letters else DeadLetters(store)
    transport = connect(settings)
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shows = screen.output is Output.HUMAN and screen.err.is_terminal
    try:
        with Progress(*columns, console=screen.err, disable=not shows) as bar:
            task = bar.add_task("replay", total=len(letters))
            for letter, entry in _read(store, letters):
                status = _send(transport, entry, settings)
                outcomes.append({"id": letter.id, "records": letter.records, "delivered": not status, "status": status})
                if not status and writer is not None:
                    writer.remove([letter])
                bar.advance(task)
    finally:
        transport.close()
        if writer is not None:
            writer.close()
    failed = [outcome for outcome in outcomes if not outcome["delivered"]]
    records = sum(outcome["records"] for outcome in outcomes if outcome["delivered"])
    line = f"replayed {len(outcomes) - len(failed):,} of {len(letters):,} letters, {records:,} records"
    screen.result(
        {"letters": outcomes, "delivered": len(outcomes) - len(failed), "kept": keep},
        line,
        *(f"{outcome['id']}: {outcome['status']}" for outcome in failed),
    )
    if len(outcomes) - len(failed) != len(letters):
        raise LossError(
            f"{len(letters) - len(outcomes) + len(failed):,} of {len(letters):,} letters were not delivered"
        )


def run_purge(store: Path, selection: Selection, screen: Screen, *, ask: bool) -> None:
    """Delete letters.

    Raises:
        ConfigError: Nobody can be asked whether that is meant.
        LogError: A gateway has the store open.
    """
    letters = selection.of(_letters(store))
    records = sum(letter.records for letter in letters)
    if letters and ask:
        if screen.output is Output.JSON or not screen.err.is_terminal:
            raise ConfigError("purge deletes for good: expected --yes where nobody can be asked")
        typer.confirm(f"Delete {len(letters):,} letters with {records:,} records for good?", abort=True, err=True)
    if letters:
        with DeadLetters(store) as writer:
            writer.remove(letters)
    screen.result({"purged": [letter.id for letter in letters], "records": records}, f"purged {len(letters):,} letters")


def _letters(store: Path) -> list[DeadLetter]:
    if not store.exists():
        return []
    with DeadLetterReader(store) as reader:
        return reader.letters()


def _read(store: Path, letters: Sequence[DeadLetter]) -> Iterator[tuple[DeadLetter, Entry]]:
    if letters:
        with DeadLetterReader(store) as reader:
            yield from reader.read(letters)


def _plain(letter: DeadLetter) -> dict[str, Any]:
    data = dataclasses.asdict(letter)
    del data["position"]
    return data


def _moment(letter: DeadLetter) -> str:
    return datetime.fromtimestamp(letter.arrival_time_unix_nano / 1e9, UTC).isoformat(timespec="seconds")


def _batch(entry: Entry) -> TelemetryBatch:
    if entry.encoding == "arrow":
        return TelemetryBatch.from_ipc_bytes(entry.payload)
    return decode(entry.payload, entry.signal, entry.encoding, tenant=entry.tenant)


def _rows(entry: Entry, count: int) -> list[dict[str, Any]]:
    """Return a letter's first records as they are read, bytes in hexadecimal."""
    frame = pl.from_arrow(_batch(entry).slice(0, count).to_table())
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table never becomes a series
    return json.loads(json.dumps(frame.to_dicts(), default=lambda value: value.hex()))  # type: ignore[no-any-return]


def _send(transport: Transport, entry: Entry, settings: OtlpClientSettings) -> str:
    """Send a letter; returns why it was not delivered, or an empty text."""
    encoding: Encoding = "json" if settings.protocol == "http/json" else "protobuf"
    body = entry.payload
    if entry.encoding != encoding:
        try:
            body = encode(_batch(entry), encoding)
        except TelflowError as error:
            return f"cannot be written as {encoding}: {error}"
    backoff = Backoff(settings.retry, started_s=time.monotonic())
    while True:
        answer = transport.send(entry.signal, body)
        if answer.verdict is Verdict.ACCEPTED:
            return f"{answer.rejected} records rejected" if answer.rejected else ""
        if answer.verdict is Verdict.REFUSED:
            return f"refused ({answer.status}) {answer.message}".strip()
        wait_s = backoff.next_wait_s(now_s=time.monotonic(), retry_after_s=answer.retry_after_s)
        if wait_s is None:
            return f"not delivered ({answer.status}) {answer.message}".strip()
        time.sleep(wait_s)
