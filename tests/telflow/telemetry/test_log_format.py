"""The log: one line a message in each form, and no message so often that it becomes the load."""

from __future__ import annotations

import io
import json
import logging
import shlex
from collections.abc import Iterator

import pytest

from telflow.telemetry import LogFormat, RepeatFilter, set_up_log

LOG = logging.getLogger("tests.log_format")


@pytest.fixture(autouse=True)
def _root_restored() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers
    yield
    root.setLevel(level)
    root.handlers = handlers


def written(form: LogFormat) -> io.StringIO:
    out = io.StringIO()
    logging.getLogger().handlers = []  # those of pytest
    set_up_log(form, logging.INFO, out)
    return out


def test_json_is_an_object_a_line() -> None:
    """Time, level, logger and message; line ends, quotes and the traceback of an error stay inside the line."""
    out = written(LogFormat.JSON)
    LOG.info('two\nlines "quoted" %s', "ü")
    try:
        int("why")
    except ValueError:
        LOG.exception("failed")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("info", LOG.name, 'two\nlines "quoted" ü')
    assert first["time"].endswith("Z")
    assert "ValueError: invalid literal" in second["exception"]


def test_logfmt_is_pairs_a_line() -> None:
    """Values with spaces, quotes or line ends are quoted; others stand bare."""
    out = written(LogFormat.LOGFMT)
    LOG.warning('a "b"\nc=d')
    [line] = out.getvalue().splitlines()
    assert " level=warning logger=tests.log_format message=" in line
    assert json.loads(line.partition("message=")[2]) == 'a "b"\nc=d'
    assert len(shlex.split(line)) == 4


def test_a_repeated_message_is_limited_and_its_number_said() -> None:
    """Ten in a minute pass; the first one after it says how many did not. Other messages are not concerned."""
    clock = [0.0]
    out = written(LogFormat.JSON)
    [handler] = logging.getLogger().handlers
    handler.filters = [RepeatFilter(now_s=lambda: clock[0])]

    def refuse(number: int) -> None:
        LOG.warning("refused request %d", number)

    for number in range(1000):
        refuse(number)
    LOG.warning("something else")
    clock[0] = 61.0
    refuse(1000)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["message"] for line in lines] == [
        *(f"refused request {n}" for n in range(10)),
        "something else",
        "refused request 1000",
    ]
    assert lines[-1]["suppressed"] == 990
    assert all("suppressed" not in line for line in lines[:-1])


def test_text_says_what_was_suppressed_too() -> None:
    """For people, at the line's end."""
    out = written(LogFormat.TEXT)
    [handler] = logging.getLogger().handlers
    clock = [0.0]
    handler.filters = [RepeatFilter(burst=1, now_s=lambda: clock[0])]
    for at_s in (0, 1, 2, 60):
        clock[0] = at_s
        LOG.error("no luck")
    first, second = out.getvalue().splitlines()
    assert first.endswith("ERROR no luck")
    assert second.endswith("ERROR no luck [and 2 more like it before]")
