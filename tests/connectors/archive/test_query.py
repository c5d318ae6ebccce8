"""SQL over an archive, and what wrong SQL is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.archive.delta_log import ArchiveError
from connectors.archive.query import QueryError, query
from connectors.archive.table import ArchiveTable
from telflow import Signal
from tests.numbered_logs import rows

_DAY = 86_400_000_000_000


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Six log records of two services, one more without a date."""
    table = ArchiveTable.open_or_create(tmp_path, Signal.LOGS, ())
    table.append(rows(range(4), step=_DAY, tenant="acme"), "a", 0)
    table.append(rows([4, 5], service="pay"), "a", 4)
    table.append(rows([6], start=0), "a", 6)
    return tmp_path


def test_filters_and_groups(archive: Path) -> None:
    """Promoted and partition columns work as in any table, null partition included."""
    found = query(archive, "SELECT service_name, count(*) AS n FROM logs GROUP BY service_name ORDER BY service_name")
    assert found.rows() == [("cart", 5), ("pay", 2)]
    assert query(archive, "SELECT flags FROM logs WHERE date = '2025-06-16'").rows() == [(1,)]
    assert query(archive, "SELECT flags FROM logs WHERE date IS NULL").rows() == [(6,)]
    assert query(archive, "SELECT flags FROM logs WHERE tenant = 'acme' AND flags > 2").rows() == [(3,)]


def test_nested_columns(archive: Path) -> None:
    """Lists of structs and the JSON copy of resource attributes are there to look at."""
    (row,) = query(archive, "SELECT body, resource_attributes FROM logs WHERE flags = 1").rows(named=True)
    assert row["body"]["str"] == "n1"
    assert row["resource_attributes"] == '{"service.name":"cart"}'


def test_empty_table(archive: Path) -> None:
    """A table without rows is no error."""
    ArchiveTable.open_or_create(archive, Signal.TRACES, ())
    assert query(archive, "SELECT name FROM traces").height == 0


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT servce_name FROM logs", r"hint: did you mean 'service_name'\?"),
        ("SELECT * FROM log", r"hint: did you mean 'logs'\?"),
        ("SELECT * FROM spans", "hint: tables: logs"),
        ("SELEKT 1", "SELEKT.*hint: "),
        ("SELECT * FROM logs WHERE flags = 'x' + 1", "arithmetic.*hint: "),
        ("", "statement.*hint: "),
    ],
)
def test_wrong_sql(archive: Path, sql: str, complaint: str) -> None:
    """One line: the query, the reason, and the nearest name or what there is."""
    with pytest.raises(QueryError, match=f"expected a SELECT .*got .*{complaint}") as caught:
        query(archive, sql)
    assert "\n" not in str(caught.value)


def test_no_archive(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(ArchiveError, match=f"'{tmp_path}': expected the tables traces, metrics or logs, got none"):
        query(tmp_path, "SELECT 1")
