"""The archive: one Delta table per signal, written by `ArchiveSink`, read by `ArchiveSource`, `query`, and any SQL."""

from connectors.archive.delta_log import ArchiveError
from connectors.archive.promote import PromotedAttribute
from connectors.archive.query import QueryError, query
from connectors.archive.sink import ArchiveSettings, ArchiveSink
from connectors.archive.source import ArchiveReadSettings, ArchiveSource, ReplayProgress

__all__ = [
    "ArchiveError",
    "ArchiveReadSettings",
    "ArchiveSettings",
    "ArchiveSink",
    "ArchiveSource",
    "PromotedAttribute",
    "QueryError",
    "ReplayProgress",
    "query",
]
