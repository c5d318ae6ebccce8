"""The memory budget: what a process takes is compared with what it may, seldom enough to ask for every request."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from telflow import memory_budget
from telflow.errors import ConfigError
from telflow.memory_budget import MemoryBudget, MemorySettings
from telflow.packages import ROOT

MIB = 1 << 20


class Process:
    """A process whose memory and time a test sets."""

    def __init__(self) -> None:
        self.taken_bytes = 100 * MIB
        self.time_s = 0.0
        self.looks = 0
        self.relieved = 0
        self.budget = MemoryBudget(resident_bytes=self._look, now_s=lambda: self.time_s, relief=self._relieve)

    def _look(self) -> int:
        self.looks += 1
        return self.taken_bytes

    def _relieve(self) -> None:
        self.relieved += 1

    def take(self, mib: int) -> None:
        """Have it take so much, a while later."""
        self.taken_bytes = mib * MIB
        self.time_s += 1


def test_without_a_limit_nothing_is_ever_too_much() -> None:
    """And nobody looks."""
    process = Process()
    process.take(1 << 20)
    assert (process.budget.pressed, process.budget.spent) == (False, False)
    assert process.budget.share_of(800) == 800
    assert process.looks == 0


@pytest.mark.parametrize(("mib", "pressed", "spent"), [(199, False, False), (206, True, False), (241, True, True)])
def test_the_soft_limit_comes_first_and_the_hard_one_before_the_end(mib: int, pressed: bool, spent: bool) -> None:
    """Of 256 MiB, four fifths and fifteen sixteenths; stores may then hold an eighth of what they may."""
    process = Process()
    process.budget.apply(MemorySettings(max_bytes=256 * MIB))
    process.take(mib)
    assert (process.budget.pressed, process.budget.spent) == (pressed, spent)
    assert process.budget.share_of(800) == (100 if pressed else 800)


def test_it_looks_fifty_times_a_second_at_most_however_often_it_is_asked() -> None:
    """A request costs a clock reading, not a system call."""
    process = Process()
    process.budget.set_limit(256 * MIB)
    for _ in range(1000):
        process.time_s += 0.001
        assert not process.budget.spent
    assert 45 <= process.looks <= 51


def test_free_memory_is_given_back_twice_a_second_at_most_and_only_under_pressure() -> None:
    """Giving back has a price."""
    process = Process()
    process.budget.set_limit(256 * MIB)
    for _ in range(100):
        process.time_s += 0.05
        assert not process.budget.pressed
    assert process.relieved == 0
    process.taken_bytes = 230 * MIB
    for _ in range(100):
        process.time_s += 0.05
        assert process.budget.pressed
    assert 9 <= process.relieved <= 11


def test_a_budget_that_is_too_small_is_refused_at_the_start() -> None:
    """With the figures that whoever reads it needs."""
    process = Process()
    with pytest.raises(ConfigError, match=r"memory\.max_bytes: expected 132 MiB or more.* 100 MiB before.*got 128 MiB"):
        process.budget.apply(MemorySettings(max_bytes=128 * MIB))


def test_at_rest_a_process_is_not_pressed() -> None:
    """Where the soft limit lies below what libraries take, it is moved up."""
    process = Process()
    process.budget.apply(MemorySettings(max_bytes=160 * MIB, soft_share=0.2))
    process.time_s += 1
    assert not process.budget.pressed
    process.take(120)
    assert process.budget.pressed


def test_the_default_is_most_of_what_the_container_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control group's limit counts when it is below the machine's memory; "max" is none."""
    group = tmp_path / "memory.max"
    monkeypatch.setattr(memory_budget, "_CGROUPS", (str(group), str(tmp_path / "none")))
    machine = memory_budget.available_bytes()
    group.write_text("max\n")
    assert memory_budget.available_bytes() == machine > 256 * MIB
    group.write_text(f"{500 * MIB}\n")
    assert memory_budget.available_bytes() == 500 * MIB
    process = Process()
    process.budget.apply(MemorySettings())
    assert process.budget.limit_bytes == 450 * MIB


def test_a_process_is_looked_at_and_memory_given_back() -> None:
    """The real thing, in a process of its own: a block is seen, and once it is freed it is not taken any more.

    With a limit there are no huge pages, of which a few bytes would count as two megabytes.
    """
    program = """
import time
from pathlib import Path
from telflow.memory_budget import MemoryBudget, MemorySettings
budget = MemoryBudget()
budget.apply(MemorySettings(max_bytes=1 << 30))
budget.set_limit(1)
def taken():
    time.sleep(0.6)
    assert budget.pressed and budget.spent
    return budget.taken_bytes >> 20
before = taken()
block = bytearray(b"x") * (256 << 20)
held = taken()
del block
print(held - before, taken() - before)
print("THP_enabled:\t1" in Path("/proc/self/status").read_text())
"""
    command = [sys.executable, "-P", "-c", program]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    (held, left), (huge,) = (line.split() for line in done.stdout.splitlines())
    assert 240 <= int(held) <= 272
    assert int(left) <= 16
    assert huge == "False"
