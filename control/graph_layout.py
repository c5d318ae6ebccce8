"""Where the steps of a graph stand in a picture: layers in the direction of flow, few crossings, straight lines.

The usual layered drawing (Sugiyama, Tagawa and Toda, 1981), small: longest-path layers, a joint in every layer a long
edge passes, barycentre sweeps for the order inside a layer, then places pulled towards the middle of their neighbours.
Lengths are in pixels; `along` is the direction of flow, `across` the other one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Layout", "lay_out"]

_SWEEPS = 12


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of everything.

    Attributes:
        along: Start of each layer in the direction of flow.
        layer: The layer of each node.
        across: Middle of each node, across the flow.
        routes: For each edge, the (layer, across) of each joint between its ends.
        depth: Extent of each layer in the direction of flow.
        length: Extent of the whole in the direction of flow.
        breadth: Extent of the whole across it.
    """

    along: list[float]
    layer: list[int]
    across: list[float]
    routes: list[list[tuple[int, float]]]
    depth: list[float]
    length: float
    breadth: float


@dataclass(slots=True)
class _Grid:
    """Nodes and joints by layer; joints have numbers from the count of nodes on."""

    rows: list[list[int]]
    width: list[float]
    layer: list[int]
    before: list[list[int]] = field(default_factory=list)
    after: list[list[int]] = field(default_factory=list)


def lay_out(
    depth: Sequence[float],
    breadth: Sequence[float],
    edges: Sequence[tuple[int, int]],
    *,
    gap_along: float,
    gap_across: float,
) -> Layout:
    """Find a place for every node.

    Args:
        depth: Extent of each node in the direction of flow.
        breadth: Extent of each node across it.
        edges: Pairs of node numbers, without a cycle.
        gap_along: Space between layers.
        gap_across: Space between neighbours in a layer.
    """
    layer = _layers(len(depth), edges)
    grid, joints = _with_joints(layer, breadth, edges)
    _order(grid)
    across = _across(grid, gap_across)
    low = min((across[i] - grid.width[i] / 2 for i in range(len(across))), default=0.0)
    across = [x - low for x in across]
    layer_depth = [max((depth[i] for i in row if i < len(depth)), default=0.0) for row in grid.rows]
    along = list(itertools.accumulate((d + gap_along for d in layer_depth[:-1]), initial=0.0))
    return Layout(
        along=along,
        layer=layer,
        across=across[: len(depth)],
        routes=[[(grid.layer[j], across[j]) for j in chain] for chain in joints],
        depth=layer_depth,
        length=along[-1] + layer_depth[-1] if layer_depth else 0.0,
        breadth=max((across[i] + grid.width[i] / 2 for i in range(len(across))), default=0.0),
    )


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Longest path from a source; a source stands just above the first step that reads it."""
    layer = [0] * count
    for _ in range(count):  # at most as many rounds as there are layers
        changed = False
        for start, end in edges:
            if layer[end] <= layer[start]:
                layer[end], changed = layer[start] + 1, True
        if not changed:
            break
    for node in range(count):
        below = [layer[end] for start, end in edges if start == node]
        if below and not any(end == node for _, end in edges):
            layer[node] = min(below) - 1
    return layer


def _with_joints(
    layer: list[int], breadth: Sequence[float], edges: Sequence[tuple[int, int]]
) -> tuple[_Grid, list[list[int]]]:
    grid = _Grid([[] for _ in range(max(layer, default=-1) + 1)], list(breadth), list(layer))
    for node, at in enumerate(layer):
        grid.rows[at].append(node)
    grid.before = [[] for _ in layer]
    grid.after = [[] for _ in layer]
    joints: list[list[int]] = []
    for start, end in edges:
        chain = [start]
        for at in range(layer[start] + 1, layer[end]):
            joint = len(grid.layer)
            grid.layer.append(at)
            grid.width.append(8.0)
            grid.rows[at].append(joint)
            grid.before.append([])
            grid.after.append([])
            chain.append(joint)
        chain.append(end)
        for a, b in itertools.pairwise(chain):
            grid.after[a].append(b)
            grid.before[b].append(a)
        joints.append(chain[1:-1])
    return grid, joints


def _order(grid: _Grid) -> None:
    """Sort each layer by the mean place of its neighbours, down and up, and keep the order with fewest crossings."""
    best, fewest = [list(row) for row in grid.rows], _crossings(grid)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = grid.before if down else grid.after
        rows = grid.rows if down else grid.rows[::-1]
        for fixed, row in itertools.pairwise(rows):
            place = {node: i for i, node in enumerate(fixed)}
            own = {node: i for i, node in enumerate(row)}
            row.sort(key=lambda node, place=place, own=own: _mean([place[n] for n in neighbours[node]], own[node]))  # type: ignore[misc]
        found = _crossings(grid)
        if found < fewest:
            best, fewest = [list(row) for row in grid.rows], found
    grid.rows = best


def _mean(values: list[int], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _crossings(grid: _Grid) -> int:
    total = 0
    for row in grid.rows:
        place = {n: i for r in grid.rows for i, n in enumerate(r)}
        lines = [(place[a], place[b]) for a in row for b in grid.after[a]]
        total += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(lines, 2))
    return total


def _across(grid: _Grid, gap: float) -> list[float]:
    """Pull every node to the middle of its neighbours, without changing the order of a layer or touching another."""
    across = [0.0] * len(grid.layer)
    for row in grid.rows:
        x = 0.0
        for node in row:
            across[node] = x + grid.width[node] / 2
            x += grid.width[node] + gap
        for node in row:
            across[node] -= (x - gap) / 2
    for sweep in range(_SWEEPS * 2):
        down = sweep % 2 == 0
        for row in grid.rows if down else grid.rows[::-1]:
            near = grid.before if down else grid.after
            wish = [
                sum(across[n] for n in near[node]) / len(near[node]) if near[node] else across[node] for node in row
            ]
            _settle(row, wish, grid.width, gap, across)
    return across


def _settle(row: list[int], wish: list[float], width: list[float], gap: float, across: list[float]) -> None:
    """Give each node of a layer the place nearest to its wish: nodes that would overlap form a block with one mean.

    This is isotonic regression by pooling adjacent violators, after the distances that are needed are taken off.
    """
    needed = [0.0]
    for a, b in itertools.pairwise(row):
        needed.append(needed[-1] + (width[a] + width[b]) / 2 + gap)
    blocks: list[tuple[float, int]] = []  # mean, number of nodes
    for want, off in zip(wish, needed, strict=True):
        blocks.append((want - off, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (m2, n2), (m1, n1) = blocks.pop(), blocks.pop()
            blocks.append(((m1 * n1 + m2 * n2) / (n1 + n2), n1 + n2))
    means = [mean for mean, count in blocks for _ in range(count)]
    for node, mean, off in zip(row, means, needed, strict=True):
        across[node] = mean + off
