"""Import statements, their resolution, and cycles that equal those networkx finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import networkx
import pytest

from actors.tools.graph import layers, strongly_connected
from actors.tools.import_diagram import import_diagram, import_diagram_svg
from actors.tools.imports import ImportGraph, file_imports, import_graph
from actors.tools.python_ast import ParseProblem, parse_bytes, syntax_findings
from actors.tools.workspace import inventory

SITE_PACKAGES = Path(pytest.__file__).parent.parent


def graph_of(root: Path, files: Mapping[str, str], prefix: str = "") -> ImportGraph:
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return import_graph([file_imports(root, path) for path in files], package_prefix=prefix)


def edges(graph: ImportGraph) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.to, edge.scope) for edge in graph.imports}


def test_every_form_of_import_reaches_its_module(tmp_path: Path) -> None:
    graph = graph_of(
        tmp_path,
        {
            "src/app/__init__.py": "from . import version\nfrom .core import run\n",
            "src/app/version.py": "import os\n",
            "src/app/core.py": "import app.util.text as t\nfrom app.util import text, missing\nfrom app import *\n",
            "src/app/util/__init__.py": "from .. import version\n",
            "src/app/util/text.py": "from ...too.far import x\n",
            "tests/test_app.py": "import app.core\nfrom helper import h\n",
            "tests/helper.py": "",
        },
    )
    assert edges(graph) == {
        ("app", "app.version", "module"),
        ("app", "app.core", "module"),
        ("app.core", "app.util.text", "module"),
        ("app.core", "app.util", "module"),
        ("app.core", "app", "module"),
        ("app.util", "app.version", "module"),
        ("test_app", "app.core", "module"),
        ("test_app", "helper", "module"),
    }
    assert graph.cycles == [["app", "app.core"]]
    assert graph.imported_names["src/app/core.py"] == ["run"]


def test_scope_tells_typing_and_deferred_imports_apart(tmp_path: Path) -> None:
    code = (
        "import typing\nif typing.TYPE_CHECKING:\n    import b\nelse:\n    import c\n"
        "def f():\n    import d\ntry:\n    import e\nexcept ImportError:\n    pass\n"
    )
    graph = graph_of(tmp_path, {"a.py": code, "b.py": "import a\n", "c.py": "", "d.py": "import a", "e.py": ""})
    assert {(to, scope) for source, to, scope in edges(graph) if source == "a"} == {
        ("b", "typing"),
        ("c", "module"),
        ("d", "function"),
        ("e", "module"),
    }
    assert graph.cycles == [["a", "b", "d"]]
    assert graph.load_cycles == []


def test_files_with_one_stem_never_share_a_module_name(tmp_path: Path) -> None:
    graph = graph_of(
        tmp_path,
        {"main.py": "import tool", "tool.py": "", "x/main.py": "import tool", "x/tool.py": "", "y/main.py": ""},
    )
    assert [module.name for module in graph.modules] == ["main", "tool", "x.main", "x.tool", "y.main"]
    assert edges(graph) == {("main", "tool", "module"), ("x.main", "x.tool", "module")}


def test_a_local_name_does_not_capture_the_standard_library(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"pkg/__init__.py": "", "pkg/json.py": "import json", "tools/json.py": "", "a.py": "import json"})
    assert edges(graph) == set()


def test_folders_without_init_are_packages_when_imported_so(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"ns/part/a.py": "from ns.part.b import x\nfrom . import c", "ns/part/b.py": "", "ns/part/c.py": ""})
    assert edges(graph) == {("a", "b", "module"), ("a", "c", "module")}


def test_a_reviewed_package_keeps_its_name(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"__init__.py": "", "a.py": "from pkg.b import x\nfrom . import b", "b.py": "import pkg"}, "pkg")
    assert [module.name for module in graph.modules] == ["pkg", "pkg.a", "pkg.b"]
    assert edges(graph) == {("pkg.a", "pkg.b", "module"), ("pkg.b", "pkg", "module")}


def test_a_self_import_is_no_edge(tmp_path: Path) -> None:
    assert graph_of(tmp_path, {"p/__init__.py": "from . import name\nimport p\n"}).imports == []


@pytest.mark.parametrize("package", ["aiosqlite", "rich", "cyclopts"])
def test_cycles_equal_the_components_networkx_finds_in_imports(package: str) -> None:
    root = SITE_PACKAGES / package
    found = inventory(root)
    files = [file_imports(root, file.path) for file in found.files if file.language == "Python"]
    graph = import_graph(files, package_prefix=found.package_prefix)
    other = networkx.DiGraph([(edge.source, edge.to) for edge in graph.imports])
    components = (sorted(part) for part in networkx.strongly_connected_components(other) if len(part) > 1)
    assert graph.cycles == sorted(components)
    assert len(graph.imports) > 5


def test_components_equal_networkx_on_random_graphs() -> None:
    for seed in range(60):
        graph = networkx.gnp_random_graph(14, 0.12, seed=seed, directed=True)
        names = sorted(str(node) for node in graph)
        below = {name: sorted(str(to) for to in graph[int(name)]) for name in names}
        expected = sorted(sorted(str(node) for node in part) for part in networkx.strongly_connected_components(graph))
        assert sorted(strongly_connected(names, below)) == expected, seed


def test_a_chain_longer_than_the_recursion_limit_has_its_layers() -> None:
    names = [f"m{number:05}" for number in range(5_000)]
    below = {name: [names[number + 1]] if number + 1 < len(names) else [] for number, name in enumerate(names)}
    assert layers(names, below) == [[name] for name in reversed(names)]


def test_layers_keep_a_cycle_together() -> None:
    assert layers(["a", "b", "c"], {"a": ["b"], "b": ["a", "c"], "c": []}) == [["c"], ["a", "b"]]


def test_a_large_graph_is_condensed_to_rows_that_fit(tmp_path: Path) -> None:
    files = {f"pkg/sub{n % 9}/m{n}.py": f"import pkg.sub{(n + 1) % 9}.m{n + 1}" for n in range(90)}
    files |= {"pkg/__init__.py": "", **{f"pkg/sub{n}/__init__.py": "" for n in range(9)}}
    diagram = import_diagram(graph_of(tmp_path, files))
    assert diagram.grouped
    assert [node.modules for node in diagram.nodes].count(11) == 9
    flat = {f"m{n}.py": f"import m{n // 2}" for n in range(120)}
    rows = import_diagram(graph_of(tmp_path, flat)).nodes
    assert len(rows) == 40
    assert rows[-1].name == "81 more, not drawn"


def test_names_in_the_diagram_are_escaped(tmp_path: Path) -> None:
    svg = import_diagram_svg(graph_of(tmp_path, {"a<b>&.py": "", "c.py": ""}))
    assert "a&lt;b&gt;&amp;" in svg
    assert "<b>" not in svg


def test_source_encodings_are_honoured() -> None:
    for content in (
        b"\xef\xbb\xbfx = 1\n",
        "# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"),
        b"x = 1\r\ny = 2\r",
    ):
        assert not isinstance(parse_bytes(content), ParseProblem)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"def f(:\n", "syntax-error"),
        (b"x = 1\nprint 'old'\n", "syntax-error"),
        (b"x = 1\n\0\n", "syntax-error"),
        (b"# coding: no-such-codec\n", "syntax-error"),
        (b"x = '\xff'\n", "syntax-error"),
        (b"(" * 100_000, "syntax-error"),
        (b"x = " + b"-" * 100_000 + b"1\n", "unparsed-file"),
        (b"x = " + b"a." * 50_000 + b"b\n", "unparsed-file"),
    ],
)
def test_what_does_not_parse_is_one_finding(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "a.py").write_bytes(content)
    findings = syntax_findings(tmp_path, "a.py")
    assert [finding.rule for finding in findings] == [rule]
    assert file_imports(tmp_path, "a.py").statements == []


def test_an_invalid_escape_is_no_syntax_error() -> None:
    assert not isinstance(parse_bytes(b"x = '\\d'\n"), ParseProblem)
