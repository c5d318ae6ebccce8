"""Made-up telemetry: valid, the same for the same seed, with the shares asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from connectors.generator.batches import generate_batch, generate_batches, generate_requests
from connectors.generator.settings import GeneratorSettings
from telflow import Signal, TelemetryBatch
from telflow.codec import encode
from telflow.schema import RECORD_SCHEMAS, MetricType
from tests.oracle import REQUESTS, batch_from_message


def settings(**values: Any) -> GeneratorSettings:
    return GeneratorSettings(**{"start_time_unix_nano": 1_700_000_000_000_000_000, **values})


def one(signal: Signal, **values: Any) -> TelemetryBatch:
    return generate_batch(settings(signals=(signal,), **values), 0, 1_700_000_000_000_000_000)


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize(
    "values", [{}, {"attributes": 0, "services": 1}, {"attributes": 40, "services": 30}, {"batch_records": 1}]
)
def test_every_batch_is_what_its_request_says(signal: Signal, values: dict[str, Any]) -> None:
    """The columns are valid Arrow, and the official library reads the encoded batch as the same batch."""
    batch = one(signal, personal_data_share=0.5, **values)
    for part in (batch.records, batch.resources, batch.scopes):
        part.validate(full=True)
    assert batch.records.schema == RECORD_SCHEMAS[signal]
    read = batch_from_message(REQUESTS[signal].FromString(encode(batch)), signal, "tenant-1")
    assert read.records.drop_columns(["resource"]).equals(batch.records.drop_columns(["resource"]))
    services = [batch.attribute("service.name", level="resource"), read.attribute("service.name", level="resource")]
    assert services[0].equals(services[1])


def test_equal_seeds_give_equal_data_and_others_do_not() -> None:
    """A benchmark of today is that of tomorrow."""
    for signal in Signal:
        assert encode(one(signal)) == encode(one(signal))
        assert encode(one(signal)) != encode(one(signal, seed=8))


def test_signals_take_turns_and_the_total_is_exact() -> None:
    """Five batches of 100 and a last one of 50, in turn."""
    batches = list(generate_batches(settings(total_records=550, batch_records=100)))
    assert [b.num_rows for b in batches] == [100] * 5 + [50]
    assert [b.signal for b in batches] == [Signal.TRACES, Signal.METRICS, Signal.LOGS] * 2
    rest = list(generate_batches(settings(total_records=550, batch_records=100), first=4))
    assert [encode(b) for b in rest] == [encode(b) for b in batches[4:]]


def test_time_goes_on_at_the_rate() -> None:
    """Time stamps follow one another across batches, a record's share of a second apart."""
    batches = list(
        generate_batches(settings(signals=(Signal.LOGS,), total_records=20, batch_records=10, records_per_s=4))
    )
    times = np.concatenate([b.records["time_unix_nano"].to_numpy() for b in batches])
    assert set(np.diff(times.astype(np.int64))) == {250_000_000}
    assert times[0] == 1_700_000_000_000_000_000


def test_without_a_start_time_it_is_now() -> None:
    """The first record's time is the time of the call."""
    batch = next(generate_batches(GeneratorSettings(signals=(Signal.LOGS,))))
    assert batch.records["time_unix_nano"][0].as_py() > 1_750_000_000_000_000_000


def test_tenants_take_turns() -> None:
    """Each batch belongs to one tenant, each tenant sends every signal; with none there is none."""
    owners = [b.resources["tenant"][0].as_py() for b in generate_batches(settings(tenants=2, total_records=512 * 12))]
    assert owners == [*["tenant-1"] * 3, *["tenant-2"] * 3] * 2
    assert one(Signal.LOGS, tenants=0).resources["tenant"].null_count == 5


def test_a_trace_is_a_tree_over_services() -> None:
    """Each span's parent is in its trace, and each trace has one root."""
    records = one(Signal.TRACES, batch_records=600).records
    traces, spans, parents = (records[n].to_pylist() for n in ("trace_id", "span_id", "parent_span_id"))
    trace_of = dict(zip(spans, traces, strict=True))
    assert len(trace_of) == 600
    assert all(trace_of[parent] == trace for parent, trace in zip(parents, traces, strict=True) if parent)
    roots = [trace for parent, trace in zip(parents, traces, strict=True) if parent is None]
    assert sorted(roots) == sorted(set(traces))
    assert len(set(records["resource"].to_pylist())) == 5
    assert pc.all(pc.greater(records["end_time_unix_nano"], records["start_time_unix_nano"])).as_py()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_errors_have_the_share_asked_for(share: float) -> None:
    """Failed spans and error logs, within what chance allows for 4096 records."""
    spans = one(Signal.TRACES, batch_records=4096, error_share=share).records
    logs = one(Signal.LOGS, batch_records=4096, error_share=share).records
    assert pc.mean(pc.equal(spans["status_code"], 2)).as_py() == pytest.approx(share, abs=0.03)
    assert pc.mean(pc.equal(logs["severity_text"], "ERROR")).as_py() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_personal_data_has_the_share_asked_for(share: float) -> None:
    """E-mail and card as attributes of all signals and in the bodies of logs; none at all at 0."""
    for signal in Signal:
        batch = one(signal, batch_records=4096, personal_data_share=share)
        emails = batch.attribute("user.email")
        assert 1 - emails.null_count / 4096 == pytest.approx(share, abs=0.03)
        cards = set(batch.attribute("payment.card_number").drop_null().to_pylist())
        assert cards <= {"4111111111111111", "5555555555554444", "378282246310005", "6011111111111117"}
        if signal is Signal.LOGS:
            said = pc.match_substring(pc.struct_field(batch.records["body"], "str"), "@example.com")
            assert pc.equal(said, pc.is_valid(emails)).to_pylist() == [True] * 4096


def test_metrics_are_of_several_kinds() -> None:
    """Gauges, sums and histograms, each with the fields of its kind."""
    records = one(Signal.METRICS, batch_records=1000).records
    assert set(records["type"].to_pylist()) == {MetricType.GAUGE, MetricType.SUM, MetricType.HISTOGRAM}
    histograms = records.filter(pc.equal(records["type"], int(MetricType.HISTOGRAM))).to_pylist()
    assert all(sum(point["bucket_counts"]) == point["count"] for point in histograms)


def test_requests_are_the_batches_encoded() -> None:
    """For a sender: payload, number of records, tenant."""
    config = settings(total_records=600, tenants=0)
    requests, batches = list(generate_requests(config)), list(generate_batches(config))
    assert [r.payload for r in requests] == [encode(b) for b in batches]
    assert [(r.signal, r.tenant, r.records) for r in requests] == [(b.signal, None, b.num_rows) for b in batches]


def test_settings_that_make_nothing_are_refused() -> None:
    """There must be a signal."""
    with pytest.raises(ValueError, match="at least one of traces, metrics, logs"):
        GeneratorSettings(signals=())
