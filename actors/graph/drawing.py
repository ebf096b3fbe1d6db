"""The path of a run on the shape of its graph, as data for whoever draws it, and as a Mermaid flowchart."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from actors.graph.taken import END, START, Interrupted, Taken, Visit

_SAID_CHARACTERS: Final = 60


class DrawnNode(msgspec.Struct, kw_only=True):
    """name: as `GraphActor.path` names it. orders: when it was taken, from 1. state: taken, waiting, failed, under way, or "" = not taken.
    effects: of all its visits."""

    name: str
    orders: list[int] = []
    state: str = ""
    took_us: int = 0
    effects: dict[str, int] = {}
    interrupts: list[Interrupted] = []

    @property
    def label(self) -> str:
        return {START: "start", END: "end"}.get(self.name.rpartition("/")[2], self.name.rpartition("/")[2])

    @property
    def is_end(self) -> bool:
        """Whether it is a start or an end, and no node of the author's."""
        return self.name.rpartition("/")[2] in (START, END)


class DrawnEdge(msgspec.Struct, kw_only=True):
    """count: how often the path went along it. conditional: the graph decides at run time whether it does."""

    source: str
    target: str
    conditional: bool = False
    count: int = 0


class Drawing(msgspec.Struct, kw_only=True):
    """A graph with subgraphs in it (nodes ``outer/inner``), and what was taken of it. inner: when each subgraph came to its end, as
    `DrawnNode.orders`."""

    title: str
    caption: str
    nodes: list[DrawnNode]
    edges: list[DrawnEdge]
    inner: dict[str, list[int]]


class Shape(msgspec.Struct, kw_only=True):
    """What the code says that a graph is."""

    nodes: list[str]
    edges: list[tuple[str, str, bool]]


def shape_of(compiled: Any) -> Shape:
    """The shape of a compiled graph, with those of the graphs inside it; nothing of it is run."""
    found = compiled.get_graph(xray=True)
    names = [name.replace(":", "/") for name in found.nodes]
    edges = [(edge.source.replace(":", "/"), edge.target.replace(":", "/"), edge.conditional) for edge in found.edges]
    return Shape(nodes=names, edges=edges)


def taken_of(path: Sequence[str], status: str, waiting: Sequence[Mapping[str, Any]]) -> Taken:
    """What a graph actor's state knows of its last run: the order, and no more."""
    visits = [Visit(node=node, order=order, place=("", ""), at_us=0, took_us=0) for order, node in enumerate(path, 1)]
    asked = [
        Interrupted(id=each["id"], node=each.get("node"), value=each["value"], at_us=0, wait_id=each.get("wait_id", ""))
        for each in waiting
    ]  # fmt: skip
    return Taken(thread="", command_ids=[], began_us=0, ended_us=0, visits=visits, interrupts=asked, status=status)


def drawing(title: str, run: Taken, shape: Shape | None = None) -> Drawing:
    """`run` on `shape`; without one, what was taken is all there is."""
    follows = run.follows()
    visits: dict[str, list[Visit]] = {}
    for visit in run.visits:
        visits.setdefault(visit.node, []).append(visit)
    questions: dict[str, list[Interrupted]] = {}
    for each in run.interrupts:
        questions.setdefault(each.node or "", []).append(each)
    begun = {node for pair in follows for node in pair}
    names = list(shape.nodes) if shape is not None else []
    if shape is not None:  # it says which starts and ends there are
        begun -= {name for name in begun - set(names) if name.rpartition("/")[2] in (START, END)}
    containers = {name[:index] for name in (*names, *visits, *begun) for index, sign in enumerate(name) if sign == "/"}
    first = {name: visits[name][0].order if name in visits else 0 if name.endswith(START) else len(run.visits) + 1 for name in begun}
    extra = sorted(begun, key=lambda name: (first[name], name))
    names += [name for name in (*extra, *visits, *questions, *run.under_way) if name and name not in names and name not in containers]
    names = list(dict.fromkeys(names))
    nodes = [_node(name, run, visits.get(name, []), questions.get(name, []), name in begun) for name in names]
    edges = [
        DrawnEdge(source=source, target=target, conditional=conditional, count=_went(source, target, follows, begun))
        for source, target, conditional in (shape.edges if shape is not None else [])
    ]
    if shape is None:
        edges = [
            DrawnEdge(source=f"{a}/{END}" if a in containers else a, target=f"{b}/{START}" if b in containers else b, count=count)
            for (a, b), count in follows.items()
        ]  # fmt: skip
    inner = {name: [visit.order for visit in visits.get(name, [])] for name in sorted(containers)}
    return Drawing(title=title, caption=_caption(run), nodes=nodes, edges=edges, inner=inner)


def _node(name: str, run: Taken, visits: Sequence[Visit], questions: list[Interrupted], begun: bool) -> DrawnNode:
    state = "taken" if visits or (begun and name.rpartition("/")[2] in (START, END)) else ""
    if any(each.outcome == "open" for each in questions):
        state = "waiting"
    elif questions and not visits:
        state = questions[-1].outcome if questions[-1].outcome != "answered" else "under way"
    if name in run.under_way:
        state = "failed" if run.status == "failed" else "under way"
    effects: dict[str, int] = {}
    for visit in visits:
        for effect, count in visit.effects.items():
            effects[effect] = effects.get(effect, 0) + count
    return DrawnNode(
        name=name, orders=[each.order for each in visits], state=state, took_us=sum(each.took_us for each in visits), effects=effects,
        interrupts=questions,
    )  # fmt: skip


def _went(source: str, target: str, follows: Mapping[tuple[str, str], int], begun: set[str]) -> int:
    """How often the path went from `source` to `target`, which may stand in graphs inside others: there it went from one graph to the
    next. Between them only the supersteps of the outer graph are known."""
    left, right = source.split("/"), target.split("/")
    level = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)) - 1)
    pair = ("/".join(left[: level + 1]), "/".join(right[: level + 1]))
    deep = (len(left) > level + 1 and source not in begun) or (len(right) > level + 1 and target not in begun)
    return 0 if deep else follows.get(pair, 0)


def _caption(run: Taken) -> str:
    took = (run.ended_us - run.began_us) / 1_000_000
    parts = [run.status, f"{len(run.visits)} nodes"]
    if run.interrupts:
        parts.append("1 interrupt" if len(run.interrupts) == 1 else f"{len(run.interrupts)} interrupts")
    if took:
        parts.append(f"{took:,.1f} s")
    return ", ".join(parts) + (f": {run.error}" if run.error else "")


def said(question: Interrupted) -> str:
    """The question, and what became of it, in one line."""
    asked = _short(question.value)
    return f"{asked} → {_short(question.answer)}" if question.outcome == "answered" else f"{asked} ({question.outcome})"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= _SAID_CHARACTERS else text[: _SAID_CHARACTERS - 1] + "…"


def orders(found: Sequence[int]) -> str:
    """``2, 5`` of what was taken second and fifth; of many the first ones and how many there are."""
    numbers = [str(order) for order in found]
    return ", ".join(numbers if len(numbers) <= 4 else [*numbers[:3], f"… ×{len(numbers)}"])


# -- Mermaid ------------------------------------------------------------------------------------------------------------------------------

_CLASSES: Final = """    classDef taken fill:#d8ecd2,stroke:#3f7d33,stroke-width:2px
    classDef waiting fill:#fff3d6,stroke:#c08a1e,stroke-width:2px
    classDef failed fill:#fbdcdc,stroke:#c62828,stroke-width:2px"""


def mermaid(found: Drawing) -> str:
    """A Mermaid flowchart: the shape, what was taken of it with its numbers, questions with their answers. Ends in a newline."""
    ids = {node.name: f"n{number}" for number, node in enumerate(found.nodes)}
    lines = ["---", f"title: {_clean(found.title)} - {_clean(found.caption)}", "---", "flowchart TD"]
    lines += _block("", found, found.nodes, ids, "    ")
    for number, edge in enumerate(found.edges):
        arrow = "-.->" if edge.conditional and not edge.count else "==>" if edge.count else "-->"
        label = f'|"×{edge.count}"|' if edge.count > 1 else ""
        lines.append(f"    {ids[edge.source]} {arrow}{label} {ids[edge.target]}")
        if edge.count:
            lines.append(f"    linkStyle {number} stroke:#3f7d33")
    lines.append(_CLASSES)
    colours = {"taken": "taken", "waiting": "waiting", "under way": "waiting"}
    lines += [f"    class {ids[node.name]} {colours.get(node.state, 'failed')}" for node in found.nodes if node.state]
    return "\n".join(lines) + "\n"


def _block(outer: str, found: Drawing, nodes: Sequence[DrawnNode], ids: Mapping[str, str], indent: str) -> list[str]:
    """The nodes directly in `outer`, then the graphs in it."""
    lines: list[str] = []
    inner: dict[str, list[DrawnNode]] = {}
    for node in nodes:
        rest = node.name[len(outer) :]
        if "/" in rest:
            inner.setdefault(rest.partition("/")[0], []).append(node)
            continue
        if node.is_end:
            lines.append(f"{indent}{ids[node.name]}([{node.label}])")
            continue
        text = [node.label if not node.orders else f"{orders(node.orders)}: {node.label}", *(said(each) for each in node.interrupts)]
        lines.append(f'{indent}{ids[node.name]}["{"<br/>".join(map(_clean, text))}"]')
    for name, members in inner.items():
        taken = orders(found.inner.get(outer + name, []))
        title, path = f"{taken}: {name}" if taken else name, outer + name + "/"
        lines.append(f'{indent}subgraph {_token(path)}["{_clean(title)}"]')
        lines += [*_block(path, found, members, ids, indent + "    "), f"{indent}end"]
    return lines


def _token(path: str) -> str:
    return "g_" + re.sub(r"[^A-Za-z0-9]", "_", path)


def _clean(text: str) -> str:
    """`text` as Mermaid takes it in quotes."""
    return "".join(f"#{ord(sign)};" if sign in '#;"<>' else sign for sign in text) or " "
