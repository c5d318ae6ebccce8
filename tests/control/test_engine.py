"""Running a flow: what it raises, how it stops, that it goes on where it stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, FixedPartitionedSource, StatefulSourcePartition, StatelessSourcePartition
from bytewax.outputs import DynamicSink, FixedPartitionedSink, StatefulSinkPartition, StatelessSinkPartition
from bytewax.testing import TestingSink, TestingSource

from control.drain import Drain, drain_on_signal, make_drainable
from control.engine import run_dataflow
from control.exit_codes import FlowError, UnavailableError
from control.panic_noise import without_panic_noise, without_panics
from telflow.errors import DeliveryError


def _fails(x: int) -> float:
    return 1 / x


def test_a_function_that_raises_is_named_with_file_line_and_step(capfd: pytest.CaptureFixture[str]) -> None:
    """The user reads their own line, and none of the engine's panic (its whole standard error: test_run)."""
    flow = Dataflow("sums")
    op.output("out", op.map("invert", op.input("in", flow, TestingSource([1, 0])), _fails), TestingSink([]))
    with without_panic_noise(), pytest.raises(FlowError) as caught:
        run_dataflow(flow)
    text = str(caught.value)
    assert text.startswith('the flow sums failed in step "sums.invert" (inside it: flat_map_batch)\n')
    assert "test_engine.py:" in text
    assert "| return 1 / x\n        |        ^^^^^\n  ZeroDivisionError: division by zero" in text
    assert "panicked" not in capfd.readouterr().err  # a cluster in the same process makes the engine say more


def test_an_error_without_text_and_one_with_notes() -> None:
    """Both keep all they say."""

    def bare(_: int) -> int:
        error = KeyError()
        error.add_note("while looking for the tenant")
        raise error

    flow = Dataflow("f")
    op.output("out", op.map("m", op.input("in", flow, TestingSource([1])), bare), TestingSink([]))
    with pytest.raises(FlowError, match="  KeyError\n  while looking for the tenant"):
        run_dataflow(flow)


def test_an_error_of_telflow_itself_keeps_its_words_and_kind() -> None:
    """It was written for the person who reads it."""

    def refuse(_: int) -> int:
        raise DeliveryError("backend: expected 200, got 404", retryable=False)

    flow = Dataflow("f")
    op.output("out", op.map("m", op.input("in", flow, TestingSource([1])), refuse), TestingSink([]))
    with pytest.raises(DeliveryError, match="backend: expected 200, got 404"):
        run_dataflow(flow)


def test_a_flow_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The recovery folder is made when it is missing, and used when it is there."""
    seen: list[int] = []
    flow = Dataflow("resumed")
    inputs: list[Any] = [1, 2, TestingSource.EOF(), 3]
    op.output("out", op.input("in", flow, TestingSource(inputs)), TestingSink(seen))
    for _ in range(2):
        run_dataflow(flow, recovery_dir=tmp_path / "state", epoch=timedelta(0))
    assert seen == [1, 2, 3]


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/version").exists(), reason="no place that cannot be written")
def test_a_recovery_folder_that_cannot_be_made() -> None:
    """Said with the setting's name."""
    flow = Dataflow("f")
    op.output("out", op.input("in", flow, TestingSource([1])), TestingSink([]))
    with pytest.raises(UnavailableError, match="recovery_dir: expected a directory that can be written, got /proc/"):
        run_dataflow(flow, recovery_dir=Path("/proc/telflow/state"))


class _BadSink(FixedPartitionedSink[int, None]):
    """Raises in the methods named."""

    def __init__(self, *bad: str) -> None:
        self.bad = bad

    def list_parts(self) -> list[str]:
        return ["only"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _BadPart:  # noqa: ARG002
        return _BadPart(self.bad)


class _BadPart(StatefulSinkPartition[int, None]):
    def __init__(self, bad: tuple[str, ...]) -> None:
        self.bad = bad

    def _maybe(self, method: str) -> None:
        if method in self.bad:
            raise OSError(28, f"no space left in {method}")

    def write_batch(self, values: list[int]) -> None:  # noqa: ARG002
        self._maybe("write_batch")

    def snapshot(self) -> None:
        self._maybe("snapshot")

    def close(self) -> None:
        self._maybe("close")


class _BadDynamic(DynamicSink[int]):
    def __init__(self, *bad: str) -> None:
        self.bad = bad

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _BadDynamicPart:  # noqa: ARG002
        return _BadDynamicPart(self.bad)


class _BadDynamicPart(StatelessSinkPartition[int]):
    def __init__(self, bad: tuple[str, ...]) -> None:
        self.inner = _BadPart(bad)

    def write_batch(self, items: list[int]) -> None:
        self.inner.write_batch(items)

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize(
    "bad", [("write_batch",), ("snapshot",), ("write_batch", "close"), ("snapshot", "close"), ("close",)]
)
def test_a_sink_that_fails_is_an_error_and_no_abort(bad: tuple[str, ...]) -> None:
    """Bytewax alone aborts the process when closing raises too, and says nothing of the first error."""
    flow = Dataflow("f")
    op.output("out", op.key_on("key", op.input("in", flow, TestingSource([1])), str), _BadSink(*bad))
    with pytest.raises(FlowError, match=f'in step "f.out"(?s:.)*no space left in {bad[0]}'):
        run_dataflow(flow)


@pytest.mark.parametrize("bad", [("write_batch",), ("write_batch", "close"), ("close",)])
def test_a_sink_without_state_is_guarded_too(bad: tuple[str, ...]) -> None:
    """The same for Bytewax's other kind of sink."""
    flow = Dataflow("f")
    op.output("out", op.input("in", flow, TestingSource([1])), _BadDynamic(*bad))
    with pytest.raises(FlowError, match=f'in step "f.out"(?s:.)*no space left in {bad[0]}'):
        run_dataflow(flow)


class _Endless(FixedPartitionedSource[int, int]):
    """Counts up, a number per call, and wants to be called again in an hour."""

    def __init__(self, closed: list[str]) -> None:
        self.closed = closed

    def list_parts(self) -> list[str]:
        return ["only"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _EndlessPart:  # noqa: ARG002
        return _EndlessPart(resume_state or 0, self.closed)


class _EndlessPart(StatefulSourcePartition[int, int]):
    def __init__(self, at: int, closed: list[str]) -> None:
        self.at = at
        self.closed = closed
        self.calls = 0

    def next_batch(self) -> Iterable[int]:
        self.calls += 1
        assert self.calls == 1, "asked again before the hour was over"
        self.at += 1
        return [self.at]

    def next_awake(self) -> datetime | None:
        return None if self.calls == 0 else datetime.now(UTC) + timedelta(hours=1)

    def snapshot(self) -> int:
        return self.at

    def close(self) -> None:
        self.closed.append("fixed")


class _Busy(DynamicSource[int]):
    """Always has something."""

    def __init__(self, closed: list[str]) -> None:
        self.closed = closed

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _BusyPart:  # noqa: ARG002
        return _BusyPart(self.closed)


class _BusyPart(StatelessSourcePartition[int]):
    def __init__(self, closed: list[str]) -> None:
        self.closed = closed

    def next_batch(self) -> Iterable[int]:
        time.sleep(0.001)
        return [0]

    def close(self) -> None:
        self.closed.append("dynamic")


def _endless(closed: list[str], out: list[int]) -> Dataflow:
    flow = Dataflow("endless")
    fixed = op.input("fixed", flow, _Endless(closed))
    busy = op.input("busy", flow, _Busy(closed))
    op.output("out", op.merge("both", fixed, busy), TestingSink(out))
    return flow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_sources_and_the_flow_runs_out(number: signal.Signals) -> None:
    """Also a source that sleeps for an hour; nothing raises, and every partition is closed."""
    closed: list[str] = []
    out: list[int] = []
    flow = _endless(closed, out)
    drain = Drain()
    make_drainable(flow, drain)
    before = signal.getsignal(number)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), number))
    with drain_on_signal(drain):
        timer.start()
        run_dataflow(flow)
    assert drain.requested
    assert sorted(closed) == ["dynamic", "fixed"]
    assert 1 in out
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_does_not_wait() -> None:
    """It is a KeyboardInterrupt, as Python has it."""
    asked: list[str] = []
    drain = Drain(on_request=lambda: asked.append("once"))

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    with drain_on_signal(drain), pytest.raises(KeyboardInterrupt):
        twice()
    assert asked == ["once"]


def test_outside_the_main_thread_signals_stay_as_they_are() -> None:
    """Python allows no handlers there; a flow in a thread is drained by whoever started it."""
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    def look() -> None:
        with drain_on_signal(Drain()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]


PANIC = b"""\
thread '<unnamed>' panicked at src/operators.rs:198:33:
Box<dyn Any>
stack backtrace:
   0: std::panicking::begin_panic
             at /somewhere/methodobject.c:443:24
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.

"""
OTHER = b"thread 'x' panicked at native/src/decode.rs:1:1:\nindex out of bounds\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (PANIC, b""),
        (b"before\n" + PANIC + b"after\n\n", b"before\nafter\n\n"),
        (OTHER, OTHER),
        (b"thread 'main' (7) panicked at src/run.rs:1:1:\nno such thing\n", b"no such thing\n"),
    ],
)
def test_only_the_panics_of_the_engine_are_left_out(text: bytes, left: bytes) -> None:
    """A panic that says something keeps what it says; another crate's passes whole."""
    assert b"".join(without_panics(text.splitlines(keepends=True))) == left


def test_native_and_python_errors_pass_while_filtering(capfd: pytest.CaptureFixture[str]) -> None:
    """What is written to descriptor 2 arrives, in full lines and at the end without one."""
    with without_panic_noise():
        os.write(2, b"grpc: something\n" + PANIC + b"tail")
    os.write(2, b".\n")
    assert capfd.readouterr().err == "grpc: something\ntail.\n"
