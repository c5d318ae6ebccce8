"""What receiving and exporting OTLP cost a worker, in CPU time of its whole process.

A worker process receives requests of 512 spans, or exports batches of 8192; this process is the other end, so that its
work is not counted. Beside each figure stands what the same transport costs without decoding or encoding (a null
server, a client that sends one ready body over and over), and what decoding or encoding costs alone.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import aiohttp
import grpc

from bench import report
from bench.payloads import RECORDS, SMALL, payload
from connectors.otlp.exporter import OtlpSink
from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.protocol import RPC_METHODS
from connectors.otlp.receiver import OtlpReceiver
from connectors.otlp.settings import (
    GrpcServerSettings,
    HttpServerSettings,
    OtlpExporterSettings,
    OtlpReceiverSettings,
)
from connectors.otlp.transport import connect
from telflow import Signal
from telflow.accounting import Ledger, Outcome
from telflow.codec import decode, encode
from telflow.delivery.intake import MemoryIntake

SIGNAL = Signal.TRACES
WARM_UP, REQUESTS = 200, 3000
EXPORTS = 150
IN_FLIGHT = 8
ANY = "127.0.0.1:0"


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# The worker's side: `python -m bench.bench_gateway_io <role> ...`, commands on stdin, answers on stdout.


def serve_receiver() -> None:
    """Print the ports, then answer each line with CPU seconds and records received."""
    intake, ledger = MemoryIntake(), Ledger()
    settings = OtlpReceiverSettings(
        grpc=GrpcServerSettings(endpoint=ANY), http=HttpServerSettings(endpoint=ANY), tenant="acme"
    )
    receiver = OtlpReceiver(settings, intake, ledger=ledger)
    ports = receiver.start()

    def drain() -> None:
        while not intake.drained:
            intake.take(timeout_s=0.02, max_bytes=8 << 20)

    source = threading.Thread(target=drain)
    source.start()
    print(ports.grpc, ports.http, flush=True)
    for _ in sys.stdin:
        print(cpu_s(), sum(row.count for row in ledger.rows()), flush=True)
    receiver.stop()
    intake.close()
    source.join()


def serve_null() -> None:
    """Print the ports, then answer each line with CPU seconds and records received, as if each request had 512."""
    with NullOtlpServer() as server:
        print(server.grpc_port, server.http_port, flush=True)
        for _ in sys.stdin:
            print(cpu_s(), server.requests(SIGNAL) * SMALL, flush=True)


def export(endpoint: str, protocol: str, compression: str) -> None:
    """Print the CPU time per span of the sink, and of its client alone."""
    settings = OtlpExporterSettings.model_validate(
        {"endpoint": endpoint, "protocol": protocol, "compression": compression, "max_request_bytes": 20 << 20}
    )
    batch = decode(payload(SIGNAL), SIGNAL, tenant="acme")
    ledger = Ledger()
    part = OtlpSink(settings, ledger=ledger).build_part("export", "otlp-0", None)
    part.write_batch([batch] * 5)
    part.snapshot()
    before = cpu_s()
    for _ in range(EXPORTS):
        part.write_batch([batch])
    part.snapshot()
    sink_us = (cpu_s() - before) / (EXPORTS * RECORDS) * 1e6
    part.close()
    assert [(row.outcome, row.count) for row in ledger.rows()] == [(Outcome.DELIVERED, (EXPORTS + 5) * RECORDS)]
    client, body = connect(settings), encode(batch)
    before = cpu_s()
    for _ in range(EXPORTS):
        client.send(SIGNAL, body)
    print(sink_us, (cpu_s() - before) / (EXPORTS * RECORDS) * 1e6, flush=True)
    client.close()


# This process's side.


def send_grpc(port: int, body: bytes, count: int) -> None:
    room, failed = threading.Semaphore(IN_FLIGHT), []

    def done(call: grpc.Future[bytes]) -> None:
        if call.exception() is not None:
            failed.append(call.exception())
        room.release()

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(RPC_METHODS[SIGNAL], None, None)
        for _ in range(count):
            room.acquire()
            method.future(body, timeout=60).add_done_callback(done)
        for _ in range(IN_FLIGHT):
            room.acquire()
    assert not failed, failed[0]


def send_http(port: int, body: bytes, count: int) -> None:
    async def send() -> None:
        left = iter(range(count))
        url, headers = f"http://127.0.0.1:{port}/v1/{SIGNAL}", {"Content-Type": "application/x-protobuf"}
        async with aiohttp.ClientSession(headers=headers) as session:

            async def sender() -> None:
                for _ in left:
                    async with session.post(url, data=body) as response:
                        assert response.status == 200
                        await response.read()

            await asyncio.gather(*[sender() for _ in range(IN_FLIGHT)])

    asyncio.run(send())


def receive(role: str, transport: str) -> tuple[float, float]:
    """CPU microseconds of the worker per span, and spans per second of wall time."""
    send: Callable[[int, bytes, int], None] = send_grpc if transport == "grpc" else send_http
    body = payload(SIGNAL, SMALL)
    with start(role) as worker:
        grpc_port, http_port = map(int, read(worker).split())
        port = grpc_port if transport == "grpc" else http_port
        send(port, body, WARM_UP)
        cpu_before, spans_before = ask(worker)
        started = time.perf_counter()
        send(port, body, REQUESTS)
        wall_s = time.perf_counter() - started
        cpu_after, spans_after = ask(worker)
    spans = spans_after - spans_before
    assert spans == REQUESTS * SMALL, f"sent {REQUESTS * SMALL}, received {spans}"
    return (cpu_after - cpu_before) / spans * 1e6, spans / wall_s


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.bench_gateway_io", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline()


def ask(worker: subprocess.Popen[str]) -> tuple[float, int]:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    cpu, records = read(worker).split()
    return float(cpu), int(records)


def alone(work: Callable[[], object], records: int, repeat: int) -> float:
    """CPU microseconds per record of something done in this process."""
    work()
    before = time.process_time()
    for _ in range(repeat):
        work()
    return (time.process_time() - before) / (repeat * records) * 1e6


def main() -> None:
    small, batch = payload(SIGNAL, SMALL), decode(payload(SIGNAL), SIGNAL)
    figures: dict[str, float] = {
        "request_spans": SMALL,
        "request_bytes": len(small),
        "decode_alone_us_per_span": alone(lambda: decode(small, SIGNAL), SMALL, 500),
        "encode_alone_us_per_span": alone(lambda: encode(batch), RECORDS, 50),
    }
    for transport in ("grpc", "http"):
        for role in ("receiver", "null"):
            cpu_us, rate = receive(role, transport)
            figures[f"{role}_{transport}_cpu_us_per_span"] = cpu_us
            figures[f"{role}_{transport}_spans_per_s"] = rate
    for protocol, compression in (
        ("grpc", "none"),
        ("grpc", "gzip"),
        ("http/protobuf", "none"),
        ("http/protobuf", "zstd"),
    ):
        with NullOtlpServer() as server:
            port = server.grpc_port if protocol == "grpc" else server.http_port
            with start("export", f"127.0.0.1:{port}", protocol, compression) as worker:
                sink_us, client_us = map(float, read(worker).split())
        name = f"{protocol.partition('/')[0]}_{compression}"
        figures[f"export_{name}_cpu_us_per_span"] = sink_us
        figures[f"export_{name}_client_alone_us_per_span"] = client_us
    for name, figure in figures.items():
        print(f"{name:45} {figure:12.3f}")
    print(report.write("gateway_io", figures))


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["receiver"]:
            serve_receiver()
        case ["null"]:
            serve_null()
        case ["export", endpoint, protocol, compression]:
            export(endpoint, protocol, compression)
        case other:
            sys.exit(f"expected no arguments, got {other}")
