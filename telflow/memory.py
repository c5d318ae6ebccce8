"""The C allocator of this process, taught that blocks of megabytes come and go all the time."""

from __future__ import annotations

import functools

__all__ = ["LARGE_BLOCK_BYTES", "reuse_large_blocks"]

LARGE_BLOCK_BYTES = 16 * 1024 * 1024
"""Size up to which freed blocks are kept for reuse; as much as twice that may stay free in the heap."""


@functools.cache
def reuse_large_blocks() -> None:
    """Make glibc keep blocks of up to `LARGE_BLOCK_BYTES` for reuse, instead of mapping each anew; once per process.

    glibc maps large blocks from the operating system one by one and gives them back when they are freed, so that every
    page of a new block is a page fault: pickling a batch of 5 MB spent four fifths of its time there. Its threshold for
    this adapts to the largest mapped block that was ever freed (mallopt(3), M_MMAP_THRESHOLD): freeing one of the size
    wanted, which is never touched and so costs no memory, sets it. Elsewhere this does nothing.
    """
    block = bytes(LARGE_BLOCK_BYTES)
    del block
