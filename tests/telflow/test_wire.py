"""Batches as bytes: pickled between processes, kept in snapshots."""

from __future__ import annotations

import gc
import pickle
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow import Signal, TelemetryBatch, wire
from telflow.errors import BatchError
from telflow.wire import PayloadCache
from tests.batches import batches, spans
from tests.cluster import run_cluster
from tests.strategies import thorough

MANY = spans([{"n": i, "text": "x" * 50} for i in range(1000)], resource={"service.name": "shop"}, tenant="acme")


@thorough(30)
@given(batches(), st.data())
def test_every_batch_survives_pickling_and_keeping(batch: TelemetryBatch, data: st.DataObject) -> None:
    """Any slice of any batch is equal after either way, and what it says of itself too."""
    part = batch.slice(data.draw(st.integers(0, batch.num_rows)), data.draw(st.integers(0, batch.num_rows)))
    part = TelemetryBatch(part.signal, part.records, part.resources, part.scopes, 7)
    pickled = pickle.loads(pickle.dumps(part))  # noqa: S301 - made in this line
    for copy in (pickled, *(TelemetryBatch.from_ipc_bytes(part.to_ipc_bytes(how)) for how in (None, "lz4", "zstd"))):
        assert copy == part
        assert copy.unknown_fields == 7
        copy.records.validate(full=True)


def test_the_two_passes_agree() -> None:
    """Bytewax allocates by the length of the first pass and writes the second: they are the same bytes, made once."""
    part = MANY.slice(10, 100)
    assert pickle.dumps(part) == pickle.dumps(part) == pickle.dumps(part)


def test_a_slice_does_not_ship_its_parent() -> None:
    """One row in a thousand pickles to a small fraction."""
    assert len(pickle.dumps(MANY.slice(500, 1))) * 20 < len(pickle.dumps(MANY))
    assert len(MANY.slice(500, 1).to_ipc_bytes()) * 10 < len(MANY.to_ipc_bytes())
    assert len(MANY.to_ipc_bytes("lz4")) * 2 < len(MANY.to_ipc_bytes())


class Item:
    """Something a weak reference can be made to."""


def test_the_cache_hands_over_once_and_forgets() -> None:
    """The second request is answered from the cache, the third makes anew."""
    cache, made, item = PayloadCache(100), [], Item()

    def make() -> bytes:
        made.append(1)
        return b"12345"

    assert [cache.get(item, make) for _ in range(4)] == [b"12345"] * 4
    assert len(made) == 2
    assert cache.num_bytes == 0


def test_the_cache_is_bounded() -> None:
    """Older payloads give way; one larger than the bound is not kept."""
    cache, items = PayloadCache(100), [Item() for _ in range(50)]
    for item in items:
        cache.get(item, lambda: bytes(30))
        assert cache.num_bytes <= 100
    cache.get(items[0], lambda: bytes(101))
    assert cache.num_bytes <= 100


def test_the_cache_lets_the_dead_go() -> None:
    """A batch that was pickled once only leaves nothing behind."""
    cache, item = PayloadCache(100), Item()
    cache.get(item, lambda: bytes(30))
    assert cache.num_bytes == 30
    del item
    gc.collect()
    assert cache.num_bytes == 0


def test_the_cache_serves_threads() -> None:
    """Several threads that pickle at once get their own payloads, and the count of bytes stays right."""
    cache, wrong = PayloadCache(10_000), []

    def work(number: int) -> None:
        for _ in range(300):
            item, payload = Item(), bytes([number]) * 50
            for _ in range(2):
                if cache.get(item, lambda payload=payload: payload) != payload:  # type: ignore[misc]
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not wrong
    assert cache.num_bytes == 0


def test_a_process_with_other_columns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two versions in one cluster give a clear error, not columns read wrongly."""
    payload = wire.pickled(MANY.slice(0, 1))
    monkeypatch.setitem(wire._FINGERPRINTS, Signal.TRACES, 1)
    with pytest.raises(BatchError, match="run one version in a cluster"):
        wire.unpickled(payload)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[:0], "not the bytes of a batch"),
        (lambda data: b"pickle" + data, "not the bytes of a batch"),
        (lambda data: data[:-1], "expected .* bytes, got"),
        (lambda data: data + b"\0", "expected .* bytes, got"),
        (lambda data: data[:8] + b"\x09" + data[9:], "expected .* bytes, got"),
        (lambda data: data[:4] + b"\x63\0\0\0" + data[8:], "format 1, got 99: written by another version"),
        (lambda data: data[:40] + bytes(len(data) - 40), "damaged"),
    ],
)
def test_damaged_bytes_are_refused(damage: object, complaint: str) -> None:
    """What is not, or no longer, the bytes of a batch gives an error that says so."""
    assert callable(damage)
    with pytest.raises(BatchError, match=complaint):
        TelemetryBatch.from_ipc_bytes(damage(MANY.slice(0, 3).to_ipc_bytes()))


def test_kept_bytes_with_other_columns_are_refused() -> None:
    """A snapshot of a version with other columns is named as what it is."""
    table = pa.record_batch({"other": [1]})
    data = wire.to_ipc_bytes(Signal.TRACES, (table, MANY.resources, MANY.scopes), 0)
    with pytest.raises(BatchError, match="records: column 0: expected"):
        TelemetryBatch.from_ipc_bytes(data)


CLUSTER_FLOW = """
import pyarrow as pa
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from tests.telflow.test_wire import batch_number

class Part(StatelessSourcePartition):
    def __init__(self, worker):
        self.left = list(range(worker, 24, 2))
    def next_batch(self):
        if not self.left:
            raise StopIteration
        return [batch_number(self.left.pop(0))]

class Source(DynamicSource):
    def build(self, step_id, worker_index, worker_count):
        return Part(worker_index)

class Out(StatelessSinkPartition):
    def __init__(self, worker):
        self.worker = worker
    def write_batch(self, items):
        for key, batch in items:
            same = batch == batch_number(int(key))
            print(f"worker={self.worker} key={key} rows={batch.num_rows} same={same}", flush=True)

class Sink(DynamicSink):
    def build(self, step_id, worker_index, worker_count):
        return Out(worker_index)

def number_of(batch):
    return batch.attribute("number", level="resource", type=pa.string())[0].as_py()

flow = Dataflow("exchange")
batches = op.input("in", flow, Source())
keyed = op.key_on("key", batches, number_of)
spread = op.stateful_map("spread", keyed, lambda state, batch: (None, batch))
op.output("out", spread, Sink())
"""


def batch_number(number: int) -> TelemetryBatch:
    """A batch that says in its resource which it is; every second a slice."""
    batch = spans(
        [{"n": i, "d": float("nan"), "list": [1, "x"]} for i in range(300)],
        resource={"number": number},
        tenant="acme",
    )
    return batch.slice(10, 200) if number % 2 else batch


def test_batches_cross_between_two_processes_intact(tmp_path: Path) -> None:
    """In a cluster of two operating system processes every batch arrives once and equal, on either side."""
    flow = tmp_path / "exchange_flow.py"
    flow.write_text(CLUSTER_FLOW)
    lines = [line for output in run_cluster(flow) for line in output.splitlines() if line.startswith("worker=")]
    assert len(lines) == 24
    assert all(line.endswith("same=True") for line in lines)
    workers = {line.split()[0] for line in lines}
    assert workers == {"worker=0", "worker=1"}
    assert len({line.split()[1] for line in lines}) == 24
