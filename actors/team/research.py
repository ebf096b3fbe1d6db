"""Research: what the code base consists of."""

import hashlib
from functools import partial
from pathlib import Path

import msgspec

from actors.actor import Actor, command, query
from actors.errors import Rejected, StepFailed
from actors.event import Event, State
from actors.team.pages import EVENT_FILES, FilePage, gone, in_lots, page_of
from actors.team.parts import Part, read_part, write_part
from actors.team.together import both
from actors.tools.entry_points import EntryPoint, entry_points
from actors.tools.errors import FileChangedError
from actors.tools.history import History, git_history
from actors.tools.languages import PYTHON
from actors.tools.workspace import Inventory, LanguageTotal, inventory, resolve_root


class Inventoried(msgspec.Struct, frozen=True, kw_only=True):
    """The head of an inventory; the files are in the part. `fingerprint` changes when any Python file does."""

    root: str
    package_prefix: str
    under_git: bool
    files: int
    lines: int
    python_files: int
    python_lines: int
    languages: list[LanguageTotal]
    fingerprint: str
    part: Part


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What the other agents and the last screen need to know of a code base."""

    inventory: Inventoried
    entry_points: Part
    entry_points_count: int
    history: History | None
    unavailable: list[str]


class EntryPointsFound(msgspec.Struct, frozen=True, kw_only=True):
    part: Part
    count: int
    changed: str | None
    """The file that was no longer the one of the inventory, if there was one: then the list is empty."""


class ResearchState(State):
    """`files` maps the path of each Python file to the digest of its content, as of the last finished listing."""

    root: str = ""
    reviews: int = 0
    files: dict[str, str] = {}
    listed: str = ""
    """Fingerprint of the inventory that `files` is complete for; empty while it is being listed."""
    lines: int = 0
    all_files: int = 0
    commits: int = 0


class Surveyed(Event[ResearchState], tag="research.surveyed"):
    """A code base was walked through."""

    review: str
    root: str
    files: int
    lines: int
    python_files: int
    languages: dict[str, int]
    entry_points: int
    commits: int

    def apply(self, state: ResearchState) -> None:
        state.root = self.root
        state.reviews += 1
        state.all_files = self.files
        state.lines = self.lines
        state.commits = self.commits


class FilesFound(Event[ResearchState], tag="research.files_found"):
    """Python files that are new or have other content."""

    files: dict[str, str]

    def apply(self, state: ResearchState) -> None:
        state.listed = ""
        state.files.update(self.files)


class FilesGone(Event[ResearchState], tag="research.files_gone"):
    """Python files that are there no more."""

    paths: list[str]

    def apply(self, state: ResearchState) -> None:
        state.listed = ""
        for path in self.paths:
            state.files.pop(path, None)


class ListingFinished(Event[ResearchState], tag="research.listing_finished"):
    """`files` of the state is now that of one inventory."""

    fingerprint: str

    def apply(self, state: ResearchState) -> None:
        state.listed = self.fingerprint


class Research(Actor[ResearchState], name="research"):
    """Inventory, languages, entry points and git history of one workspace."""

    @command
    async def survey(self, review: str, root: str, parts: str) -> Survey:
        """Walk through a code base; its Python files are listed by `list_files`."""
        try:
            found = await self.step("inventory", take_inventory, root, parts)
        except StepFailed as error:
            raise Rejected(error.message.split(": ", 2)[-1], path=root) from error
        self._show(f"{found.files:,} files, {found.lines:,} lines", 0, found.files)
        history, starts = await both(self._history(found), self._entry_points(found, parts))
        self.emit(
            Surveyed(
                review=review, root=found.root, files=found.files, lines=found.lines, python_files=found.python_files,
                languages={total.language: total.files for total in found.languages}, entry_points=starts.count,
                commits=0 if history is None else history.commits,
            )
        )  # fmt: skip
        self._show("entry points and history", found.files, found.files)
        unavailable = [] if starts.changed is None else [f"entry points: {starts.changed} changed while it was examined"]
        return Survey(inventory=found, entry_points=starts.part, entry_points_count=starts.count, history=history, unavailable=unavailable)

    def _show(self, what: str, done: int, total: int) -> None:
        self.chunk({"agent": "research", "what": what, "done": done, "total": total, "unit": "files"})

    async def _history(self, found: Inventoried) -> History | None:
        return await self.step("history", history_of, found.root) if found.under_git else None

    async def _entry_points(self, found: Inventoried, parts: str) -> EntryPointsFound:
        return await self.step("entry points", partial(find_entry_points, found.part), found.root, parts)

    @command
    async def list_files(self, inventory: Inventoried, after: str) -> str | None:
        """Take the next page of the inventory's Python files into the state; replies the cursor of the page after it, None at the end."""
        if not after and self.state.listed == inventory.fingerprint:
            return None
        page = await self.step("files", partial(python_page, inventory.part), after, key=after)
        for paths in in_lots(gone(self.state.files, page, after)):
            self.emit(FilesGone(paths=paths))
        fresh = [path for path, digest in page.files.items() if self.state.files.get(path) != digest]
        for paths in in_lots(fresh, EVENT_FILES):
            self.emit(FilesFound(files={path: page.files[path] for path in paths}))
        if page.next is None:
            self.emit(ListingFinished(fingerprint=inventory.fingerprint))
        return page.next

    @query
    def python_files(self, after: str) -> FilePage:
        """A page of the Python files with their digests, in order of paths, from the first one above `after`."""
        return page_of(self.state.files, after)


def take_inventory(root: str, parts: str) -> Inventoried:
    """Step: list and digest every file; the list goes into a part."""
    place = resolve_root(root)
    found = inventory(place)
    digest = hashlib.sha256(found.package_prefix.encode())
    python = [file for file in found.files if file.language == PYTHON]
    for file in python:
        digest.update(f"\0{file.path}\0{file.sha256}".encode())
    return Inventoried(
        root=str(place), package_prefix=found.package_prefix, under_git=found.under_git, files=len(found.files),
        lines=sum(file.lines for file in found.files), python_files=len(python), python_lines=sum(file.lines for file in python),
        languages=found.languages, fingerprint=digest.hexdigest(), part=write_part(parts, "inventory", found),
    )  # fmt: skip


def python_page(part: Part, after: str) -> FilePage:
    """Step: one page of the Python files of an inventory."""
    found = read_part(part, Inventory)
    return page_of({file.path: file.sha256 for file in found.files if file.language == PYTHON}, after)


def history_of(root: str) -> History | None:
    """Step: what git knows."""
    return git_history(Path(root))


def find_entry_points(part: Part, root: str, parts: str) -> EntryPointsFound:
    """Step: every way in, into a part."""
    found: list[EntryPoint] = []
    changed: str | None = None
    try:
        found = entry_points(Path(root), read_part(part, Inventory).files)
    except FileChangedError as error:
        changed = error.path
    return EntryPointsFound(part=write_part(parts, "entry_points", found), count=len(found), changed=changed)
