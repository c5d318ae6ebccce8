"""Who has what in a cluster: places on disk, and keys that stay where they are.

What a worker has received and not sent yet lies on the disk of its host, in a *place*: the logs and queues of one
worker. Places are never given up: when a host runs fewer workers than before, those that are left take over the places
of the others and read them until they are empty. So a place's data is always read on the host that has it, by one
worker, and each of its partitions in the engine has a name that never changes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ALONE", "FIRST", "Placement", "key_at", "place", "places_of", "worker_of"]

FIRST = "0"
"""The place of a flow in one process, and of the first worker of a cluster on one host."""

_MASK = (1 << 64) - 1
_BLOCK_BYTES = 8


@dataclass(frozen=True, slots=True)
class Placement:
    """Which places there are, and which of them this worker has.

    Attributes:
        all: The places of the whole cluster.
        here: Those of this worker, the one that it fills first; the others it only empties.
        worker: This worker's number.
        workers: How many there are.
    """

    all: tuple[str, ...] = (FIRST,)
    here: tuple[str, ...] = (FIRST,)
    worker: int = 0
    workers: int = 1

    @property
    def own(self) -> str:
        """The place that this worker fills."""
        return self.here[0]

    @property
    def alone(self) -> bool:
        """There is no other place, and never was."""
        return self.all == (FIRST,)

    @staticmethod
    def named(part: str, place: str) -> str:
        """Return the name that a partition has at a place.

        >>> Placement.named("intake", "0"), Placement.named("intake", "b-1")
        ('intake', 'intake@b-1')
        """
        return part if place == FIRST else f"{part}@{place}"


ALONE = Placement()
"""A flow in one process."""


def place(host: str, number: int, hosts: int) -> str:
    """Name a place: the number on its host, with the host's name where there are several.

    >>> place("local", 0, 1), place("b", 2, 3)
    ('0', 'b-2')
    """
    return str(number) if hosts == 1 else f"{host}-{number}"


def places_of(counts: Mapping[str, int], host: str, number: int, workers: int) -> tuple[tuple[str, ...], ...]:
    """Return all places of a cluster, and those of one worker: its own, and every so many-th of those left over.

    Args:
        counts: How many places each host has.
        host: The worker's host.
        number: Its number there.
        workers: How many workers its host has.

    >>> places_of({"local": 5}, "local", 1, 2)
    (('0', '1', '2', '3', '4'), ('1', '3'))
    """
    every = tuple(place(name, n, len(counts)) for name, count in counts.items() for n in range(count))
    mine = tuple(place(host, n, len(counts)) for n in range(number, counts[host], workers))
    return every, mine


@functools.cache
def key_at(name: str, worker: int, workers: int) -> str:
    """Return a key, `name` with something behind it, whose state the engine keeps on a certain worker.

    For state that may lie anywhere: a key like this spares the data the way to another worker.

    >>> key_at("traces", 0, 1)
    'traces'
    >>> [worker_of(key_at("traces", worker, 3), 3) for worker in range(3)]
    [0, 1, 2]
    """
    key, number = name, 0
    while worker_of(key, workers) != worker:
        number += 1
        key = f"{name}.{number}"
    return key


def worker_of(key: str, workers: int) -> int:
    """Return the worker on which the engine (Bytewax 0.21) keeps the state of a key.

    It takes the hash of Rust's standard library, SipHash-1-3 with keys of zero, over the bytes of the key and one of
    0xff (https://www.aumasson.jp/siphash/siphash.pdf).
    """
    data = key.encode() + b"\xff"
    v0, v1, v2, v3 = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573

    def mix() -> None:
        nonlocal v0, v1, v2, v3
        v0 = (v0 + v1) & _MASK
        v1 = _turned(v1, 13) ^ v0
        v0 = _turned(v0, 32)
        v2 = (v2 + v3) & _MASK
        v3 = _turned(v3, 16) ^ v2
        v0 = (v0 + v3) & _MASK
        v3 = _turned(v3, 21) ^ v0
        v2 = (v2 + v1) & _MASK
        v1 = _turned(v1, 17) ^ v2
        v2 = _turned(v2, 32)

    padded = data + b"\0" * (-(len(data) + 1) % _BLOCK_BYTES) + bytes([len(data) & 0xFF])
    for start in range(0, len(padded), _BLOCK_BYTES):
        word = int.from_bytes(padded[start : start + _BLOCK_BYTES], "little")
        v3 ^= word
        mix()
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        mix()
    return (v0 ^ v1 ^ v2 ^ v3) % workers


def _turned(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK
