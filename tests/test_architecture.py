"""What may import what, and what no file of ours may do: the rules of design.md 1 and style.md 1 and 7, read off the syntax trees."""

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
ARROWS = {
    "events": set[str](),
    "actors": {"events"},
    "projections": {"events"},
    "runtime": {"actors", "events"},
    "ops": {"actors", "events", "projections", "runtime"},
}
"""What each package may import of ours, beside itself."""
LINES_MAX = 499


class Module(NamedTuple):
    """One source file. `path` is relative to the repository."""

    path: PurePosixPath
    tree: ast.Module
    lines: int

    @property
    def package(self) -> str:
        return self.path.parts[0]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full name of everything that is imported, anywhere in the file, `from a import b` as a.b."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    # A relative import has no name of ours to check: it is a violation by itself (see `arrows`).
                    yield node.lineno, "." * node.level + (node.module or "") + "." + alias.name

    def uses(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of every attribute, bare name and import; a call in between is written as ()."""
        yield from self.imports()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                yield node.lineno, _dotted(node)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{_dotted(node.func)}()"
    return "?"


def module(path: str, source: str) -> Module:
    return Module(PurePosixPath(path), ast.parse(source), source.count("\n"))


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return tuple(module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in found)


# -- the rules: each yields what it finds wrong in one module -----------------------------------------------------------------------------


def arrows(each: Module) -> Iterator[str]:
    """Imports run along ops -> runtime -> actors -> events and ops -> projections -> events; nobody imports tests."""
    forbidden = {*ARROWS, "tests"} - ARROWS[each.package] - {each.package}
    for line, name in each.imports():
        if name.startswith(".") or name.partition(".")[0] in forbidden:
            yield f"{each.path}:{line} imports {name}"


def _sqlite_file(path: PurePosixPath) -> bool:
    return path.stem.endswith("_sqlite") or (path.parts[0] == "events" and path.stem.startswith("sqlite_"))


def _numpy_file(path: PurePosixPath) -> bool:
    """What loads only where numpy is: nothing else may import these at its top."""
    return path.stem.endswith(("_numpy", "_hnswlib", "_graphed", "_onnx"))


_LANGGRAPH = {"ops/bench/peer_langgraph.py", "ops/examples/graph.py", "ops/examples/offline.py"}
CLIENTS: dict[str, Callable[[PurePosixPath], bool]] = {
    "aiosqlite": _sqlite_file,
    "cryptography": lambda path: path.stem.endswith("_aesgcm"),
    "hnswlib": lambda path: path.stem.endswith("_hnswlib"),
    "langchain_core": lambda path: path.parts[:2] in {("actors", "graph"), ("actors", "models")},
    # A user's graph imports it, and so does the example of one.
    "langgraph": lambda path: path.parts[:2] == ("actors", "graph") or path.as_posix() in _LANGGRAPH,
    # node.py composes a worker, so it makes the connection that the adapters share.
    "nats": lambda path: path.stem.endswith("_nats") or path.stem.startswith("nats_") or path.as_posix() == "runtime/node.py",
    "numpy": _numpy_file,
    "onnxruntime": lambda path: path.stem.endswith("_onnx"),
    "pysqlite3": _sqlite_file,
    "redis": lambda path: path.stem.endswith("_redis"),
    "sqlite3": _sqlite_file,
    "tokenizers": lambda path: path.stem.endswith("_onnx"),
    "uvloop": lambda path: path.parts[0] == "ops",
    "xllamacpp": lambda path: path.stem.endswith("_llamacpp"),
}
"""Client libraries, and the files that may import them."""


def clients(each: Module) -> Iterator[str]:
    """A client library is imported only in the files that are named after it."""
    for line, name in each.imports():
        allowed = CLIENTS.get(name.partition(".")[0])
        if allowed is not None and not allowed(each.path):
            yield f"{each.path}:{line} imports {name}"


def events_alone(each: Module) -> Iterator[str]:
    """`events` needs msgspec and the standard library, its SQLite files also SQLite."""
    if each.package != "events":
        return
    allowed = {"events", "msgspec", *sys.stdlib_module_names}
    if _sqlite_file(each.path):
        allowed |= {"aiosqlite", "pysqlite3"}
    for line, name in each.imports():
        if name.partition(".")[0] not in allowed:
            yield f"{each.path}:{line} imports {name}"


SPAWNING = {"create_task", "ensure_future", "gather", "wait_for"}
LOOPS = {"loop", "self._loop", "asyncio.get_running_loop()", "asyncio.get_event_loop()", "get_running_loop()"}


def spawning(each: Module) -> Iterator[str]:
    """Tasks come from runtime/tasks.py or a TaskGroup; wait_for and gather have better successors."""
    if each.path.as_posix() == "runtime/tasks.py":
        return
    for line, name in each.uses():
        owner, _, attribute = name.rpartition(".")
        if attribute in SPAWNING and (owner == "asyncio" or owner in LOOPS):
            yield f"{each.path}:{line} uses {name}"


CLOCKS = {
    "time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "datetime.datetime.now", "datetime.datetime.utcnow",
    "datetime.datetime.today", "date.today", "datetime.date.today", "uuid.uuid1", "uuid.uuid4", "os.urandom",
}  # fmt: skip


def clocks(each: Module) -> Iterator[str]:
    """Time of day, ids and randomness come from events/clock.py or the turn, so that they can be repeated."""
    path = each.path.as_posix()
    if path == "events/clock.py":
        return
    for line, name in each.uses():
        if name in CLOCKS:
            yield f"{each.path}:{line} uses {name}"
    # The turn hands out its own; the traps replace the module's functions while `apply` runs.
    if path not in {"actors/turn.py", "actors/traps.py"}:
        for line, name in each.imports():
            if name.partition(".")[0] == "random":
                yield f"{each.path}:{line} imports {name}"


def code_from_data(each: Module) -> Iterator[str]:
    """Nothing that is read names code to import or run."""
    for line, name in each.imports():
        if name.partition(".")[0] in {"dill", "marshal", "pickle", "shelve"}:
            yield f"{each.path}:{line} imports {name}"
    for node in ast.walk(each.tree):
        if isinstance(node, ast.Name) and node.id in {"eval", "exec", "__import__"}:
            yield f"{each.path}:{node.lineno} uses {node.id}"
        if isinstance(node, ast.Attribute) and _dotted(node) in {"yaml.load", "yaml.unsafe_load", "builtins.eval", "builtins.exec"}:
            yield f"{each.path}:{node.lineno} uses {_dotted(node)}"


def dynamic_imports(each: Module) -> Iterator[str]:
    """Modules are imported by name in two places: the app that --app names, and the verbs of a constant table."""
    if each.path.as_posix() in {"ops/search_path.py", "ops/__main__.py"} or each.path.parts[:2] == ("ops", "commands"):
        return
    for line, name in each.imports():
        # Reading what is installed runs nothing.
        if (name + ".").startswith("importlib.") and not (name + ".").startswith(("importlib.metadata.", "importlib.resources.")):
            yield f"{each.path}:{line} imports {name}"


def asserts(each: Module) -> Iterator[str]:
    """`python -O` drops assert statements: what must hold is checked by an InvariantError."""
    for node in ast.walk(each.tree):
        if isinstance(node, ast.Assert):
            yield f"{each.path}:{node.lineno} asserts"


def names(each: Module) -> Iterator[str]:
    """A module called like one of Python's would be imported in its place, or the other way round."""
    stems = [part.removesuffix(".py") for part in each.path.parts]
    for stem in stems:
        if stem in sys.stdlib_module_names:
            yield f"{each.path}: {stem} is a module of Python"


def sizes(each: Module) -> Iterator[str]:
    """A file is split before it has 500 lines."""
    if each.lines > LINES_MAX:
        yield f"{each.path} has {each.lines} lines"


Rule = Callable[[Module], Iterator[str]]
RULES: tuple[Rule, ...] = (
    arrows, clients, events_alone, spawning, clocks, code_from_data, dynamic_imports, asserts, names, sizes,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module_breaks_the_rule(rule: Rule) -> None:
    assert [finding for each in modules(*ARROWS) for finding in rule(each)] == [], rule.__doc__


@pytest.mark.parametrize("rule", [names, sizes], ids=lambda rule: rule.__name__)
def test_no_test_breaks_the_rule(rule: Rule) -> None:
    assert [finding for each in modules("tests") for finding in rule(each)] == [], rule.__doc__


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (arrows, "events/x.py", "import actors"),
        (arrows, "actors/x.py", "from runtime.cell import Cell"),
        (arrows, "actors/x.py", "def f():\n    import projections.memory"),
        (arrows, "projections/x.py", "from actors import State"),
        (arrows, "projections/x.py", "import runtime"),
        (arrows, "runtime/x.py", "from projections import memory"),
        (arrows, "runtime/x.py", "if TYPE_CHECKING:\n    from ops.settings import Settings"),
        (arrows, "ops/x.py", "from tests import conftest"),
        (arrows, "runtime/x.py", "from . import cell"),
        (clients, "runtime/exchange.py", "from nats.aio.client import Client"),
        (clients, "events/store.py", "import aiosqlite"),
        (clients, "ops/x.py", "import sqlite3"),
        (clients, "runtime/x.py", "import uvloop"),
        (clients, "runtime/sealed.py", "from cryptography.hazmat.primitives.ciphers.aead import AESGCM"),
        (clients, "actors/x.py", "from langgraph.graph import StateGraph"),
        (clients, "projections/cache.py", "import redis.asyncio"),
        (clients, "projections/vectors/index.py", "import numpy as np"),
        (clients, "projections/vectors/index_numpy.py", "import hnswlib"),
        (events_alone, "events/x.py", "import structlog"),
        (events_alone, "events/x.py", "import aiosqlite"),
        (spawning, "runtime/x.py", "asyncio.create_task(f())"),
        (spawning, "runtime/x.py", "from asyncio import gather"),
        (spawning, "runtime/x.py", "asyncio.get_running_loop().create_task(f())"),
        (spawning, "runtime/x.py", "await asyncio.wait_for(f(), 1)"),
        (clocks, "runtime/x.py", "time.time()"),
        (clocks, "runtime/x.py", "from time import time"),
        (clocks, "runtime/x.py", "datetime.now(UTC)"),
        (clocks, "runtime/x.py", "uuid.uuid4()"),
        (clocks, "runtime/x.py", "import random"),
        (code_from_data, "events/x.py", "import pickle"),
        (code_from_data, "events/x.py", "eval(text)"),
        (code_from_data, "events/x.py", "yaml.load(text)"),
        (code_from_data, "events/x.py", "__import__(name)"),
        (dynamic_imports, "runtime/x.py", "import importlib"),
        (dynamic_imports, "runtime/x.py", "from importlib import import_module"),
        (asserts, "runtime/x.py", "assert x"),
        (names, "runtime/queue.py", ""),
        (names, "ops/types/x.py", ""),
        (sizes, "runtime/x.py", "\n" * 500),
    ],
)
def test_the_rule_finds_what_it_forbids(rule: Rule, path: str, source: str) -> None:
    assert list(rule(module(path, source)))


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (arrows, "ops/x.py", "import runtime, actors, projections, events, ops"),
        (arrows, "runtime/x.py", "import actors, events, runtime.cell, asyncio, msgspec"),
        (clients, "runtime/over_nats/exchange_nats.py", "import nats"),
        (clients, "ops/nats_connection.py", "import nats"),
        (clients, "events/sqlite/sqlite_library.py", "import aiosqlite, pysqlite3"),
        (spawning, "runtime/x.py", "async with asyncio.TaskGroup() as group:\n    group.create_task(f())"),
        (clocks, "runtime/x.py", "self._clock.now(); time.monotonic(); datetime.fromtimestamp(0, UTC)"),
        (dynamic_imports, "runtime/x.py", "from importlib import metadata\nimport importlib.resources"),
        (sizes, "runtime/x.py", "\n" * 499),
    ],
)
def test_the_rule_leaves_alone_what_it_allows(rule: Rule, path: str, source: str) -> None:
    assert list(rule(module(path, source))) == []


def test_every_package_is_walked() -> None:
    assert {each.package for each in modules(*ARROWS)} == set(ARROWS)
