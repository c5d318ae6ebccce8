"""The C allocator of this process, taught that blocks of megabytes come and go all the time."""

from __future__ import annotations

import ctypes
import functools
import platform

__all__ = ["give_back", "reuse_large_blocks", "use_small_pages"]

_PR_SET_THP_DISABLE = 41
"""A request of prctl(2), as <linux/prctl.h> numbers it."""
# Parameters of mallopt(3) as <malloc.h> numbers them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_LARGE_BLOCK_BYTES = 32 << 20
"""Size up to which freed blocks are kept for reuse: the most that glibc takes."""
_SPARE_BYTES = 128 << 20
"""Free memory at the end of the heap beyond this is given back to the operating system."""


@functools.cache
def reuse_large_blocks() -> None:
    """Make glibc keep freed blocks for reuse in one heap for all threads; once per process, elsewhere nothing.

    glibc maps large blocks from the operating system one by one and gives them back when they are freed, so that every
    page of a new block is a page fault; and it has heaps by thread, so that what one thread has freed is of no use to
    another. A gateway's batches are decoded in one thread, worked on in a second and sent by a third: page faults were
    an eighth of its CPU time, and pickling a batch of 5 MB spent four fifths of its time there (measured).
    """
    libc = _glibc()
    if libc is None:
        return
    for parameter, value in (
        (_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES),
        (_M_TRIM_THRESHOLD, _SPARE_BYTES),
        (_M_ARENA_MAX, 1),
    ):
        libc.mallopt(parameter, value)


def give_back() -> None:
    """Give free memory inside the heap back to the operating system; elsewhere than with glibc nothing."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def use_small_pages() -> None:
    """Have the kernel map no huge pages for this process from now on; elsewhere than with glibc on Linux nothing.

    A page of 2 MB counts as a whole as soon as one byte of it is in use. Without them a gateway under load takes 260
    MiB less, and decoding takes a sixth more time (measured); so they are left out where memory is limited.
    """
    libc = _glibc()
    if libc is not None:
        libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
