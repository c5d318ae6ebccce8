"""`telflow log`: look into the logs of a storage folder, and save what a damaged one still holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.screen import DebugOption, Output, OutputOption, Screen, table

if TYPE_CHECKING:
    from telflow.delivery.log import Entry, PartitionStats

__all__ = ["FolderArgument", "inspect", "log", "salvage"]

log = typer.Typer(
    name="log",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look into the logs of what is received and not delivered yet.",
)

FolderArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FOLDER | FILE]",
        help="A storage folder, or one log in it. [default: the folder of telflow.yaml, else the usual one]",
        show_default=False,
    ),
]


@log.command()
def inspect(
    folder: FolderArgument = None,
    partition: Annotated[
        str | None, typer.Option(help="Show the entries of this partition.", show_default=False)
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Show entries above this position.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many entries.")] = 20,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Show what the logs hold, also while a gateway is running: it is only read.

    **Examples**

    All partitions of a folder's logs:

        telflow log inspect state

    The first entries of one partition, with their payloads decoded when asked for as JSON:

        telflow log inspect state/ingest.db --partition intake --limit 1 --output json
    """
    screen = Screen(output)
    files = _files(folder)
    if partition is not None:
        _show_entries(screen, files, partition, after, limit)
        return
    rows = [(path, stats) for path in files for stats in _stats(path)]
    shown = table("log", "partition", "#entries", "#records", "#MiB", "#first", "#last", "oldest")
    top = min((path.parent for path in files), key=lambda folder: len(folder.parts), default=Path())
    for path, stats in rows:
        shown.add_row(
            str(path.relative_to(top)),
            stats.name,
            f"{stats.entries:,}",
            f"{stats.records:,}",
            f"{stats.stored_bytes / 2**20:,.1f}",
            str(stats.first_position),
            str(stats.last_position),
            _time(stats.oldest_unix_nano),
        )
    screen.result([{"log": str(path), **_plain(stats)} for path, stats in rows], shown)


@log.command()
def salvage(
    file: Annotated[Path, typer.Argument(help="The damaged log.", show_default=False)],
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Put what a damaged log still holds into a new one in its place; the damaged one is kept beside it.

    **Examples**

    When `telflow run` says that its log is damaged:

        telflow log salvage state/ingest.db
    """
    from telflow.delivery.log_salvage import salvage as save

    aside, saved = save(file)
    shown = table("partition", "#saved", "#records", "#lost")
    for part in saved:
        shown.add_row(part.name, f"{part.entries:,}", f"{part.records:,}", f"{part.lost_entries:,}")
    screen = Screen(output)
    screen.result({"damaged": str(aside), "partitions": saved}, shown)
    screen.note(f"the damaged log is now {aside}")


def _files(folder: Path | None) -> list[Path]:
    from control.storage import place_folders
    from control.target import settings_of
    from flows.gateway import FLOW_ID
    from telflow.errors import ConfigError

    chosen = folder or settings_of(None)[0].storage.folder(FLOW_ID)
    if chosen.is_file():
        return [chosen]
    found = [file for place in place_folders(chosen) for file in sorted(place.glob("*.db"))]
    if not found:
        raise ConfigError(
            f"expected a storage folder or a log in it, got {chosen}, where there is no log\n"
            "  hint: a gateway makes its logs when it starts, in the folder `storage.dir` says"
        )
    return found


def _stats(path: Path) -> list[PartitionStats]:
    from telflow.delivery.log_entry import partition_stats
    from telflow.delivery.log_file import LogReader

    reader = LogReader(path)
    try:
        return [partition_stats(reader.slices, found) for found in reader.partitions()]
    finally:
        reader.close()


def _show_entries(screen: Screen, files: list[Path], partition: str, after: int, limit: int) -> None:
    from telflow.errors import ConfigError, nearest

    known: list[str] = []
    entries: list[Entry] | None = None
    for path in files:
        names, found = _entries(path, partition, after, limit)
        known += names
        entries = found if entries is None else entries
    if entries is None:
        close = nearest(partition, known)
        raise ConfigError(
            f"--partition: expected one of {', '.join(known) or '(there are none)'}, got {partition}"
            + (f"\n  hint: did you mean {close}?" if close else "")
        )
    shown = table("#position", "arrived", "signal", "tenant", "encoding", "#records", "#bytes")
    for entry in entries:
        shown.add_row(
            str(entry.position),
            _time(entry.arrival_time_unix_nano),
            entry.signal.value,
            entry.tenant or "",
            entry.encoding,
            f"{entry.records:,}",
            f"{len(entry.payload):,}",
        )
    screen.result([_readable(entry) for entry in entries] if screen.output is Output.JSON else None, shown)


def _entries(path: Path, partition: str, after: int, limit: int) -> tuple[list[str], list[Entry] | None]:
    from telflow.delivery.log_entry import read_entries
    from telflow.delivery.log_file import LogReader

    reader = LogReader(path)
    try:
        partitions = {found.name: found for found in reader.partitions()}
        if partition not in partitions:
            return list(partitions), None
        entries: list[Entry] = []
        while len(entries) < limit:
            found = read_entries(reader.rows, partitions[partition], after=after, max_bytes=1 << 20, losses=[])
            if not found:
                break
            entries += found
            after = found[-1].position
        return list(partitions), entries[:limit]
    finally:
        reader.close()


def _readable(entry: Entry) -> dict[str, Any]:
    """The entry with its payload decoded, as OTLP/JSON; one that is no OTLP is left out."""
    import json

    from telflow.codec import decode, encode
    from telflow.errors import DecodeError

    body: Any = None
    if entry.encoding != "arrow":
        try:
            body = json.loads(encode(decode(entry.payload, entry.signal, entry.encoding), "json"))
        except DecodeError as error:
            body = {"error": str(error)}
    return {**_plain(entry), "payload": body, "payload_bytes": len(entry.payload)}


def _plain(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _time(unix_nano: int | None) -> str:
    if not unix_nano:
        return ""
    return datetime.fromtimestamp(unix_nano / 1e9, UTC).isoformat(sep=" ", timespec="milliseconds")
