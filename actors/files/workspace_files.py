"""The files of one workspace as an actor: whoever changes one asks here, so there is one place that refuses, one that records, and one that
can take everything back."""

import hashlib
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, TypeVar

import msgspec

from actors.actor import Actor, command, query
from actors.errors import Rejected, StepFailed
from actors.files import checkpoints, disk
from actors.files.commands import Outcome
from actors.files.disk import Found
from actors.files.edits import Edit, edited
from actors.files.finding import Lines, Paths, find_below, search_below
from actors.files.limits import COMMAND_END_S, PATH_BYTES_MAX, REFUSALS_SHOWN
from actors.files.names import Refusal
from actors.files.records import (
    AccessDenied,
    Change,
    ChangesUndone,
    Checkpoint,
    CheckpointMade,
    CheckpointRestored,
    CommandRun,
    FileDeleted,
    FilesState,
    FileWritten,
    WorkspaceOpened,
)
from actors.files.rules import DEFAULT_RULES, Operation, Rules, command_line, decide, too_large
from actors.files.steps import Content, Missing, as_it_was, keep, put, read_text, read_whole, run_program, workspace_folder
from actors.workspace_id import workspace_id
from events.codec import encode

T = TypeVar("T")


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag="changed"):
    """A change that was made."""

    change: Change


class Moved(msgspec.Struct, frozen=True, kw_only=True, tag="moved"):
    """A file has another name: what came, and what went."""

    came: Change
    went: Change


ReadReply: TypeAlias = Content | Refusal
MoveReply: TypeAlias = Moved | Refusal
FindReply: TypeAlias = Paths | Refusal
SearchReply: TypeAlias = Lines | Refusal
ChangeReply: TypeAlias = Changed | Refusal
UndoReply: TypeAlias = list[str] | Refusal
CheckpointReply: TypeAlias = Checkpoint | Refusal
RestoreReply: TypeAlias = checkpoints.Restored | Refusal
CommandReply: TypeAlias = Outcome | Refusal


class Files(Actor[FilesState], name="files"):
    """Files, checkpoints and programs of one workspace; the id is that of its folder (`workspace_id`).

    What an agent may do is decided by `actors.files.rules`. A refusal is a reply and an event, never an exception, so that it is in the log
    and the agent's own turn goes on. When another actor asks, its type is the agent; `agent` counts only from outside.
    """

    granted: ClassVar[Rules] = DEFAULT_RULES
    """What holds in a workspace for which nobody has set other rules: `files_with` makes a class with others."""

    @command
    async def open(self, root: str, rules: Rules | None = None) -> str:
        """Name the folder, and the capabilities that hold in it from now on (default: those that were set, else those of the app). Returns:
        the folder.

        Raises:
            Rejected: no such folder, a system folder, not the folder of this id, or one of our own actors asks for other rules.
        """
        try:
            found = await self.step("resolve", workspace_folder, root)
        except StepFailed as error:
            raise Rejected(error.message.split(": ", 2)[-1], path=root) from error
        if workspace_id(Path(found)) != self.id:
            raise Rejected(f"{found} is the workspace {workspace_id(Path(found))}, not {self.id}", workspace=workspace_id(Path(found)))
        if rules is not None and rules != self.state.rules and self.sender is not None:
            raise Rejected("capabilities are set from outside, not by an agent", agent=self.sender)
        chosen = self.state.chosen or (rules is not None and rules != self.state.rules)
        wanted = rules if rules is not None else self.state.rules if chosen else self.granted
        if (found, wanted, chosen) != (self.state.root, self.state.rules, self.state.chosen):
            digest = hashlib.sha256(encode(wanted)).hexdigest()
            self.emit(WorkspaceOpened(root=found, rules=wanted, rules_sha256=digest, chosen=chosen))
        return found

    @command
    async def read(self, path: str, agent: str = "", first: int = 1, last: int | None = None) -> ReadReply:
        """Lines of a text file, counted from 1, `last` included."""
        agent = self._agent(agent)
        refusal = decide(agent, "read", path, self._rules())
        if refusal is not None:
            return self._denied(agent, "read", path, refusal)
        read = await self.step("read", read_text, self.state.root, path, self.state.rules.max_file_bytes, first, last)
        if isinstance(read, Refusal):
            return self._denied(agent, "read", path, read)
        if read is None:
            raise Rejected(f"{path} is not there", path=path)
        return read

    @command
    async def write(self, path: str, content: str, agent: str = "", overwrite: bool = True, expected: str | None = None) -> ChangeReply:
        """Make or replace a text file.

        Args:
            overwrite: false = only if there is none.
            expected: digest of the content that the writer has seen; another one is refused.
        """
        agent = self._agent(agent)
        refusal = decide(agent, "write", path, self._rules()) or too_large(len(content.encode()), self.state.rules)
        if refusal is not None:
            return self._denied(agent, "write", path, refusal)
        return await self._change(agent, path, content, expected, overwrite)

    @command
    async def edit(self, path: str, edits: list[Edit], agent: str = "", expected: str | None = None) -> ChangeReply:
        """Change lines of a text file; all edits speak of the lines as they are now."""
        agent = self._agent(agent)
        refusal = decide(agent, "write", path, self._rules())
        if refusal is not None:
            return self._denied(agent, "write", path, refusal)
        held = await self.step("read", read_whole, self.state.root, path, self.state.rules.max_file_bytes)
        if isinstance(held, Refusal):
            return self._denied(agent, "write", path, held)
        if held is None:
            raise Rejected(f"{path} is not there", path=path)
        if expected is not None and held.found.sha256 != expected:
            raise Rejected(f"{path} has changed since it was read", path=path, sha256=held.found.sha256)
        content = edited(held.text, edits)
        refusal = too_large(len(content.encode()), self.state.rules)
        if refusal is not None:
            return self._denied(agent, "write", path, refusal)
        return await self._change(agent, path, content, held.found.sha256, True)

    @command
    async def delete(self, path: str, agent: str = "", expected: str | None = None) -> ChangeReply:
        """Remove a file; its content stays in the backups."""
        agent = self._agent(agent)
        refusal = decide(agent, "delete", path, self._rules())
        if refusal is not None:
            return self._denied(agent, "delete", path, refusal)
        return await self._change(agent, path, None, expected, True)

    @command
    async def move(self, path: str, to: str, agent: str = "", overwrite: bool = False) -> MoveReply:
        """Give a file another name, byte for byte and with its permissions: two changes, which are undone like others.

        Args:
            overwrite: whether a file that stands at `to` may go.
        """
        agent = self._agent(agent)
        limit = self._rules().max_file_bytes
        for place in (path, to):
            refusal = decide(agent, "write", place, self.state.rules)
            if refusal is not None:
                return self._denied(agent, "move", place, refusal)
        if path.casefold() == to.casefold():
            # On some disks both are one file, which would be written and then removed.
            raise Rejected(f"{path} and {to} may be the same name", path=path)
        held = await self._tried("keep", keep, path, limit)
        there = await self._tried("keep", keep, to, limit)
        for place, seen in ((path, held), (to, there)):
            if isinstance(seen, Refusal):
                return self._denied(agent, "move", place, seen)
        if not isinstance(held, Found):
            raise Rejected(f"{path} is not there", path=path)
        target = there if isinstance(there, Found) else None
        if target is not None and not overwrite:
            raise Rejected(f"{to} is there already", path=to, sha256=target.sha256)
        folders = there.folders if isinstance(there, Missing) else 0
        # The new name first: at no moment is the content nowhere.
        refusal = await self._apply(to, "put", held, target, None)
        if refusal is not None:
            return self._denied(agent, "move", to, refusal)
        came = Change(number=self.state.done + 1, path=to, before=target, after=held, folders=folders)
        self.emit(FileWritten(agent=agent, change=came))
        refusal = await self._apply(path, "put", None, held, None)
        if refusal is not None:
            # The copy stands in the log and can be undone.
            return self._denied(agent, "move", path, refusal)
        went = Change(number=self.state.done + 1, path=path, before=held, after=None)
        self.emit(FileDeleted(agent=agent, change=went))
        return Moved(came=came, went=went)

    @command
    async def find(self, folder: str = "", pattern: str = "**", agent: str = "", after: str = "", limit: int = 1_000) -> FindReply:
        """Files and links below `folder` ("" = all) that fit `pattern`, written as in grants: by path, those behind `after`. What git would
        ignore and what the rules refuse is not shown."""
        agent = self._agent(agent)
        refusal = decide(agent, "read", folder, self._rules()) if folder else None
        if refusal is None:
            found = await self._tried("find", find_below, folder, self.state.rules, pattern, after, limit)
            if not isinstance(found, Refusal):
                return found
            refusal = found
        return self._denied(agent, "find", folder, refusal)

    @command
    async def search(self, text: str, folder: str = "", pattern: str = "**", agent: str = "", limit: int = 200) -> SearchReply:
        """Lines that hold `text`, letter by letter, in the text files that `find` shows."""
        agent = self._agent(agent)
        refusal = decide(agent, "read", folder, self._rules()) if folder else None
        if refusal is None:
            found = await self._tried("search", search_below, folder, self.state.rules, pattern, text, limit)
            if not isinstance(found, Refusal):
                return found
            refusal = found
        return self._denied(agent, "search", folder, refusal)

    @command
    async def undo(self, to: int) -> UndoReply:
        """Bring every file that changed after change number `to` back, byte for byte, with its permissions; folders that came with one go
        with it. Nothing is changed unless all can be. Returns: their paths.

        Raises:
            Rejected: change `to` is too old, or a file was changed by somebody else since, so that undoing would lose that.
        """
        rules = self._rules()
        later = [change for change in self.state.changes if change.number > to]
        if to < self.state.forgotten:
            oldest = self.state.forgotten
            raise Rejected(f"change {oldest} can no longer be undone; restore a checkpoint", to=to, forgotten=oldest)
        first: dict[str, Change] = {}
        last: dict[str, Change] = {}
        for change in later:
            first.setdefault(change.path, change)
            last[change.path] = change
        for path, change in first.items():
            refusal = await self._tried("look", as_it_was, path, change.before, last[path].after, rules.max_file_bytes)
            if refusal is not None:
                return self._denied(self._agent(""), "undo", path, refusal)
        # Newest first: what was put into a new folder leaves it before the one that made it.
        for path, change in reversed(first.items()):
            refusal = await self._apply(path, "undo", change.before, last[path].after, None, change.folders)
            if refusal is not None:
                return self._denied(self._agent(""), "undo", path, refusal)
        if first:
            self.emit(ChangesUndone(to=to, paths=sorted(first)))
        return sorted(first)

    @command
    async def checkpoint(self, label: str = "") -> CheckpointReply:
        """Keep the whole workspace as it is now, apart from what git ignores and what the rules refuse, which the event names."""
        rules = self._rules()
        parent = self.state.checkpoints[-1].commit if self.state.checkpoints else None
        try:
            kept = await self.step("checkpoint", checkpoints.make, self.state.root, label, parent, rules)
        except StepFailed as error:
            raise Rejected(error.message) from error
        if isinstance(kept, Refusal):
            return self._denied(self._agent(""), "checkpoint", self.state.root, kept)
        made = Checkpoint(commit=kept.commit, label=label, files=kept.files, left_out=kept.left_out, changes=self.state.done)
        self.emit(CheckpointMade(checkpoint=made, refused=kept.refused))
        return made

    @command
    async def restore(self, commit: str) -> RestoreReply:
        """Bring the whole workspace back to a checkpoint of this workspace, byte for byte."""
        rules = self._rules()
        wanted = next((kept for kept in self.state.checkpoints if kept.commit == commit), None)
        if wanted is None:
            raise Rejected(f"there is no checkpoint {commit[:12]!r}", known=[kept.commit for kept in self.state.checkpoints[-10:]])
        try:
            restored = await self.step("restore", checkpoints.restore, self.state.root, commit, rules)
        except StepFailed as error:
            raise Rejected(error.message) from error
        if isinstance(restored, Refusal):
            return self._denied(self._agent(""), "restore", commit, restored)
        for left in restored.refused[:REFUSALS_SHOWN]:
            self._denied(self._agent(""), "restore", left.path, left.refusal)
        self.emit(CheckpointRestored(checkpoint=wanted, restored=restored))
        return restored

    @command
    async def compare(self, first: str, second: str) -> str | Refusal:
        """The differences between two checkpoints as a unified diff."""
        known = {kept.commit for kept in self.state.checkpoints}
        if not {first, second} <= known:
            raise Rejected("both must be checkpoints of this workspace", known=sorted(known)[-10:])
        try:
            shown = await self.step("compare", checkpoints.compare, self.state.root, first, second)
        except StepFailed as error:
            raise Rejected(error.message) from error
        return self._denied(self._agent(""), "read", f"{first}..{second}", shown) if isinstance(shown, Refusal) else shown

    @command
    async def run(self, command: str, arguments: list[str] | None = None, agent: str = "") -> CommandReply:
        """Run a program that the rules declare. It changes files without asking here: make a checkpoint before."""
        agent = self._agent(agent)
        rules = self._rules()
        given = arguments or []
        words = command_line(agent, command, given, rules)
        target = " ".join([command, *given])
        if isinstance(words, Refusal):
            return self._denied(agent, "run", target, words)
        paths = [argument for argument in given if not argument.startswith("-")]
        try:
            within_s = rules.commands[command].timeout_s
            ended = await self.step("run", run_program, self.state.root, words, paths, within_s, timeout_s=within_s + COMMAND_END_S)
        except StepFailed as error:
            raise Rejected(error.message, command=command) from error
        if isinstance(ended, Refusal):
            return self._denied(agent, "run", target, ended)
        self.emit(
            CommandRun(
                agent=agent, command=command, arguments=given, exit_code=ended.exit_code, timed_out=ended.timed_out,
                output_sha256=hashlib.sha256(ended.output.encode()).hexdigest(),
            )
        )  # fmt: skip
        return ended

    @query
    def changes(self, after: int = 0, limit: int = 100) -> list[Change]:
        """Changes that can be undone, oldest first."""
        return [change for change in self.state.changes if change.number > after][: max(limit, 0)]

    @query
    def kept(self) -> list[Checkpoint]:
        """The checkpoints, oldest first."""
        return list(self.state.checkpoints)

    @query
    def may(self, agent: str, operation: Literal["read", "write", "delete"], path: str) -> Refusal | None:
        """Whether `agent` would be let, without a trace in the log; None = yes."""
        return decide(agent, operation, path, self.state.rules)

    def _agent(self, said: str) -> str:
        return said if self.sender is None else self.sender.partition("/")[0]

    def _rules(self) -> Rules:
        if not self.state.root:
            raise Rejected("open the workspace first: open(root)", workspace=self.id)
        return self.state.rules

    def _denied(self, agent: str, operation: Operation, target: str, refusal: Refusal) -> Refusal:
        # Cut, so that nothing is too long, or too odd, to be recorded.
        told = Refusal(rule=refusal.rule, reason=_cut(refusal.reason))
        self.emit(AccessDenied(agent=_cut(agent), operation=operation, target=_cut(target), refusal=told))
        return told

    async def _change(self, agent: str, path: str, content: str | None, expected: str | None, overwrite: bool) -> ChangeReply:
        """Two steps, so that a crash between them is no question: the first records what was there and keeps it, the second does nothing
        where the file is already what it is to be."""
        operation: Operation = "write" if content is not None else "delete"
        held = await self._tried("keep", keep, path, self.state.rules.max_file_bytes)
        if isinstance(held, Refusal):
            return self._denied(agent, operation, path, held)
        before = held if isinstance(held, Found) else None
        if expected is not None and (before is None or before.sha256 != expected):
            raise Rejected(f"{path} has changed since it was read", path=path, sha256=None if before is None else before.sha256)
        if before is not None and not overwrite:
            raise Rejected(f"{path} is there already", path=path, sha256=before.sha256)
        if before is None and content is None:
            raise Rejected(f"{path} is not there", path=path)
        after = None
        if content is not None:
            raw = content.encode()
            # Like a write to the file itself: it does not go on being a program that runs as somebody else.
            mode = 0o644 if before is None else before.mode & 0o777
            after = Found(sha256=disk.digest(raw), size_bytes=len(raw), mode=mode)
        refusal = await self._apply(path, "put", after, before, content)
        if refusal is not None:
            return self._denied(agent, operation, path, refusal)
        folders = held.folders if isinstance(held, Missing) else 0
        change = Change(number=self.state.done + 1, path=path, before=before, after=after, folders=folders)
        self.emit(FileWritten(agent=agent, change=change) if content is not None else FileDeleted(agent=agent, change=change))
        return Changed(change=change)

    async def _apply(
        self, path: str, name: str, wanted: Found | None, expected: Found | None, content: str | None, folders: int = 0
    ) -> Refusal | None:
        # The content stands in the record of the turn's own arguments already.
        written = partial(put, content=content, folders=folders)
        refusal: Refusal | None = await self._tried(name, written, path, wanted, expected, self.state.rules.max_file_bytes)
        return refusal

    async def _tried(self, name: str, function: Callable[..., T], path: str, *args: object) -> T:
        """One step about one file. Raises: Rejected: it failed."""
        try:
            return await self.step(name, function, self.state.root, path, *args, key=path)
        except StepFailed as error:
            raise Rejected(error.message, path=path) from error


def _cut(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:PATH_BYTES_MAX]


def files_with(rules: Rules) -> type[Files]:
    """The actor type ``files`` of an app, ``App(actors=[..., files_with(RULES)])``, where `rules` hold until people set others."""
    made: type[Files] = types.new_class("files", (Files,), {"name": "files"}, lambda body: body.update(granted=rules, __module__=__name__))
    return made
