"""What telflow says about itself: metrics, the check of its accounts, and its log."""

from telflow.telemetry.accounts import AccountCheck, AccountState
from telflow.telemetry.families import (
    MetricNames,
    account_families,
    process_families,
    record_families,
    refusal_families,
)
from telflow.telemetry.log_families import log_families
from telflow.telemetry.log_format import LogFormat, RepeatFilter, set_up_log
from telflow.telemetry.own_metrics import to_batch
from telflow.telemetry.refusals import RefusalRow, Refusals

__all__ = [
    "AccountCheck",
    "AccountState",
    "LogFormat",
    "MetricNames",
    "RefusalRow",
    "Refusals",
    "RepeatFilter",
    "account_families",
    "log_families",
    "process_families",
    "record_families",
    "refusal_families",
    "set_up_log",
    "to_batch",
]
