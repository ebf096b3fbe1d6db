"""What the files of a workspace have to record: their state, and the events that make it."""

import msgspec

from actors.event import Event, State
from actors.files import checkpoints
from actors.files.disk import Found
from actors.files.limits import CHANGES_KEPT, CHECKPOINTS_KEPT
from actors.files.listing import LeftOut
from actors.files.names import Refusal
from actors.files.rules import DEFAULT_RULES, Operation, Rules


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One file that was written or deleted. `before` and `after` are None where there was, or is, no file; `folders` of those that lead to
    it, the last ones, were made with it."""

    number: int
    path: str
    before: Found | None
    after: Found | None
    folders: int = 0


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint"):
    """A state of the whole workspace that can be restored. `changes` is the number of the last change in it."""

    commit: str
    label: str
    files: int
    left_out: int
    changes: int


class FilesState(State):
    """`done` counts changes for ever; `changes` are the newest of them that can be undone, those after number `forgotten`. chosen: people
    have set these rules for this workspace; else they are those of the app."""

    root: str = ""
    rules: Rules = DEFAULT_RULES
    chosen: bool = False
    done: int = 0
    forgotten: int = 0
    changes: list[Change] = []
    checkpoints: list[Checkpoint] = []
    denied: int = 0


class WorkspaceOpened(Event[FilesState], tag="files.workspace_opened"):
    """The workspace is known by its folder, and these capabilities hold from here on. `rules_sha256` names them in short."""

    root: str
    rules: Rules
    rules_sha256: str
    chosen: bool | None = None
    """None = of a log from before apps had rules: whatever was not the default had been chosen."""

    def apply(self, state: FilesState) -> None:
        state.root, state.rules = self.root, self.rules
        state.chosen = self.rules != DEFAULT_RULES if self.chosen is None else self.chosen


class FileWritten(Event[FilesState], tag="files.written"):
    """A file has new content. The old one is in the workspace's backups under its digest."""

    agent: str
    change: Change

    def apply(self, state: FilesState) -> None:
        _keep(state, self.change)


class FileDeleted(Event[FilesState], tag="files.deleted"):
    """A file is gone. It is in the workspace's backups under its digest."""

    agent: str
    change: Change

    def apply(self, state: FilesState) -> None:
        _keep(state, self.change)


class AccessDenied(Event[FilesState], tag="files.access_denied"):
    """An agent was refused."""

    agent: str
    operation: Operation
    target: str
    refusal: Refusal

    def apply(self, state: FilesState) -> None:
        state.denied += 1


class ChangesUndone(Event[FilesState], tag="files.changes_undone"):
    """Every file changed after change number `to` is byte for byte what it was then."""

    to: int
    paths: list[str]

    def apply(self, state: FilesState) -> None:
        state.changes = [change for change in state.changes if change.number <= self.to]


class CheckpointMade(Event[FilesState], tag="files.checkpoint_made"):
    """The workspace can be brought back to this. `refused` names the first hundred that are not in it, each with the rule."""

    checkpoint: Checkpoint
    refused: list[LeftOut] = []

    def apply(self, state: FilesState) -> None:
        state.checkpoints = [*state.checkpoints, self.checkpoint][-CHECKPOINTS_KEPT:]


class CheckpointRestored(Event[FilesState], tag="files.checkpoint_restored"):
    """The workspace is byte for byte what the checkpoint held, apart from what `restored.refused` names."""

    checkpoint: Checkpoint
    restored: checkpoints.Restored

    def apply(self, state: FilesState) -> None:
        state.changes = [change for change in state.changes if change.number <= self.checkpoint.changes]


class CommandRun(Event[FilesState], tag="files.command_run"):
    """A program was run in the workspace. Its output is in the step's record and in the reply."""

    agent: str
    command: str
    arguments: list[str]
    exit_code: int
    timed_out: bool
    output_sha256: str

    def apply(self, state: FilesState) -> None:
        """It changes nothing that this actor keeps."""


def _keep(state: FilesState, change: Change) -> None:
    state.done = change.number
    state.changes.append(change)
    if len(state.changes) > CHANGES_KEPT:
        state.forgotten = state.changes.pop(0).number
