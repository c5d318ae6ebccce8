"""A flow's graph as a self-contained SVG picture."""

from __future__ import annotations

import itertools
from html import escape

from control.flow_graph import FlowGraph, Kind, Step
from control.graph_layout import Layout, lay_out

__all__ = ["to_svg"]

_COLOURS = {
    Kind.SOURCE: ("#dff3e8", "#2e8b62"),
    Kind.OPERATOR: ("#e8eefb", "#4a6fb5"),
    Kind.SINK: ("#fdeedd", "#c07a2c"),
}
_NAME_PX, _DETAIL_PX = 14, 11
_CHARACTER = 0.6  # mean width of a character of these fonts, as a share of the font size
_HEIGHT, _PAD, _MARGIN, _TITLE = 46.0, 18.0, 24.0, 34.0
_FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"

_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 1 L9 5 L0 9 Z" fill="#7c8798"/></marker></defs>'
)

_Point = tuple[float, float]


def to_svg(graph: FlowGraph, *, down: bool = True) -> str:
    """Draw the graph.

    Args:
        graph: What to draw.
        down: From top to bottom; otherwise from left to right.
    """
    widths = [_width(s.name, s.operator) for s in graph.steps]
    heights = [_HEIGHT] * len(widths)
    labels = max((len(e.label) for e in graph.edges), default=0)
    edges = [(e.start, e.end) for e in graph.edges]
    if down:
        layout = lay_out(heights, widths, edges, gap_along=56 if labels else 36, gap_across=28)
        inner = (layout.breadth, layout.length)
    else:
        gap = max(48.0, labels * _DETAIL_PX * _CHARACTER + 52)
        layout = lay_out(widths, heights, edges, gap_along=gap, gap_across=26)
        inner = (layout.length, layout.breadth)
    width = max(inner[0], len(graph.name) * _NAME_PX * _CHARACTER) + 2 * _MARGIN
    height = inner[1] + 2 * _MARGIN + _TITLE
    shift = ((width - inner[0]) / 2, _MARGIN + _TITLE)
    size = f'width="{width:.0f}" height="{height:.0f}"'
    view = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} role="img" font-family="{_FONT}">',
        f"<title>Dataflow {escape(graph.name)}</title>",
        _ARROW,
        f'<rect {size} rx="12" fill="#ffffff"/>',
        _text(_MARGIN, _MARGIN + 10, graph.name, _NAME_PX, "#465061", weight=600, anchor="start"),
    ]
    parts += [part for i in range(len(edges)) for part in _edge(graph, layout, i, widths, shift, down=down)]
    for i, step in enumerate(graph.steps):
        x, y = _middle(layout, i, widths[i], shift, down=down)
        parts.append(_node(x, y, widths[i], step))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _width(name: str, operator: str) -> float:
    return max(len(name) * _NAME_PX, len(operator) * _DETAIL_PX) * _CHARACTER + 2 * _PAD


def _middle(layout: Layout, node: int, width: float, shift: _Point, *, down: bool) -> _Point:
    layer = layout.layer[node]
    if down:
        return layout.across[node] + shift[0], layout.along[layer] + _HEIGHT / 2 + shift[1]
    return layout.along[layer] + width / 2 + shift[0], layout.across[node] + shift[1]


def _node(x: float, y: float, width: float, step: Step) -> str:
    fill, stroke = _COLOURS[step.kind]
    radius = 10 if step.kind is Kind.OPERATOR else _HEIGHT / 2
    place = f'x="{x - width / 2:.1f}" y="{y - _HEIGHT / 2:.1f}" width="{width:.1f}" height="{_HEIGHT:.0f}"'
    shape = f'<rect {place} rx="{radius:.0f}" fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'
    if step.name == step.operator:
        return shape + _text(x, y + 5, step.name, _NAME_PX, "#1d2733", weight=600)
    name = _text(x, y - 2, step.name, _NAME_PX, "#1d2733", weight=600)
    return shape + name + _text(x, y + 14, step.operator, _DETAIL_PX, "#5d6878")


def _text(x: float, y: float, text: str, size: int, colour: str, *, weight: int = 400, anchor: str = "middle") -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _edge(
    graph: FlowGraph, layout: Layout, number: int, widths: list[float], shift: _Point, *, down: bool
) -> list[str]:
    edge = graph.edges[number]
    start = _middle(layout, edge.start, widths[edge.start], shift, down=down)
    end = _middle(layout, edge.end, widths[edge.end], shift, down=down)
    if down:
        points = [(start[0], start[1] + _HEIGHT / 2)]
        for layer, across in layout.routes[number]:
            top = layout.along[layer] + shift[1]
            points += [(across + shift[0], top), (across + shift[0], top + layout.depth[layer])]
        points.append((end[0], end[1] - _HEIGHT / 2))
    else:
        points = [(start[0] + widths[edge.start] / 2, start[1])]
        for layer, across in layout.routes[number]:
            left = layout.along[layer] + shift[0]
            points += [(left, across + shift[1]), (left + layout.depth[layer], across + shift[1])]
        points.append((end[0] - widths[edge.end] / 2, end[1]))
    style = 'fill="none" stroke="#7c8798" stroke-width="1.5" marker-end="url(#arrow)"'
    parts = [f'<path d="{_curve(points, down=down)}" {style}/>']
    if edge.label:
        wide = len(edge.label) * _DETAIL_PX * _CHARACTER + 8
        joined = sum(other.end == edge.end for other in graph.edges) > 1 and not layout.routes[number]
        if joined:  # near the start, before streams that join have joined
            x, y = _on_curve(points[0], points[1], 0.4, down=down)
        else:  # before the arrow, where streams that part have parted
            x, y = points[1]
            x, y = (x, y - 20) if down else (x - wide / 2 - 12, y)
        parts.append(f'<rect x="{x - wide / 2:.1f}" y="{y - 8:.1f}" width="{wide:.1f}" height="16" fill="#ffffff"/>')
        parts.append(_text(x, y + 4, edge.label, _DETAIL_PX, "#5d6878"))
    return parts


def _on_curve(start: _Point, end: _Point, t: float, *, down: bool) -> _Point:
    """Return the point of `_curve`'s cubic between two points at parameter `t`."""
    sway = 3 * (1 - t) * t * t + t**3  # the control points share their end's place across the flow
    run = 1.5 * (1 - t) * t + t**3  # and lie halfway along it
    along, across = (run, sway) if not down else (sway, run)
    return start[0] + (end[0] - start[0]) * along, start[1] + (end[1] - start[1]) * across


def _curve(points: list[_Point], *, down: bool) -> str:
    """Return a path that leaves and enters every layer in the direction of flow."""
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if (x0 == x1) if down else (y0 == y1):
            text += f" L{x1:.1f} {y1:.1f}"
        elif down:
            middle = (y0 + y1) / 2
            text += f" C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
        else:
            middle = (x0 + x1) / 2
            text += f" C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    return text
