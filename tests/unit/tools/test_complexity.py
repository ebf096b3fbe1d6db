"""Complexity is radon's, number for number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import radon

from actors.tools.complexity import complexity_version, file_complexity, hot_spots
from actors.tools.workspace import inventory

SITE_PACKAGES = Path(radon.__file__).parent.parent


@pytest.mark.parametrize("package", ["aiosqlite", "rich"])
def test_numbers_equal_those_of_the_radon_command(package: str) -> None:
    root = SITE_PACKAGES / package
    # -P: rich has a json.py and an abc.py, which would shadow those of the standard library.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "radon", "cc", "--json", "."]
    answer = json.loads(subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=60).stdout)
    expected = {path: sorted((_name(block), block["lineno"], block["complexity"]) for block in blocks) for path, blocks in answer.items()}
    files = [file.path for file in inventory(root).files if file.language == "Python"]
    found = {path: file_complexity(root, path) for path in files}
    assert {
        path: sorted((block.name, block.line, block.complexity) for block in blocks) for path, blocks in found.items() if blocks
    } == expected
    worst = max(complexity for blocks in expected.values() for _, _, complexity in blocks)
    assert hot_spots([block for blocks in found.values() for block in blocks], 1)[0].complexity == worst


def test_methods_are_named_by_their_class_and_broken_files_have_no_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class A:\n    def f(self, x):\n        return 1 if x else 2\n")
    (tmp_path / "b.py").write_text("def (\n")
    found = [(block.name, block.line, block.complexity) for block in file_complexity(tmp_path, "a.py")]
    assert found == [("A", 1, 3), ("A.f", 2, 2)]
    assert file_complexity(tmp_path, "b.py") == []
    assert complexity_version().startswith("radon ")


def _name(block: dict[str, object]) -> str:
    return f"{block['classname']}.{block['name']}" if block.get("classname") else str(block["name"])
