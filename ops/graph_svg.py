"""The path of a run on the shape of its graph, as one self-contained SVG: no script, nothing from elsewhere.

Nodes lie in layers, each behind all that lead to it (Sugiyama, Tagawa and Toda 1981: break cycles, longest path, barycentres). A graph
inside another is laid out by itself and then is one big node.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape

import msgspec

from actors.graph.drawing import Drawing, DrawnEdge, DrawnNode, orders, said
from actors.graph.taken import END

_CHARACTER: Final = 6.7
"""Width of one character of the small font, on the safe side."""
_GAP_X, _GAP_Y, _PAD, _HEAD, _MARGIN = 34, 46, 18, 32, 24
_LANE: Final = 18
"""What an edge that goes back up takes beside all layers."""
_TURN: Final = 12
"""How far below and above the layers it turns."""
_SWEEPS: Final = 4
_STYLE: Final = """
svg{background:#fff;color:#1b1f24;font:12px ui-sans-serif,system-ui,sans-serif}
text{fill:#1b1f24}.dim{fill:#6a737d}.inner{fill:#f6f8fa;stroke:#c3c9d0}.node{fill:#fff;stroke:#9aa7b5}
.node.taken{fill:#e3f2de;stroke:#3f7d33;stroke-width:2}.node.waiting,.node.underway{fill:#fff3d6;stroke:#c08a1e;stroke-width:2}
.node.failed{fill:#fbdcdc;stroke:#c62828;stroke-width:2}.edge{stroke:#9aa7b5;fill:none;stroke-width:1.2}.maybe{stroke-dasharray:5 4}
.went{stroke:#3f7d33;stroke-width:2.4}.badge{fill:#3f7d33}.badge-text{fill:#fff;font-weight:600}.ask{fill:#8a5a00}
@media(prefers-color-scheme:dark){svg{background:#14181d}text{fill:#e4e8ee}.dim{fill:#94a0ad}.inner{fill:#1a2027;stroke:#3b4550}
.node{fill:#14181d;stroke:#56636f}.node.taken{fill:#1f3a22;stroke:#6fb062}.node.waiting,.node.underway{fill:#46391a;stroke:#d8a83c}
.node.failed{fill:#4b1f1f;stroke:#ef6b6b}.edge{stroke:#56636f}.went{stroke:#6fb062}.badge{fill:#2f6b25}.badge-text{fill:#fff}.ask{fill:#f0c060}}
"""


class _Box(msgspec.Struct):
    """A node, a graph inside another, or a bend of a long edge. x, y: of its middle and its top, absolute once all is laid out."""

    name: str
    width: float = 0.0
    height: float = 0.0
    node: DrawnNode | None = None
    lines: list[tuple[str, str]] = []
    inner: "list[_Box]" = []
    bends: "dict[tuple[str, str], list[_Box]]" = {}
    back: list[tuple[str, str]] = []
    x: float = 0.0
    y: float = 0.0


def picture(found: Drawing) -> str:
    """The SVG document, ending in a newline."""
    whole = _lay_out("", found.nodes, found.edges)
    _move(whole, _MARGIN + whole.width / 2, _MARGIN + 34)
    width = max(whole.width, len(found.title) * 9.0, len(found.caption) * _CHARACTER) + 2 * _MARGIN
    height = whole.height + 2 * _MARGIN + 34
    out = [_text(_MARGIN, 24, found.title, "", size=15, bold=True), _text(_MARGIN, 42, found.caption, "dim")]
    boxes: dict[str, _Box] = {}
    _collect(whole, boxes)
    out += [_frame(box, orders(found.inner.get(box.name, []))) for box in boxes.values() if box.node is None]
    out += [_edge(edge, whole, boxes) for edge in sorted(found.edges, key=lambda edge: edge.count) if edge.source != edge.target]
    out += [_drawn(box) for box in boxes.values() if box.node is not None]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'role="img"><title>{_xml(found.title)}</title><style>{_STYLE}</style><defs>'
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9" orient="auto" '
        'markerUnits="userSpaceOnUse"><path d="M0 0L10 5L0 10z" fill="context-stroke"/></marker></defs>' + "\n".join(out) + "</svg>\n"
    )


# -- layout -------------------------------------------------------------------------------------------------------------------------------


def _lay_out(outer: str, nodes: Sequence[DrawnNode], edges: Sequence[DrawnEdge]) -> _Box:
    """The graph whose nodes begin with `outer`, its top left at (-width / 2, 0)."""
    children: dict[str, _Box] = {}
    for node in nodes:
        first, slash, _ = node.name[len(outer) :].partition("/")
        name = outer + first
        if slash and name not in children:
            members = [each for each in nodes if each.name.startswith(name + "/")]
            children[name] = _lay_out(name + "/", members, edges)
            children[name].name = name
        elif not slash:
            children[name] = _box(node)
    pairs = list(dict.fromkeys(pair for edge in edges if (pair := _at_level(outer, edge)) is not None))
    back = _back_edges(list(children), pairs)
    ahead = [pair if pair not in back else (pair[1], pair[0]) for pair in pairs]
    rank = _ranks(list(children), ahead)
    layers: list[list[_Box]] = [[] for _ in range(max(rank.values(), default=0) + 1)]
    for name, box in children.items():
        layers[rank[name]].append(box)
    bends: dict[tuple[str, str], list[_Box]] = {}
    linked = [pair for pair in pairs if pair not in back]
    neighbours: list[tuple[_Box, _Box]] = []
    for source, target in linked:
        chain = [_Box(f"{source}>{target}", width=12.0) for _ in range(rank[source] + 1, rank[target])]
        for level, bend in enumerate(chain, rank[source] + 1):
            layers[level].append(bend)
        bends[source, target] = chain
        way = [children[source], *chain, children[target]]
        neighbours += pairwise(way)
    _untangle(layers, neighbours)
    y = 0.0
    for layer in layers:
        tall, x = max((box.height for box in layer), default=0.0), -(sum(box.width for box in layer) + _GAP_X * (len(layer) - 1)) / 2
        for box in layer:
            _move(box, x + box.width / 2, y + (tall - box.height) / 2)
            x += box.width + _GAP_X
        y += tall + _GAP_Y
    wide = max((sum(box.width for box in layer) + _GAP_X * (len(layer) - 1) for layer in layers), default=0.0)
    framed = bool(outer)
    lanes = [pair for pair in pairs if pair in back]
    whole = _Box(outer, wide + 2 * _LANE * len(lanes), y - _GAP_Y, inner=list(children.values()), bends=bends, back=lanes)
    if framed:
        for box in [*whole.inner, *(bend for chain in bends.values() for bend in chain)]:
            _move(box, box.x, box.y + _HEAD)
        whole.width, whole.height = max(whole.width, len(outer) * _CHARACTER) + 2 * _PAD, whole.height + _HEAD + _PAD
    return whole


def _box(node: DrawnNode) -> _Box:
    lines = [(node.label, "bold")]
    if node.orders:
        effects = sum(node.effects.values())
        lines.append((_took(node.took_us) + (f", {effects} effect{'s' if effects != 1 else ''}" if effects else ""), "dim"))
    lines += [(said(each), "ask") for each in node.interrupts]
    if node.is_end:
        return _Box(node.name, 62.0, 26.0, node, lines[:1])
    width = max(len(text) for text, _ in lines) * _CHARACTER + 34
    return _Box(node.name, max(96.0, width), 16.0 + 17 * len(lines), node, lines)


def _at_level(outer: str, edge: DrawnEdge) -> tuple[str, str] | None:
    """Between which children of `outer` the edge goes; None if it does not, or stays inside one."""
    if not (edge.source.startswith(outer) and edge.target.startswith(outer)):
        return None
    source = outer + edge.source[len(outer) :].partition("/")[0]
    target = outer + edge.target[len(outer) :].partition("/")[0]
    return None if source == target else (source, target)


def _back_edges(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges that close a cycle, for who begins at the first node."""
    back: set[tuple[str, str]] = set()
    state: dict[str, int] = {}
    following = {name: [target for source, target in pairs if source == name] for name in names}
    for root in names:
        stack = [(root, iter(following[root]))] if root not in state else []
        state.setdefault(root, 1)
        while stack:
            name, rest = stack[-1]
            target = next(rest, None)
            if target is None:
                state[name] = 2
                stack.pop()
            elif target not in state:
                state[target] = 1
                stack.append((target, iter(following[target])))
            elif state[target] == 1:
                back.add((name, target))
    return back


def _ranks(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    rank = dict.fromkeys(names, 0)
    for _ in names:  # as often as the longest path may be
        for source, target in pairs:
            rank[target] = max(rank[target], rank[source] + 1)
    for name in names:
        if name.rpartition("/")[2] == END:
            rank[name] = max((rank[other] + 1 for other in names if other != name), default=0)
    return rank


def _untangle(layers: list[list[_Box]], neighbours: Sequence[tuple[_Box, _Box]]) -> None:
    """Order each layer by the middle of what its members are linked with."""
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for number in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            former = {id(box): place for place, box in enumerate(layers[number - 1 if down else number + 1])}
            weights: list[float] = []
            for place, box in enumerate(layers[number]):
                ends = [(a, b) if down else (b, a) for a, b in neighbours]
                linked = [former[id(far)] for far, near in ends if near is box and id(far) in former]
                weights.append(sum(linked) / len(linked) if linked else float(place))
            places = sorted(range(len(layers[number])), key=weights.__getitem__)
            layers[number] = [layers[number][place] for place in places]


def _move(box: _Box, x: float, y: float) -> None:
    """Put the middle of its top there, and all that is in it along."""
    right, down = x - box.x, y - box.y
    box.x, box.y = x, y
    for each in [*box.inner, *(bend for chain in box.bends.values() for bend in chain)]:
        _move(each, each.x + right, each.y + down)


def _collect(box: _Box, found: dict[str, _Box]) -> None:
    for each in box.inner:
        found[each.name] = each
        _collect(each, found)


# -- drawing ------------------------------------------------------------------------------------------------------------------------------


def _edge(edge: DrawnEdge, whole: _Box, boxes: Mapping[str, _Box]) -> str:
    source, target = boxes.get(edge.source), boxes.get(edge.target)
    if source is None or target is None:
        return ""
    level, pair = whole, _at_level("", edge)
    while pair is None:
        level = next(box for box in level.inner if edge.source.startswith(box.name + "/"))
        pair = _at_level(level.name + "/", edge)
    kinds = "edge" + (" went" if edge.count else " maybe" if edge.conditional else "")
    if pair in level.back:
        side = level.x + level.width / 2 - (_PAD if level.name else 0) - _LANE * level.back.index(pair)
        x, y = source.x + source.width / 4, source.y + source.height
        end_x, end_y = target.x + target.width / 4, target.y
        path = _around([(x, y), (x, y + _TURN), (side, y + _TURN), (side, end_y - _TURN), (end_x, end_y - _TURN), (end_x, end_y)])
        middle = (side, (y + end_y) / 2)
    else:
        points = [(source.x, source.y + source.height), *((bend.x, bend.y) for bend in level.bends[pair]), (target.x, target.y)]
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for (x, y), (end_x, end_y) in pairwise(points):
            half = (y + end_y) / 2
            path += f"C{x:.1f} {half:.1f} {end_x:.1f} {half:.1f} {end_x:.1f} {end_y:.1f}"
        middle = ((points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2)
    count = _text(middle[0] + 5, middle[1] + 4, f"×{edge.count}", "dim", small=True) if edge.count > 1 else ""
    title = _xml(f"{edge.source} to {edge.target}")
    return f'<path class="{kinds}" d="{path}" marker-end="url(#head)"><title>{title}</title></path>{count}'


def _around(points: Sequence[tuple[float, float]]) -> str:
    """A path along `points`, with round corners."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (ax, ay), (x, y), (bx, by) in zip(points, points[1:], points[2:], strict=False):
        before, behind = max(abs(ax - x), abs(ay - y), 1.0), max(abs(bx - x), abs(by - y), 1.0)
        near, far = min(6.0, before / 2) / before, min(6.0, behind / 2) / behind
        path += f"L{x + (ax - x) * near:.1f} {y + (ay - y) * near:.1f}Q{x:.1f} {y:.1f} {x + (bx - x) * far:.1f} {y + (by - y) * far:.1f}"
    return f"{path}L{points[-1][0]:.1f} {points[-1][1]:.1f}"


def _frame(box: _Box, taken: str) -> str:
    left = box.x - box.width / 2
    return (
        f'<rect class="inner" x="{left:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="8"/>'
        + _text(left + 16 + _badge_width(taken), box.y + 16, box.name.rpartition("/")[2], "dim", small=True)
        + _badge(left, box.y, taken)
    )


def _drawn(box: _Box) -> str:
    node = box.node
    if node is None:
        return ""
    left = box.x - box.width / 2
    state = {"taken": "taken", "waiting": "waiting", "under way": "underway", "": ""}.get(node.state, "failed")
    effects = (f"{name} ×{count}" for name, count in node.effects.items())
    detail = "\n".join([node.name, *effects, *map(said, node.interrupts)])
    out = (
        f'<g><title>{_xml(detail)}</title><rect class="node {state}" x="{left:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{13 if node.is_end else 6}"/>'
    )
    for number, (text, kind) in enumerate(box.lines):
        y = box.y + (17 if node.is_end else 21 + 17 * number)
        out += _text(box.x, y, text, "" if kind == "bold" else kind, anchor="middle", bold=kind == "bold", small=kind != "bold")
    return out + _badge(left, box.y, orders(node.orders)) + "</g>"


def _badge(left: float, top: float, taken: str) -> str:
    """When it was taken, on its upper left corner."""
    wide = _badge_width(taken)
    if not wide:
        return ""
    return (
        f'<rect class="badge" x="{left - 8:.1f}" y="{top - 9:.1f}" width="{wide:.1f}" height="18" rx="9"/>'
        + _text(left - 8 + wide / 2, top + 4, taken, "badge-text", anchor="middle", small=True)
    )


def _badge_width(taken: str) -> float:
    return max(20.0, len(taken) * _CHARACTER + 10) if taken else 0.0


def _text(
    x: float, y: float, text: str, kinds: str, *, anchor: str = "start", size: int = 12, bold: bool = False, small: bool = False
) -> str:  # fmt: skip
    look = f' font-size="{11 if small else size}"' + (' font-weight="600"' if bold else "") + (f' class="{kinds}"' if kinds else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}>{_xml(text)}</text>'


def _took(duration_us: int) -> str:
    return f"{duration_us / 1_000:.0f} ms" if duration_us < 10_000_000 else f"{duration_us / 1_000_000:.1f} s"


def _xml(text: str) -> str:
    """`text` as XML may hold it: without control characters, which no escape makes legal."""
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text), {'"': "&quot;"})
