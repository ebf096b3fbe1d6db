"""What the agents share: concurrent effects, pages of files, parts, the workspace id, batches for ruff."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.team import lint_batch
from actors.team.pages import PAGE_FILES, FilePage, gone, in_lots, page_of
from actors.team.parts import PARTS, Part, PartLostError, read_part, remove_parts, write_part, write_whole
from actors.team.together import together
from actors.tools.errors import AnalyserMissingError, FileChangedError
from actors.tools.findings import Finding
from actors.tools.lint import lint_files
from actors.tools.workspace import inventory
from actors.workspace_id import workspace_id
from events.ids import is_token


class _GivenUpError(BaseException):
    """Like the engine's own: no `Exception`."""


async def test_together_keeps_the_order_given() -> None:
    """Results stand where their work stood, whichever ended first."""
    gate = asyncio.Event()

    async def first() -> str:
        await gate.wait()
        return "first"

    async def second() -> str:
        gate.set()
        return "second"

    assert await together([first(), second()]) == ["first", "second"]
    assert await together([]) == []


async def test_together_lets_all_end_and_raises_the_first_failure_bare() -> None:
    """A failed step stops no other: a re-run must find the entries of all."""
    ended: list[str] = []

    async def piece(name: str, failure: Exception | None) -> None:
        await asyncio.sleep(0)
        ended.append(name)
        if failure is not None:
            raise failure

    with pytest.raises(ValueError, match="b"):
        await together([piece("a", None), piece("b", ValueError("b")), piece("c", KeyError("c")), piece("d", None)])
    assert ended == ["a", "b", "c", "d"]


async def test_together_passes_on_what_is_no_exception() -> None:
    """The engine unwinds a handler with a class of its own, which must arrive outside of any group."""

    async def give_up() -> None:
        raise _GivenUpError

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(_GivenUpError):
        await together([wait(), give_up()])


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.just("d"), max_size=30), st.integers(1, 7))
def test_pages_hold_every_file_once(files: dict[str, str], size: int) -> None:
    """Following the cursor gives all files in order, and each page knows what is gone in its range."""
    listed: list[str] = []
    missing: list[str] = []
    known = {*files, "gone", "zzzzzz"} - set(list(files)[:1])
    after: str | None = ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("actors.team.pages.PAGE_FILES", size)
        while after is not None:
            page = page_of(files, after)
            missing += gone(known, page, after)
            listed += page.files
            after = page.next
    assert listed == sorted(files)
    assert missing == sorted(known - set(files))


def test_a_page_is_bounded() -> None:
    """Neither many files nor long paths make a page that no message can carry."""
    assert len(page_of({f"{n:06}": "d" * 64 for n in range(PAGE_FILES + 1)}, "").files) == PAGE_FILES
    long = page_of({f"{n:06}" + "x" * 4_000: "d" * 64 for n in range(1_000)}, "")
    assert len(long.files) < 200
    assert long.next is not None
    assert page_of({}, "") == FilePage(files={}, next=None)


def test_lots_are_bounded() -> None:
    """The last lot is the rest."""
    assert list(in_lots(["a", "b", "c"], 2)) == [["a", "b"], ["c"]]


@pytest.mark.parametrize("name", ["rich", "a b", "Größe", "x" * 200, ".hidden", "..."])
def test_a_workspace_id_is_a_token(name: str) -> None:
    """Whatever a folder is called, its id can stand in a subject."""
    assert is_token(workspace_id(Path("/tmp") / name))


def test_workspaces_of_one_name_are_told_apart() -> None:
    """The place of a folder is part of its id."""
    assert workspace_id(Path("/a/app")) != workspace_id(Path("/b/app"))
    assert workspace_id(Path("/a/app")).startswith("app-")


def test_a_part_comes_back_as_it_was(tmp_path: Path) -> None:
    """What is read has the digest that was handed over."""
    part = write_part(str(tmp_path / PARTS), "numbers", [1, 2])
    assert read_part(part, list[int]) == [1, 2]
    assert part.size_bytes == len(Path(part.path).read_bytes())


def test_a_lost_or_changed_part_is_refused(tmp_path: Path) -> None:
    """Nobody makes a report of something else than what the log says was handed over."""
    part = write_part(str(tmp_path), "numbers", [1])
    Path(part.path).write_text("[2]")
    with pytest.raises(PartLostError, match="not what its writer left"):
        read_part(part, list[int])
    with pytest.raises(PartLostError, match="cannot be read"):
        read_part(Part(path=str(tmp_path / "no.json"), sha256="", size_bytes=0), list[int])


def test_only_the_folder_of_parts_is_removed(tmp_path: Path) -> None:
    """A wrong argument must not cost somebody's files."""
    write_whole(tmp_path / "keep" / "a", b"1")
    write_part(str(tmp_path / PARTS), "a", 1)
    remove_parts(str(tmp_path / "keep"))
    remove_parts(str(tmp_path / PARTS))
    remove_parts(str(tmp_path / PARTS))
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
    assert [path.name for path in (tmp_path / "keep").iterdir()] == ["a"]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The files of each ruff process."""
    seen: list[list[str]] = []

    def counting(root: Path, paths: Sequence[str]) -> dict[str, list[Finding]]:
        seen.append(list(paths))
        return lint_files(root, paths)

    monkeypatch.setattr(lint_batch, "lint_files", counting)
    return seen


async def test_concurrent_files_share_one_ruff(codebase: Path, batches: list[list[str]]) -> None:
    """Each caller gets the findings of its own file."""
    files = {file.path: file.sha256 for file in inventory(codebase).files if file.path.endswith(".py")}
    found = await together(lint_batch.lint_one(str(codebase), path, digest) for path, digest in files.items())
    assert batches == [sorted(files)]
    assert dict(zip(files, found, strict=True)) == lint_files(codebase, list(files))
    assert [finding.rule for finding in found[list(files).index("shop/cart.py")]] == ["F401"]


async def test_a_changed_file_fails_alone(codebase: Path, batches: list[list[str]]) -> None:
    """Its neighbours in the batch keep their results."""
    files = {file.path: file.sha256 for file in inventory(codebase).files}
    (codebase / "main.py").write_text("changed = 1\n")
    outcomes: dict[str, object] = {}

    async def one(path: str) -> None:
        try:
            outcomes[path] = await lint_batch.lint_one(str(codebase), path, files[path])
        except FileChangedError as error:
            outcomes[path] = error.path

    await together(one(path) for path in ("main.py", "shop/price.py"))
    assert outcomes == {"main.py": "main.py", "shop/price.py": []}
    assert len(batches) == 1


async def test_a_missing_ruff_fails_the_whole_batch(codebase: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a process that did not start."""

    def missing(root: Path, paths: Sequence[str]) -> dict[str, list[Finding]]:
        raise AnalyserMissingError("ruff", "gone")

    monkeypatch.setattr(lint_batch, "lint_files", missing)
    with pytest.raises(AnalyserMissingError, match="gone"):
        await together(lint_batch.lint_one(str(codebase), path, "") for path in ("main.py", "shop/price.py"))
