"""SQL over an archive, through polars: what `telflow query` runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from connectors.archive.delta_log import ArchiveError
from connectors.archive.table import ArchiveTable
from telflow.errors import TelflowError, nearest
from telflow.schema import Signal

if TYPE_CHECKING:
    import polars as pl

__all__ = ["QueryError", "query"]


class QueryError(TelflowError):
    """A query cannot be run as it is written; the message says why and what there is."""


def query(path: Path, sql: str) -> pl.DataFrame:
    """Run one SELECT over the tables `traces`, `metrics` and `logs` of the archive at `path`.

    Each table is read as it is at one moment. Columns: `connectors.archive.layout`; filters on the promoted ones and
    on `date` leave out what need not be read.

    Raises:
        ArchiveError: There is no archive, or a table is damaged.
        QueryError: The SQL is wrong or asks for a table or column there is not.
    """
    import polars as pl

    tables = {s.value: ArchiveTable.open(path, s) for s in Signal if (path / s / "_delta_log").is_dir()}
    if not tables:
        raise ArchiveError(
            f"archive path {str(path)!r}: expected the tables traces, metrics or logs, got none;"
            " hint: `path` is the directory an archive sink writes to"
        )
    with pl.SQLContext({name: pl.scan_delta(table.delta) for name, table in tables.items()}) as context:
        try:
            return context.execute(sql, eager=True)
        except pl.exceptions.ColumnNotFoundError as error:
            columns = sorted({name for table in tables.values() for name in table.columns})
            raise QueryError(_explained(sql, error, "column", columns)) from error
        except pl.exceptions.PolarsError as error:
            raise QueryError(_explained(sql, error, "table", sorted(tables))) from error


def _explained(sql: str, error: Exception, what: str, known: list[str]) -> str:
    reason = str(error).splitlines()[0].split("; valid columns")[0]
    words = {word.strip("'\"`") for word in reason.replace(",", " ").split()}
    guesses = [
        f"did you mean {close!r}?" for word in sorted(words) if (close := nearest(word, known)) and word != close
    ]
    hint = guesses[0] if guesses else f"{what}s: {', '.join(known)}"
    return f"query: expected a SELECT over the archive's tables, got {sql!r}: {reason}; hint: {hint}"
