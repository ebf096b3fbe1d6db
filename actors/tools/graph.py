"""Strongly connected components and layers of a directed graph, without recursion and in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def strongly_connected(nodes: Sequence[str], successors: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Every strongly connected component, a single node included; members sorted.

    Components come in reverse topological order: each after all that it points to. The algorithm is Tarjan's
    ("Depth-first search and linear graph algorithms", 1972) with an explicit stack, since import chains exceed the
    recursion limit.
    """
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    on_path: set[str] = set()
    path: list[str] = []
    components: list[list[str]] = []
    for start in nodes:
        if start in number:
            continue
        work = [(start, 0)]
        while work:
            node, next_child = work.pop()
            if next_child == 0:
                number[node] = lowest[node] = len(number)
                path.append(node)
                on_path.add(node)
            children = successors.get(node, ())
            descended = False
            for position in range(next_child, len(children)):
                child = children[position]
                if child not in number:
                    work += [(node, position + 1), (child, 0)]
                    descended = True
                    break
                if child in on_path:
                    lowest[node] = min(lowest[node], number[child])
            if descended:
                continue
            if lowest[node] == number[node]:
                components.append(_pop_component(node, path, on_path))
            if work:
                parent = work[-1][0]
                lowest[parent] = min(lowest[parent], lowest[node])
    return components


def layers(nodes: Sequence[str], successors: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Nodes by the length of the longest way down through the condensed graph; `[0]` points to nothing."""
    level: dict[str, int] = {}
    for component in strongly_connected(nodes, successors):
        members = set(component)
        below = [level[child] for node in component for child in successors.get(node, ()) if child not in members]
        height = max(below) + 1 if below else 0
        level.update(dict.fromkeys(component, height))
    rows: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for node in sorted(level):
        rows[level[node]].append(node)
    return rows


def _pop_component(root: str, path: list[str], on_path: set[str]) -> list[str]:
    component = []
    while True:
        node = path.pop()
        on_path.discard(node)
        component.append(node)
        if node == root:
            return sorted(component)
