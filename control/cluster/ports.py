"""Ports for all workers of a host, where the settings leave the choice open."""

from __future__ import annotations

import socket

__all__ = ["SharedPort"]


class SharedPort:
    """A port that is kept for workers that share it; nothing is received at this end.

    A socket that is bound with SO_REUSEPORT but does not listen gets no connections, and keeps others of other users
    from taking the port between two generations of workers.
    """

    def __init__(self, address: str) -> None:
        """Reserve a free port of an address."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((address, 0))

    @property
    def number(self) -> int:
        """The port."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Give it back."""
        self._socket.close()
