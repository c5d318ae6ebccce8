"""Does what `telflow deadletter` is asked to do."""

from __future__ import annotations

import contextlib
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
from control.storage import DEAD_LETTERS, WORKER, place_folders
from telflow.batch import TelemetryBatch
from telflow.codec import Encoding, decode, encode
from telflow.delivery.dead_letters import DeadLetter, DeadLetterReader, DeadLetters
from telflow.delivery.log import Entry
from telflow.delivery.retry import Backoff
from telflow.delivery.transport import Transport, Verdict
from telflow.errors import ConfigError, DecodeError, TelflowError
from telflow.placement import FIRST
from telflow.schema import Signal
from telflow.settings import parse_duration

__all__ = ["Selection", "run_list", "run_purge", "run_replay", "run_show", "stores_of"]

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


def stores_of(store: Path | None) -> list[Path]:
    """Return the files of dead letters: the one that is given, or those of all workers of the gateway.

    Raises:
        ConfigurationError: The settings are wrong.
    """
    if store is not None:
        return [store]
    from control.target import settings_of
    from flows.gateway import FLOW_ID

    folder = settings_of(None)[0].storage.folder(FLOW_ID)
    return [place / DEAD_LETTERS for place in place_folders(folder)]


@dataclass(frozen=True)
class _Kept:
    """A letter and where it is kept."""

    store: Path
    letter: DeadLetter

    @property
    def worker(self) -> str:
        """The number of the worker whose it is."""
        return _worker(self.store)

    def plain(self) -> dict[str, Any]:
        """Return all that is known of it, for programs."""
        data = dataclasses.asdict(self.letter)
        del data["position"]
        return {**data, "worker": self.worker}


def run_list(stores: Sequence[Path], selection: Selection, limit: int, screen: Screen) -> None:
    """Show which letters there are; a store that was never made has none."""
    found = _select(stores, selection)
    made = table("id", "received", "worker", "origin", "reason", "signal", "tenant", "#records", "#bytes")
    for kept in found[:limit]:
        letter = kept.letter
        made.add_row(
            letter.id,
            _moment(letter),
            kept.worker,
            Text(letter.origin),
            Text(letter.reason),
            letter.signal,
            Text(letter.tenant or "-"),
            f"{letter.records:,}",
            f"{letter.stored_bytes:,}",
        )
    screen.result([kept.plain() for kept in found], *([made] if found else ["no dead letters"]))
    if len(found) > limit:
        screen.note(f"{len(found) - limit:,} more; --limit {len(found)} shows all")


def run_show(stores: Sequence[Path], letter_id: str, rows: int, raw: Path | None, screen: Screen) -> None:
    """Show a letter and its first records, or why they cannot be read."""
    found = list(_read(_select(stores, Selection([letter_id]))))
    if not found:
        raise TelflowError(f"dead letter {letter_id} is damaged, or was removed just now")
    kept, entry = found[0]
    data: dict[str, Any] = {**kept.plain(), "payload_bytes": len(entry.payload)}
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


def run_replay(stores: Sequence[Path], selection: Selection, to: str, screen: Screen, *, keep: bool) -> None:
    """Send letters once more.

    Raises:
        LossError: Some were not delivered; they are still in the store.
        UnavailableError: Nothing listens there.
        LogError: A gateway has the store open.
    """
    settings = client_settings(to, retry=_RETRY)
    require_listener(settings)
    letters = _select(stores, selection)
    outcomes: list[dict[str, Any]] = []
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shows = screen.output is Output.HUMAN and screen.err.is_terminal
    with contextlib.ExitStack() as open_now:
        # All before anything is sent: what was delivered but cannot be removed would come again.
        writers = {} if keep else {store: open_now.enter_context(DeadLetters(store)) for store in _stores(letters)}
        transport = open_now.enter_context(contextlib.closing(connect(settings)))
        bar = open_now.enter_context(Progress(*columns, console=screen.err, disable=not shows))
        task = bar.add_task("replay", total=len(letters))
        for kept, entry in _read(letters):
            letter, status = kept.letter, _send(transport, entry, settings)
            outcomes.append({"id": letter.id, "records": letter.records, "delivered": not status, "status": status})
            if not status and kept.store in writers:
                writers[kept.store].remove([letter])
            bar.advance(task)
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


def run_purge(stores: Sequence[Path], selection: Selection, screen: Screen, *, ask: bool) -> None:
    """Delete letters.

    Raises:
        ConfigError: Nobody can be asked whether that is meant.
        LogError: A gateway has the store open.
    """
    letters = _select(stores, selection)
    records = sum(kept.letter.records for kept in letters)
    if letters and ask:
        if screen.output is Output.JSON or not screen.err.is_terminal:
            raise ConfigError("purge deletes for good: expected --yes where nobody can be asked")
        typer.confirm(f"Delete {len(letters):,} letters with {records:,} records for good?", abort=True, err=True)
    with contextlib.ExitStack() as open_now:
        # All before anything is deleted: a gateway that has one of them open has its way with none.
        writers = {store: open_now.enter_context(DeadLetters(store)) for store in _stores(letters)}
        for store, writer in writers.items():
            writer.remove(kept.letter for kept in letters if kept.store == store)
    screen.result(
        {"purged": [kept.letter.id for kept in letters], "records": records}, f"purged {len(letters):,} letters"
    )


def _worker(store: Path) -> str:
    """Whose a store is; the first worker's lies in the folder itself."""
    name = store.parent.name
    return name.removeprefix(WORKER) if name.startswith(WORKER) else FIRST


def _select(stores: Sequence[Path], selection: Selection) -> list[_Kept]:
    """Return the letters that are meant, the oldest first.

    An id is of one store only: of several, letters of further workers have the worker's number before theirs.
    """
    where: dict[str, Path] = {}
    letters: list[DeadLetter] = []
    for store in stores:
        if not store.exists():
            continue
        worker = _worker(store)
        before = "" if worker == FIRST or len(stores) == 1 else f"{worker}:"
        with DeadLetterReader(store) as reader:
            found = [dataclasses.replace(letter, id=before + letter.id) for letter in reader.letters()]
        letters += found
        where |= {letter.id: store for letter in found}
    if len(stores) > 1:
        letters.sort(key=lambda letter: letter.arrival_time_unix_nano)
    return [_Kept(where[letter.id], letter) for letter in selection.of(letters)]


def _stores(letters: Sequence[_Kept]) -> list[Path]:
    return sorted({kept.store for kept in letters})


def _read(letters: Sequence[_Kept]) -> Iterator[tuple[_Kept, Entry]]:
    for store in _stores(letters):
        with DeadLetterReader(store) as reader:
            for letter, entry in reader.read([kept.letter for kept in letters if kept.store == store]):
                yield _Kept(store, letter), entry


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
