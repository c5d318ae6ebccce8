"""What the logs' metrics say is what is in the logs."""

from __future__ import annotations

from pathlib import Path

from telflow.delivery.log import Entry, Log
from telflow.schema import Signal
from telflow.telemetry import MetricNames, log_families

_S = 1_000_000_000


def values(logs: dict[str, Log], now_unix_nano: int) -> dict[str, float]:
    families = log_families(MetricNames("t"), logs, now_unix_nano)
    return {f"{sample.name}{sample.labels['log']}": sample.value for family in families for sample in family.samples}


def test_what_waits_and_what_was_done(tmp_path: Path) -> None:
    """Entries, the age of the oldest, bytes on both sides of compression, commits and their time."""
    with Log(tmp_path / "a.db", max_bytes=1 << 20) as log, Log(tmp_path / "b.db", max_bytes=1 << 20) as other:
        logs = {" a": log, " b": other}
        for at_s in (10, 20, 30):
            log.append("one", Entry(Signal.LOGS, b"x" * 1000, 2, arrival_time_unix_nano=at_s * _S))
        log.append("two", Entry(Signal.LOGS, b"x" * 1000, 2, arrival_time_unix_nano=25 * _S))
        log.trim("one", 1)
        found = values(logs, 50 * _S)
        assert found["t_log_entries a"] == 3
        assert found["t_log_oldest_age_seconds a"] == 30
        assert found["t_log_appended_entries_total a"] == 4
        assert found["t_log_appended_bytes_total a"] == 4000
        assert 0 < found["t_log_written_bytes_total a"] < 4000
        assert found["t_log_stored_bytes a"] > 0
        assert found["t_log_capacity_bytes a"] == 1 << 20
        assert 1 <= found["t_log_commits_total a"] <= 4
        assert found["t_log_commit_seconds_total a"] > 0
        assert (found["t_log_entries b"], found["t_log_oldest_age_seconds b"]) == (0, 0)
        # A clock that was set back makes nothing younger than now.
        assert values(logs, 5 * _S)["t_log_oldest_age_seconds a"] == 0
    assert values(logs, 50 * _S) == {}  # closed
