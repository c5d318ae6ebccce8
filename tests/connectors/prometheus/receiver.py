"""A receiver of remote write that answers as it is told."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

__all__ = ["Receiver", "receiver_of"]


@dataclass
class Receiver:
    """What it has got.

    Attributes:
        answers: Those that it will give, in turn: status and headers; 204 after them.
        requests: Headers and uncompressed body of each.
        url: Where it listens.
    """

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def receiver_of(
    *answers: tuple[int, dict[str, str]], tls: Path | None = None, mutual: bool = False
) -> Iterator[Receiver]:
    """Run a receiver.

    Args:
        answers: See `Receiver`.
        tls: Folder with `server.pem`, `server.key` and `ca.pem`; None: plain HTTP.
        mutual: Whether clients must show a certificate of the authority.
    """
    state = Receiver(list(answers))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            size = _length(body)
            state.requests.append((dict(self.headers), pa.Codec("snappy").decompress(body, size, asbytes=True)))
            status, headers = state.answers.pop(0) if state.answers else (204, {})
            said = b"" if status == 204 else b"because of user@example.com"
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(said))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that breaks off the handshake is what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "server.pem", tls / "server.key")
            if mutual:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(tls / "ca.pem")
            # The handshake in the connection's own thread: one that a client breaks off holds up nobody.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        state.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}/api/v1/write"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield state
        server.shutdown()
        thread.join(10)


def _length(compressed: bytes) -> int:
    """The varint that a Snappy block begins with."""
    value = 0
    for place, octet in enumerate(compressed):
        value |= (octet & 127) << 7 * place
        if octet < 128:
            break
    return value
