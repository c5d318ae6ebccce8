"""The logs on disk as Prometheus families: what waits in them, how old it is, and what its safety costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from telflow.delivery.log import Log
from telflow.errors import TelflowError
from telflow.telemetry.families import MetricNames

__all__ = ["log_families"]


def log_families(names: MetricNames, logs: Mapping[str, Log], now_unix_nano: int) -> Iterator[Metric]:
    """Yield what each log holds and has done; nothing of a log that is closed.

    Args:
        names: The prefix.
        logs: The logs by their names, which become the label `log`.
        now_unix_nano: The time that ages are reckoned with.
    """
    labels = ("log",)
    stored = names.gauge("log_stored_bytes", "Disk the log's payloads take, compressed.", labels)
    capacity = names.gauge("log_capacity_bytes", "Disk they may take.", labels)
    entries = names.gauge("log_entries", "Entries not passed on for good yet.", labels)
    age = names.gauge("log_oldest_age_seconds", "Age of the oldest of them.", labels)
    appended = names.counter("log_appended_entries", "Entries appended.", labels)
    raw = names.counter("log_appended_bytes", "Their payloads before compression.", labels)
    compressed = names.counter("log_written_bytes", "Their payloads after compression.", labels)
    commits = names.counter("log_commits", "Transactions that appended, each synced once.", labels)
    seconds = names.counter("log_commit_seconds", "Time they took, syncing included.", labels)
    refused = names.counter("log_refused_entries", "Entries refused for lack of room.", labels)
    expired = names.counter("log_expired_entries", "Entries ended by the age budget.", labels)
    damaged = names.counter("log_damaged_entries", "Entries that the disk has damaged.", labels)
    for name, log in logs.items():
        try:
            partitions = log.stats()
        except TelflowError:  # closed, or broken: the one who uses it says so
            continue
        counters = log.counters
        oldest = min((p.oldest_unix_nano for p in partitions if p.oldest_unix_nano is not None), default=now_unix_nano)
        for family, value in (
            (stored, log.stored_bytes),
            (capacity, log.max_bytes),
            (entries, sum(partition.entries for partition in partitions)),
            (age, max(0, now_unix_nano - oldest) / 1e9),
            (appended, counters.entries),
            (raw, counters.payload_bytes),
            (compressed, counters.stored_bytes),
            (commits, counters.commits),
            (seconds, counters.commit_s),
            (refused, counters.refused_entries),
            (expired, counters.expired_entries),
            (damaged, counters.damaged_entries),
        ):
            family.add_metric((name,), value)
    yield from (stored, capacity, entries, age, appended, raw, compressed, commits, seconds, refused, expired, damaged)
