"""A worker for test_conformance_connections: a receiver on shared ports, in a process of its own.

Prints its ports; then answers each line on standard input with how many records it has received.
"""

from __future__ import annotations

import sys

from connectors.otlp.receiver import OtlpReceiver
from connectors.otlp.settings import GrpcServerSettings, HttpServerSettings, OtlpReceiverSettings
from telflow.accounting import Ledger
from telflow.delivery.intake import MemoryIntake


def main(grpc_port: str, http_port: str) -> None:
    """Serve until standard input ends."""
    ledger = Ledger()
    settings = OtlpReceiverSettings(
        grpc=GrpcServerSettings(endpoint=f"127.0.0.1:{grpc_port}"),
        http=HttpServerSettings(endpoint=f"127.0.0.1:{http_port}"),
        reuse_port=True,
    )
    receiver = OtlpReceiver(settings, MemoryIntake(), ledger=ledger)
    ports = receiver.start()
    print(ports.grpc, ports.http, flush=True)  # noqa: T201 - the protocol with the test
    for _ in sys.stdin:
        print(sum(row.count for row in ledger.rows()), flush=True)  # noqa: T201
    receiver.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
