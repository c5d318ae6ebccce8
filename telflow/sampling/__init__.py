"""Tail sampling: whole traces, kept or dropped by policies."""

from telflow.sampling.adjusted import with_adjusted_counts
from telflow.sampling.functions import TraceFunction
from telflow.sampling.held_spans import HeldSpans
from telflow.sampling.policies import (
    AllOf,
    Always,
    AnyOf,
    BooleanAttribute,
    Composite,
    CompositePart,
    Function,
    Latency,
    Match,
    Not,
    NumericAttribute,
    Policy,
    Probabilistic,
    RateLimit,
    SpanCount,
    Status,
    StringAttribute,
    leaves,
)
from telflow.sampling.predicates import Predicates
from telflow.sampling.segments import Released
from telflow.sampling.settings import TailSamplingSettings
from telflow.sampling.span_facts import SpanFacts
from telflow.sampling.tail_sampler import Sampled, TailSampler
from telflow.sampling.trace_index import shards_of_words, trace_words
from telflow.sampling.trace_state import adjusted_counts, read_trace_state

__all__ = [
    "AllOf",
    "Always",
    "AnyOf",
    "BooleanAttribute",
    "Composite",
    "CompositePart",
    "Function",
    "HeldSpans",
    "Latency",
    "Match",
    "Not",
    "NumericAttribute",
    "Policy",
    "Predicates",
    "Probabilistic",
    "RateLimit",
    "Released",
    "Sampled",
    "SpanCount",
    "SpanFacts",
    "Status",
    "StringAttribute",
    "TailSampler",
    "TailSamplingSettings",
    "TraceFunction",
    "adjusted_counts",
    "leaves",
    "read_trace_state",
    "shards_of_words",
    "trace_words",
    "with_adjusted_counts",
]
