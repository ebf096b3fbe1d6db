"""The import graph as one SVG that can be read on a phone: a column of names with arcs beside it.

Names stand in order of their layer, users above what they use. An import downwards is a grey arc on the right; one that
points upwards closes a cycle and is a red arc further out. One name per row cannot overlap another, whatever the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import msgspec

from actors.tools.graph import layers, strongly_connected
from actors.tools.imports import ImportGraph
from actors.tools.limits import DIAGRAM_NODES_MAX

_ROW = 22
_LABEL_WIDTH = 178
_WIDTH = 380
_LABEL_CHARS = 25
_TOP = 14
_REST = " more, not drawn"


class DiagramNode(msgspec.Struct, frozen=True, kw_only=True):
    """A module, or a group of them under one name."""

    name: str
    modules: int
    in_cycle: bool


class DiagramEdge(msgspec.Struct, frozen=True, kw_only=True):
    source: int
    to: int
    imports: int


class ImportDiagram(msgspec.Struct, frozen=True, kw_only=True):
    """Rows from top to bottom and the arcs between them, by row number; `prefix` is what all names begin with."""

    prefix: str
    nodes: list[DiagramNode]
    edges: list[DiagramEdge]
    grouped: bool


def import_diagram(graph: ImportGraph, *, nodes_max: int = DIAGRAM_NODES_MAX) -> ImportDiagram:
    """Condense the graph until it has at most `nodes_max` rows.

    Modules are grouped by their packages, as deep as fits; when even the packages are too many, those with the fewest
    imports share the last row, without arcs.
    """
    names = [module.name for module in graph.modules]
    groups = _groups(names, graph, nodes_max)
    rest = next((label for label in groups.values() if label.endswith(_REST)), "")
    weights: dict[tuple[str, str], int] = {}
    for edge in graph.imports:
        pair = (groups[edge.source], groups[edge.to])
        # What shares the last row has no arcs: drawn as one, it would seem to be in a cycle with everything.
        if pair[0] != pair[1] and rest not in pair:
            weights[pair] = weights.get(pair, 0) + 1
    labels = sorted(set(groups.values()))
    below: dict[str, list[str]] = {label: [] for label in labels}
    for source, to in sorted(weights):
        below[source].append(to)
    components = strongly_connected(labels, below)
    cyclic = {name for cycle in graph.cycles for name in cycle}
    tangled = {label for component in components if len(component) > 1 for label in component}
    tangled |= {groups.get(name, rest) for name in cyclic} - {rest}
    order = _by_layer([label for label in labels if label != rest], below) + ([rest] if rest else [])
    row = {label: number for number, label in enumerate(order)}
    sizes: dict[str, int] = {}
    for label in groups.values():
        sizes[label] = sizes.get(label, 0) + 1
    prefix = _common_package(order)
    return ImportDiagram(
        prefix=prefix,
        nodes=[DiagramNode(name=_short(label, prefix), modules=sizes[label], in_cycle=label in tangled) for label in order],
        edges=[
            DiagramEdge(source=row[source], to=row[to], imports=count)
            for (source, to), count in sorted(weights.items(), key=lambda item: (row[item[0][0]], row[item[0][1]]))
        ],
        grouped=len(labels) < len(names),
    )


def import_diagram_svg(graph: ImportGraph, *, nodes_max: int = DIAGRAM_NODES_MAX) -> str:
    """The diagram as an SVG element without colours: the page styles `node`, `cyc`, `arc` and `back`."""
    diagram = import_diagram(graph, nodes_max=nodes_max)
    if not diagram.nodes:
        return ""
    height = _TOP + _ROW * len(diagram.nodes) + 6
    size = f'viewBox="0 0 {_WIDTH} {height}"'
    label = f"Imports between {len(diagram.nodes)} modules or packages"
    parts = [f'<svg class="diagram" {size} role="img" aria-label="{label}">']
    for edge in diagram.edges:
        parts.append(_arc(diagram.nodes, edge))
    for number, node in enumerate(diagram.nodes):
        y = _TOP + _ROW * number
        kind = "node cyc" if node.in_cycle else "node"
        label = node.name if len(node.name) <= _LABEL_CHARS else "…" + node.name[1 - _LABEL_CHARS :]
        title = f"{node.name}: {node.modules} modules" if node.modules > 1 else node.name
        parts.append(
            f'<g class="{kind}" data-row="{number}"><title>{escape(title)}</title>'
            f'<text x="{_LABEL_WIDTH - 12}" y="{y + 4}" text-anchor="end">{escape(label)}</text>'
            f'<circle cx="{_LABEL_WIDTH}" cy="{y}" r="{_radius(node.modules)}"/></g>'
        )
    return "".join(parts) + "</svg>"


def _arc(nodes: Sequence[DiagramNode], edge: DiagramEdge) -> str:
    start, end = _TOP + _ROW * edge.source, _TOP + _ROW * edge.to
    upwards = edge.to < edge.source
    span = abs(edge.to - edge.source) / max(1, len(nodes) - 1)
    reach = 24 + (_WIDTH - _LABEL_WIDTH - 30) * span**0.75
    # A cubic curve reaches three quarters of the way to its control points.
    control = round(_LABEL_WIDTH + reach / 0.75, 1)
    width = round(min(4.0, 0.8 + 0.35 * math.sqrt(edge.imports - 1)), 2)
    x = _LABEL_WIDTH + 6
    title = f"{nodes[edge.source].name} imports {nodes[edge.to].name}"
    if edge.imports > 1:
        title += f" ({edge.imports} times)"
    return (
        f'<path class="{"arc back" if upwards else "arc"}" data-a="{edge.source}" data-b="{edge.to}" '
        f'stroke-width="{width}" d="M{x} {start}C{control} {start} {control} {end} {x} {end}">'
        f"<title>{escape(title)}</title></path>"
    )


def _radius(modules: int) -> float:
    return round(min(8.0, 3.5 + 0.6 * math.sqrt(modules - 1)), 1)


def _by_layer(labels: Sequence[str], below: Mapping[str, Sequence[str]]) -> list[str]:
    """Labels from top to bottom: users above what they use, a cycle in the order with few arcs upwards."""
    component_of = {label: part for part in strongly_connected(labels, below) for label in part}
    order: list[str] = []
    for row in reversed(layers(labels, below)):
        placed: set[str] = set()
        for label in row:
            if label not in placed:
                order += _untangled(component_of[label], below)
                placed.update(component_of[label])
    return order


def _untangled(component: Sequence[str], below: Mapping[str, Sequence[str]]) -> list[str]:
    """A sequence with few arcs pointing back: the greedy rule of Eades, Lin and Smyth (Inf. Proc. Letters 47, 1993)."""
    left = set(component)
    head: list[str] = []
    tail: list[str] = []
    while left:
        outgoing = {label: sum(to in left and to != label for to in below[label]) for label in left}
        incoming = dict.fromkeys(left, 0)
        for label in left:
            for to in below[label]:
                if to in left and to != label:
                    incoming[to] += 1
        sink = min((label for label in left if not outgoing[label]), default=None)
        if sink is not None:
            tail.append(sink)
            left.remove(sink)
            continue
        chosen = min(left, key=lambda label: (incoming[label] > 0, incoming[label] - outgoing[label], label))
        head.append(chosen)
        left.remove(chosen)
    return head + tail[::-1]


def _groups(names: Sequence[str], graph: ImportGraph, nodes_max: int) -> dict[str, str]:
    if len(names) <= nodes_max:
        return {name: name for name in names}
    deepest = max(name.count(".") for name in names) + 1
    groups = {name: name for name in names}
    for depth in range(deepest, 0, -1):
        groups = {name: ".".join(name.split(".")[:depth]) for name in names}
        if len(set(groups.values())) <= nodes_max:
            break
    shown = len(set(groups.values()))
    if shown < 5:
        # One package with many modules: its parts say more than its name, so keep the busiest of them.
        finer = next(
            (
                finer
                for depth in range(1, deepest + 1)
                if len(set((finer := {n: ".".join(n.split(".")[:depth]) for n in names}).values())) > nodes_max
            ),
            groups,
        )
        groups = finer
        shown = len(set(groups.values()))
    return _fold_rest(groups, graph, nodes_max) if shown > nodes_max else groups


def _fold_rest(groups: dict[str, str], graph: ImportGraph, nodes_max: int) -> dict[str, str]:
    degree: dict[str, int] = dict.fromkeys(groups.values(), 0)
    for edge in graph.imports:
        if groups[edge.source] != groups[edge.to]:
            degree[groups[edge.source]] += 1
            degree[groups[edge.to]] += 1
    kept = set(sorted(degree, key=lambda label: (-degree[label], label))[: nodes_max - 1])
    rest = f"{len(degree) - len(kept)}{_REST}"
    return {name: group if group in kept else rest for name, group in groups.items()}


def _common_package(labels: Sequence[str]) -> str:
    first = {label.partition(".")[0] for label in labels if not label.endswith(_REST)}
    return next(iter(first)) if len(first) == 1 else ""


def _short(label: str, prefix: str) -> str:
    return label[len(prefix) :] if prefix and label.startswith(prefix + ".") else label
