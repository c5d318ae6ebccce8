"""Facts about spans: read from the columns of a batch, taken apart by trace, and saved."""

from __future__ import annotations

import pickle

import numpy as np
from pydantic import TypeAdapter

from telflow.sampling.policies import Policy
from telflow.sampling.predicates import Predicates
from telflow.sampling.span_facts import SpanFacts
from tests.sampling import Row, rows_batch, trace_id_of
from tests.spans import EPOCH, SECOND

PREDICATES = Predicates(TypeAdapter(tuple[Policy, ...]).validate_python([{"type": "status"}]))
ROWS = [
    Row(
        trace=n % 7,
        span=n,
        at=n,
        root=n % 3 == 0,
        error=n % 4 == 0,
        duration=n * SECOND,
        tenant=["acme", None, "initech"][n % 3],
        trace_state=f"ot=rv:{n:014x}" if n % 5 == 0 else "",
    )
    for n in range(60)
]


def trace_of(facts: SpanFacts) -> list[bytes]:
    pairs = zip(facts.high.tolist(), facts.low.tolist(), strict=True)
    return [high.to_bytes(8, "little") + low.to_bytes(8, "little") for high, low in pairs]


def check(facts: SpanFacts) -> None:
    """Each row says what its span is."""
    rows = [ROWS[number] for number in facts.rows]
    assert trace_of(facts) == [trace_id_of(row.trace) for row in rows]
    assert facts.end.tolist() == [EPOCH + (row.at * SECOND + row.duration) for row in rows]
    assert facts.start.tolist() == [EPOCH + row.at * SECOND for row in rows]
    assert facts.root.tolist() == [row.root for row in rows]
    assert facts.bits.tolist() == [int(row.error) for row in rows]
    assert [facts.tenants[place] for place in facts.tenant] == [row.tenant for row in rows]
    assert facts.explicit is not None
    assert facts.explicit.tolist() == [row.span if row.trace_state else 2**64 - 1 for row in rows]


def test_they_say_what_the_spans_are() -> None:
    """Times, identity, tenant, predicates and randomness of each; and about how much memory all take."""
    batch = rows_batch(ROWS)
    facts = SpanFacts.of(batch, "segment", PREDICATES)
    check(facts)
    assert (facts.segment, facts.num_bytes, len(facts)) == ("segment", batch.num_bytes, 60)
    assert SpanFacts.of(batch.slice(1, 4), "quiet", PREDICATES).explicit is None


def test_parts_hold_whole_traces() -> None:
    """Every span is in one part, with the others of its trace, in their order; bytes are shared out."""
    facts = SpanFacts.of(rows_batch(ROWS), "segment", PREDICATES)
    parts = facts.split(3)
    assert sorted(np.concatenate([part.rows for _, part in parts]).tolist()) == list(range(60))
    for _, part in parts:
        check(part)
        assert part.rows.tolist() == sorted(part.rows)
    traces = [set(trace_of(part)) for _, part in parts]
    assert sum(map(len, traces)) == len(set.union(*traces)) == 7
    total = sum(part.num_bytes for _, part in parts)
    assert facts.num_bytes - len(parts) < total <= facts.num_bytes
    assert [number for number, _ in parts[0][1].split(3)] == [parts[0][0]]


def test_a_state_is_plain_data() -> None:
    """It can be pickled, and gives the same facts."""
    facts = SpanFacts.of(rows_batch(ROWS), "segment", PREDICATES).split(2)[0][1]
    copy = SpanFacts.from_state(pickle.loads(pickle.dumps(facts.state())))  # noqa: S301 - our own
    check(copy)
    assert copy.rows.tolist() == facts.rows.tolist()
