"""The allocator keeps large blocks."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from telflow.memory import reuse_large_blocks
if sys.argv[1] == "reuse":
    reuse_large_blocks()
def grow():
    # As pickle does: a block that grows by reallocation and is cut to size at the end.
    block = bytearray(1)
    block.extend(bytes(6_000_000))
    del block[5_000_000:]
for _ in range(20):
    grow()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    grow()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators behave differently")
def test_blocks_of_megabytes_are_not_mapped_anew() -> None:
    """With it, allocating the same large blocks again and again causes a small part of the page faults."""
    assert resource.getpagesize() <= 65536
    faults = {}
    for mode in ("as is", "reuse"):
        ran = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(ran.stdout)
    assert faults["reuse"] * 5 < faults["as is"]
