"""Pictures of flows: every step and stream is in them, nothing overlaps, names cannot break them."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow, Stream, operator
from bytewax.testing import TestingSink, TestingSource
from hypothesis import given
from hypothesis import strategies as st

from control.flow_graph import Edge, FlowGraph, Kind, Step, flow_graph, to_mermaid
from control.graph_layout import lay_out
from control.svg import to_svg

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Halves:
    low: Stream[int]
    high: Stream[int]


@operator
def halve(step_id: str, up: Stream[int]) -> Halves:  # noqa: ARG001 - Bytewax reads it
    """Part a stream; a step with steps inside and two outputs."""
    parts = op.branch("branch", up, lambda x: x < 5)
    return Halves(parts.trues, parts.falses)


def example() -> Dataflow:
    flow = Dataflow("example")
    halves = halve("halve", op.input("in", flow, TestingSource([1, 7])))
    doubled = op.map("double", halves.low, lambda x: 2 * x)
    op.output("all", op.merge("join", doubled, halves.high), TestingSink([]))
    op.output("low", doubled, TestingSink([]))
    return flow


def test_a_graph_has_the_steps_the_author_wrote() -> None:
    """Not those inside them; streams are labelled where a step has several outputs."""
    graph = flow_graph(example())
    assert [(s.name, s.operator, s.kind) for s in graph.steps] == [
        ("in", "TestingSource", Kind.SOURCE),
        ("halve", "halve", Kind.OPERATOR),
        ("double", "map", Kind.OPERATOR),
        ("join", "merge", Kind.OPERATOR),
        ("all", "TestingSink", Kind.SINK),
        ("low", "TestingSink", Kind.SINK),
    ]
    assert set(graph.edges) == {
        Edge(0, 1, ""),
        Edge(1, 2, "low"),
        Edge(2, 3, ""),
        Edge(1, 3, "high"),
        Edge(3, 4, ""),
        Edge(2, 5, ""),
    }


def test_steps_that_only_handle_keys_are_left_out() -> None:
    """Their streams run through; they are shown when asked for."""
    flow = Dataflow("keyed")
    keyed = op.key_on("key", halve("halve", op.input("in", flow, TestingSource([1]))).high, str)
    op.output("out", op.key_rm("plain", keyed), TestingSink([]))
    graph = flow_graph(flow)
    assert [s.name for s in graph.steps] == ["in", "halve", "out"]
    assert graph.edges == (Edge(0, 1, ""), Edge(1, 2, "high"))
    assert [s.name for s in flow_graph(flow, plumbing=True).steps] == ["in", "halve", "key", "plain", "out"]


@pytest.mark.parametrize("down", [True, False])
def test_mermaid_names_every_step_and_stream(down: bool) -> None:
    """In the direction asked for."""
    lines = to_mermaid(flow_graph(example()), down=down).splitlines()
    assert lines[0] == ("flowchart TD" if down else "flowchart LR")
    assert '    s0(["in<br/><small>TestingSource</small>"]):::source' in lines
    assert '    s1["halve"]:::operator' in lines
    assert '    s1 -->|"high"| s3' in lines


@pytest.mark.parametrize("down", [True, False])
def test_an_svg_shows_every_step_and_stream_inside_its_frame(down: bool) -> None:
    """It parses; boxes lie inside the picture and apart from one another."""
    graph = flow_graph(example())
    root = ET.fromstring(to_svg(graph, down=down))  # noqa: S314 - our own text
    texts = {e.text for e in root.iter(f"{SVG}text")}
    assert {s.name for s in graph.steps} <= texts
    assert {"example", "low", "high"} <= texts
    paths = [e for e in root.iter(f"{SVG}path") if "marker-end" in e.attrib]
    assert len(paths) == len(graph.edges)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [
        [float(e.attrib[k]) for k in ("x", "y", "width", "height")]
        for e in root.iter(f"{SVG}rect")
        if "stroke" in e.attrib
    ]
    assert len(boxes) == len(graph.steps)
    for x, y, w, h in boxes:
        assert x >= 0
        assert x + w <= width
        assert y >= 0
        assert y + h <= height
    for (ax, ay, aw, ah), (bx, by, bw, bh) in itertools.combinations(boxes, 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay


def test_labels_stand_on_their_streams_where_streams_part_and_join() -> None:
    """Two labelled streams into one step: their labels keep apart."""
    kinds = (Kind.SOURCE, Kind.OPERATOR, Kind.OPERATOR, Kind.SINK)
    steps = tuple(Step(f"f.{n}", n, n, kind) for n, kind in zip("abcd", kinds, strict=True))
    graph = FlowGraph("f", steps, (Edge(0, 1, ""), Edge(0, 2, ""), Edge(1, 3, "left"), Edge(2, 3, "right")))
    for down in (True, False):
        root = ET.fromstring(to_svg(graph, down=down))  # noqa: S314 - our own text
        place = {e.text: (float(e.attrib["x"]), float(e.attrib["y"])) for e in root.iter(f"{SVG}text")}
        apart = max(abs(a - b) for a, b in zip(place["left"], place["right"], strict=True))
        assert apart > 15


def test_names_are_escaped() -> None:
    """A step may be called anything the engine allows."""
    steps = (Step("f.a", 'a"<&>', "map", Kind.SOURCE), Step("f.b", "b", "b<x>", Kind.SINK))
    graph = FlowGraph("f<&>", steps, (Edge(0, 1, '"<'),))
    ET.fromstring(to_svg(graph))  # noqa: S314 - our own text
    assert 'a"<' not in to_mermaid(graph)


def test_an_empty_flow_is_a_picture_too() -> None:
    """Of nothing but its name."""
    root = ET.fromstring(to_svg(FlowGraph("empty", (), ())))  # noqa: S314 - our own text
    assert [e.text for e in root.iter(f"{SVG}text")] == ["empty"]


def test_a_source_stands_just_above_the_step_that_reads_it() -> None:
    """Not at the top of a long flow it joins at the end."""
    layout = lay_out([1] * 4, [1] * 4, [(0, 1), (1, 2), (3, 2)], gap_along=1, gap_across=1)
    assert layout.layer == [0, 1, 2, 1]


def test_crossings_are_undone() -> None:
    """Two streams defined crosswise are drawn side by side."""
    layout = lay_out([1] * 4, [10] * 4, [(0, 3), (1, 2)], gap_along=1, gap_across=1)
    assert (layout.across[0] < layout.across[1]) == (layout.across[3] < layout.across[2])


@given(st.data())
def test_any_graph_is_laid_out_without_overlap(data: st.DataObject) -> None:
    """Every stream runs forward, neighbours keep their gap, and all lies within the extent."""
    count = data.draw(st.integers(1, 9))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda e: e[0] < e[1])
    edges = data.draw(st.lists(ends, unique=True, max_size=14)) if count > 1 else []
    breadth = data.draw(st.lists(st.floats(1, 200), min_size=count, max_size=count))
    layout = lay_out([10.0] * count, breadth, edges, gap_along=5, gap_across=7)
    assert all(layout.layer[a] < layout.layer[b] for a, b in edges)
    for a, b in itertools.combinations(range(count), 2):
        if layout.layer[a] == layout.layer[b]:
            assert abs(layout.across[a] - layout.across[b]) >= (breadth[a] + breadth[b]) / 2 + 7 - 1e-6
    assert all(w / 2 - 1e-6 <= x <= layout.breadth - w / 2 + 1e-6 for x, w in zip(layout.across, breadth, strict=True))
    assert all(len(r) == layout.layer[b] - layout.layer[a] - 1 for r, (a, b) in zip(layout.routes, edges, strict=True))
