"""The log: lines for people or for programs, and no line a thousand times."""

from __future__ import annotations

import enum
import json
import logging
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from typing_extensions import override

__all__ = ["JsonFormatter", "LogFormat", "LogfmtFormatter", "RepeatFilter", "TextFormatter", "set_up_log"]

_BARE = re.compile(r"[^\s\"=\\]+")


class LogFormat(enum.StrEnum):
    """How a line is written."""

    TEXT = "text"
    """For people."""
    JSON = "json"
    """A JSON object a line."""
    LOGFMT = "logfmt"
    """`key=value` pairs."""


def _fields(record: logging.LogRecord) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    suppressed: int = getattr(record, "suppressed", 0)
    if suppressed:
        fields["suppressed"] = suppressed
    return fields


class TextFormatter(logging.Formatter):
    """Lines for people; an error's traceback follows."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        suppressed: int = getattr(record, "suppressed", 0)
        line = super().formatMessage(record)
        return f"{line} [and {suppressed} more like it before]" if suppressed else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and an error's traceback.

    >>> record = logging.LogRecord("a", logging.INFO, "f", 1, "it is %s", ("so",), None)
    >>> json.loads(JsonFormatter().format(record))["message"]
    'it is so'
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class LogfmtFormatter(logging.Formatter):
    """`key=value` pairs; values with spaces, quotes or line ends stand in quotes, escaped as in JSON.

    >>> record = logging.LogRecord("a", logging.INFO, "f", 1, "it is so", (), None)
    >>> LogfmtFormatter().format(record).split(" ", 1)[1]
    'level=info logger=a message="it is so"'
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_logfmt(str(value))}" for key, value in fields.items())


def _logfmt(value: str) -> str:
    return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)


class RepeatFilter(logging.Filter):
    """Lets a message through a few times a minute; the next one after that says how many were suppressed.

    Messages are the same when they come from one place in the code with one level, whatever numbers they hold: a line
    for each refused request would itself become the load.

    >>> clock = [0.0]
    >>> repeats = RepeatFilter(burst=1, period_s=60, now_s=lambda: clock[0])
    >>> record = logging.LogRecord("a", logging.WARNING, "f", 1, "again", (), None)
    >>> repeats.filter(record), repeats.filter(record), repeats.filter(record)
    (True, False, False)
    >>> clock[0] = 61.0
    >>> repeats.filter(record), record.suppressed
    (True, 2)
    """

    def __init__(self, *, burst: int = 10, period_s: float = 60.0, now_s: Callable[[], float] = time.monotonic) -> None:
        """Set the limits.

        Args:
            burst: How often a message may be said in a period.
            period_s: How long a period lasts; it begins with a message.
            now_s: A monotonic clock.
        """
        super().__init__()
        self._burst = burst
        self._period_s = period_s
        self._now_s = now_s
        self._lock = threading.Lock()
        self._said: dict[tuple[str, int, int], tuple[float, int]] = {}

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        place = (record.pathname, record.lineno, record.levelno)
        with self._lock:
            now_s = self._now_s()
            began_s, said = self._said.get(place, (now_s, 0))
            if now_s - began_s >= self._period_s:
                record.suppressed = max(0, said - self._burst)
                began_s, said = now_s, 0
            self._said[place] = (began_s, said + 1)
            return said < self._burst


def set_up_log(form: LogFormat, level: int, stream: TextIO) -> None:
    """Write the log of this process to `stream`, repeated messages limited.

    Args:
        form: How lines are written.
        level: Least level that is written.
        stream: Where to.
    """
    handler = logging.StreamHandler(stream)
    formatters = {LogFormat.TEXT: TextFormatter, LogFormat.JSON: JsonFormatter, LogFormat.LOGFMT: LogfmtFormatter}
    handler.setFormatter(formatters[form]())
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=level, handlers=[handler])
