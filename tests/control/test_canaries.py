"""Nothing sensitive leaves a gateway, wherever in a request it stood: not by the wire, in a file, or in a log line.

The command as users run it, with default redaction: official requests in over HTTP, OTLP out, an archive, a console.
"""

from __future__ import annotations

import http.client
import json
import re
import signal as signals
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.otlp import NullOtlpServer
from telflow.codec import decode, encode
from telflow.packages import ROOT
from telflow.schema import Signal
from tests.canaries import BYTES_FORMS, LOCATIONS, NUMBER_FORMS, TEXT_FORMS, leaks, request_with

_FORMS = [
    *((str, form) for form in TEXT_FORMS.values()),
    *((float, form) for form in NUMBER_FORMS.values()),
    *((bytes, form) for form in BYTES_FORMS.values()),
]
SETTINGS = """
receivers: {{otlp: {{grpc: false, http: {{endpoint: "127.0.0.1:0"}}}}}}
exporters:
  out: {{endpoint: "127.0.0.1:{grpc}"}}
  json: {{endpoint: "http://127.0.0.1:{http}", protocol: http/json}}
archive: {{path: {folder}/archive}}
console: {{format: json}}
telemetry: false
"""


def payloads() -> Iterator[tuple[Signal, bytes]]:
    """One request for each place and form."""
    for signal, _, put, kinds in LOCATIONS:
        for kind, form in _FORMS:
            if kind in kinds:
                yield signal, request_with(signal, put, form).SerializeToString()


def values(file: Path) -> Iterator[bytes]:
    """Everything that stands in a Parquet file, decompressed: each column's buffers, and what its footer says."""
    table = pq.read_table(file)
    for column in table.columns:
        for chunk in column.chunks:
            yield from (buffer.to_pybytes() for buffer in chunk.buffers() if isinstance(buffer, pa.Buffer))
    yield repr(pq.read_metadata(file).to_dict()).encode()


@pytest.mark.timeout(180)
def test_a_canary_in_any_place_leaves_by_no_way(tmp_path: Path) -> None:
    """Every place of design and form: searched in both exports, the archive's files, the console and the log."""
    sent: Counter[Signal] = Counter()
    with NullOtlpServer(keep=True) as server:
        settings = tmp_path / "telflow.yaml"
        settings.write_text(SETTINGS.format(grpc=server.grpc_port, http=server.http_port, folder=tmp_path))
        command = [sys.executable, "-P", "-m", "telflow", "run", str(settings), "--output", "json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, cwd=ROOT, **pipes)  # type: ignore[call-overload]
        try:
            address = json.loads(process.stdout.readline())["http"]
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
            for number, (signal, payload) in enumerate(payloads()):
                assert leaks(payload)
                kind, body = ("x-protobuf", payload)
                if number % 7 == 0:
                    kind, body = "json", encode(decode(payload, signal), "json")
                connection.request("POST", f"/v1/{signal}", body, {"Content-Type": f"application/{kind}"})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
                sent[signal] += decode(payload, signal).num_rows
                if number % 50 == 0:
                    # One that cannot be read either: the answer goes to its sender, and no word of it into the log.
                    connection.request(
                        "POST", f"/v1/{signal}", payload[:-1], {"Content-Type": "application/x-protobuf"}
                    )
                    assert connection.getresponse().read()
            connection.close()
            process.send_signal(signals.SIGTERM)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, err
    for protocol in ("protobuf", "json"):
        kept = [request for request in server.kept if request.encoding == protocol]
        assert not [leak for request in kept for leak in leaks(request.payload)]
        for signal in (Signal.TRACES, Signal.LOGS):
            found = [decode(r.payload, signal, r.encoding).num_rows for r in kept if r.signal is signal]
            assert sum(found) == sent[signal]
    files = [file for file in (tmp_path / "archive").rglob("*") if file.is_file()]
    tables = [file for file in files if re.search(r"\.parquet$", file.name)]
    assert {file.relative_to(tmp_path / "archive").parts[0] for file in tables} == set(Signal)
    assert not [leak for file in files for leak in leaks(file.read_bytes())]
    assert not [leak for file in tables for data in values(file) for leak in leaks(data)]
    assert len(out) > 1000
    assert not leaks(out.encode())
    assert not leaks(err.encode())
