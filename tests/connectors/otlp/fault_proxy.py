"""A wire that can be made to fail: a TCP proxy before a destination, for gRPC and HTTP alike."""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

__all__ = ["FaultProxy", "Wire"]

_CHUNK = 1 << 16


class Wire(enum.Enum):
    """How the wire behaves towards new connections."""

    GOOD = "good"
    """Passes everything on."""

    SILENT = "accepts and never answers"
    """Takes everything and answers nothing."""

    RESET = "resets connections"
    """Resets each connection once something was sent on it."""

    SLOW = "1 byte/s"
    """Passes one byte a second on, either way."""


class FaultProxy:
    """Listens on a port of its own and passes connections on to another one, as `wire` says."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._wire = Wire.GOOD
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self.port = int(self._listener.getsockname()[1])

    @property
    def wire(self) -> Wire:
        """The behaviour; setting it closes the connections there are."""
        return self._wire

    @wire.setter
    def wire(self, wire: Wire) -> None:
        self._wire = wire
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        self._listener.close()
        self.wire = Wire.RESET

    def _accept(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        wire = self._wire
        with contextlib.suppress(OSError), client:
            with self._lock:
                self._open.add(client)
            if wire is Wire.RESET:
                client.recv(1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif wire is Wire.SILENT:
                while client.recv(_CHUNK):
                    pass
            else:
                self._pass_on(client, slow=wire is Wire.SLOW)
        with self._lock:
            self._open.discard(client)

    def _pass_on(self, client: socket.socket, *, slow: bool) -> None:
        with socket.create_connection(("127.0.0.1", self._target_port)) as target:
            with self._lock:
                self._open.add(target)
            back = threading.Thread(target=_pump, args=(target, client, slow), daemon=True)
            back.start()
            _pump(client, target, slow)
            back.join()
            with self._lock:
                self._open.discard(target)


def _pump(source: socket.socket, sink: socket.socket, slow: bool) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 if slow else _CHUNK):
            sink.sendall(data)
            if slow:
                time.sleep(1)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
