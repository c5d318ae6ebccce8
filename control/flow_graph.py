"""A dataflow as a graph of its steps, and that graph as Mermaid text."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bytewax.dataflow import Dataflow, Operator
from bytewax.visualize import RenderedOperator, to_rendered

__all__ = ["Edge", "FlowGraph", "Kind", "Step", "flow_graph", "to_mermaid"]


class Kind(enum.StrEnum):
    """What a step does to the data."""

    SOURCE = "source"
    OPERATOR = "operator"
    SINK = "sink"


@dataclass(frozen=True, slots=True)
class Step:
    """One step as the flow's author wrote it; the engine's steps inside it are not shown.

    Attributes:
        step_id: Unique in the flow, and the key of the step's recovery state.
        name: The step's own part of the id.
        operator: The operator's name; the class of a source or sink.
        kind: Whether data comes in, goes through or goes out here.
    """

    step_id: str
    name: str
    operator: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Edge:
    """A stream from one step to another.

    Attributes:
        start: Index of the step it comes from.
        end: Index of the step it goes to.
        label: Which of several outputs it is; empty when there is only one.
    """

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class FlowGraph:
    """The steps of a flow in the order of their definition, and the streams between them."""

    name: str
    steps: tuple[Step, ...]
    edges: tuple[Edge, ...]


_PLUMBING = ("key_on", "key_rm")


def flow_graph(flow: Dataflow, *, plumbing: bool = False) -> FlowGraph:
    """Return the steps and streams of a flow.

    Args:
        flow: The dataflow.
        plumbing: Show also the steps that only put a key on an item or take it off.
    """
    rendered = to_rendered(flow).substeps
    origins: dict[str, tuple[int, str]] = {}  # an output's port → the shown step it comes from, and which output
    steps: list[Step] = []
    edges: list[Edge] = []
    for step, parts in zip(flow.substeps, rendered, strict=True):
        sources = [origins[port_id] for port in parts.inp_ports for port_id in port.from_port_ids]
        if parts.op_type in _PLUMBING and not plumbing:
            origins |= {port.port_id: sources[0] for port in parts.out_ports}
            continue
        number = len(steps)
        steps.append(Step(parts.step_id, parts.step_name, _operator(step, parts), _kind(parts)))
        edges += [Edge(start, number, label) for start, label in sources]
        several = len(parts.out_ports) > 1
        origins |= {port.port_id: (number, port.port_name if several else "") for port in parts.out_ports}
    return FlowGraph(flow.flow_id, tuple(steps), tuple(dict.fromkeys(edges)))


def _operator(step: Operator, rendered: RenderedOperator) -> str:
    """Name what is plugged into the engine's `input` and `output`, which say nothing by themselves."""
    plugged = getattr(step, "source", None) or getattr(step, "sink", None)
    return rendered.op_type if plugged is None else type(plugged).__name__


def _kind(step: RenderedOperator) -> Kind:
    if not step.inp_ports:
        return Kind.SOURCE
    return Kind.OPERATOR if step.out_ports else Kind.SINK


_SHAPES = {Kind.SOURCE: ('(["', '"])'), Kind.OPERATOR: ('["', '"]'), Kind.SINK: ('[/"', '"/]')}


def to_mermaid(graph: FlowGraph, *, down: bool = True) -> str:
    """Write the graph as a Mermaid flowchart, which GitHub and most documentation tools draw.

    Args:
        graph: What to draw.
        down: From top to bottom; otherwise from left to right.
    """
    lines = [f"flowchart {'TD' if down else 'LR'}"]
    for i, step in enumerate(graph.steps):
        start, end = _SHAPES[step.kind]
        detail = f"<br/><small>{_escape(step.operator)}</small>" if step.operator != step.name else ""
        lines.append(f"    s{i}{start}{_escape(step.name)}{detail}{end}:::{step.kind}")
    for edge in graph.edges:
        label = f'|"{_escape(edge.label)}"|' if edge.label else ""
        lines.append(f"    s{edge.start} -->{label} s{edge.end}")
    lines += [
        "    classDef source fill:#dff3e8,stroke:#2e8b62,color:#123",
        "    classDef operator fill:#e8eefb,stroke:#4a6fb5,color:#123",
        "    classDef sink fill:#fdeedd,stroke:#c07a2c,color:#123",
    ]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
