"""What a user writes: a read model in plain SQL, from events to rows and from rows to answers. The engine does the rest.

    class Balances(Projection):
        name = "balances"
        handles = ("account.deposited", "account.withdrawn")

        def create(self, db: Database) -> None:
            db.execute("CREATE TABLE balance (stream TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT")

        def apply(self, db: Database, event: RecordedEvent) -> None: ...

        @operation
        def richest(self, db: Database, limit: int = 10) -> list[dict[str, Any]]: ...

``App(actors=[...], projections=[Balances])`` runs it, ``cue.view.balances.richest`` asks it. ops/examples/balances.py is a whole one.

What a projection may rely on, and must keep to, so that a rebuild equals what grew event by event (I-11):

- Events of one shard, so also those of one stream, come in the order of the log, each exactly once in effect. Those of different shards
  come in any order: what `apply` writes depends on the event and on rows of the same stream only, or commutes (a sum does).
- `apply` reads no clock, makes no random choice and numbers no rows by insertion: `row_id(event)` is a number that a rebuild gives again.
- Payloads come in the newest schema version that the app's upcasters make of them.
- Of a fork only its own events come (S33); ``event.parent`` names what it branched off.
- What a sealed actor said never comes (S29), because the file of a view is clear text: see `sealed`.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Concatenate, Final, ParamSpec, Protocol, TypeVar

from events.envelope import RecordedEvent
from events.ids import StreamId
from projections.comparing import rows_of
from projections.database import Database

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

SHARDS_PER_ROW_ID: Final = 1_024
"""As many shards as a log may have (events/log_directory.py)."""
_OPERATION: Final = "__cuebook_operation__"


class Reads(Protocol):
    """What an operation that is ``async def`` gets in place of `db`: ``await reads(function, *args)`` calls ``function(db, *args)`` on a
    reader's thread, in one read transaction: everything that it sees is of one checkpoint."""

    def __call__(self, function: "Callable[Concatenate[Database, P], T]", *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...


def operation(function: F) -> F:
    """Mark a method as an operation: ``cue.view.<name>.<method>`` answers with what it returns, as JSON.

    A plain ``def`` gets a read-only connection in a read transaction, on a reader's thread; an ``async def`` runs on the event loop and
    gets `Reads`. The other parameters are the JSON arguments, strictly of their annotated types. It changes nothing and may be repeated.
    """
    setattr(function, _OPERATION, True)
    return function


def is_operation(function: Any) -> bool:
    """Whether `operation` marked it."""
    return bool(getattr(function, _OPERATION, False))


class Projection:
    """One read model. An instance belongs to one file: while a new one is built beside the old (another version, or a rebuild) there are
    two. All methods but the operations are called on the one thread that writes the file, never two at a time."""

    name: ClassVar[str]
    """1 to 64 letters, digits, "_" or "-": it stands in subjects and paths."""
    version: ClassVar[int] = 1
    """Another number makes the engine build the view anew beside the old one, and switch over. Raise it with every change of the tables or
    of what `apply` makes of an event."""
    answers_from: ClassVar[Sequence[int]] = ()
    """Older versions whose tables the operations can read as well: such a view answers, as old as it is, while the new one is built. Else
    whoever asks meanwhile is told to come back."""
    handles: ClassVar[Sequence[str]] = ()
    """Tags of the events that `apply` wants: an app's own, or those of events/FORMAT.md 7 such as ``step.completed``."""
    sealed: ClassVar[bool] = False
    """True: events of sealed actors come too, without payload (JSON ``null``) and summary: that something happened, never what;
    of an erased stream nothing comes any more."""

    def create(self, db: Database) -> None:
        """Make the tables in an empty file, inside a transaction. Names that start with ``cue_`` are the engine's."""
        raise NotImplementedError

    def apply(self, db: Database, event: RecordedEvent) -> None:
        """Bring one event into the tables. Runs inside the transaction that also moves the checkpoint: never begin, commit or roll back.

        What it raises parks the stream of the event in this view, says so, and leaves all other streams going; an error of SQLite about the
        disk or a lock is waited out instead.
        """
        raise NotImplementedError

    def erase(self, db: Database, stream: StreamId) -> None:
        """Remove everything that came from `stream`, which was erased (S29); inside the transaction, like `apply`. The engine then rewrites
        the file, so that no byte of it is left behind (an FTS5 table must have its 'secure-delete' option set for that).

        Without this method the whole view is built anew from the log, in which the stream says nothing any more.
        """
        raise NotImplementedError

    def opened(self, db: Database, folder: Path) -> None:
        """The file was opened, or created: before the first event and the first operation. For what is held in memory beside the rows, such
        as an index: `db` holds the committed rows, `folder` belongs to this view alone, and goes with it when it is replaced."""

    def answering(self, path: Path) -> None:
        """Operations may be called from here on, on readers of the file at `path`; never for a view that is only built or compared. For
        reading ahead what the first of them would wait for: in a thread, and with a connection of its own."""

    def begun(self, db: Database) -> None:
        """A transaction has begun. One before it may have been rolled back: forget what `apply` collected outside of `db`."""

    def committed(self, db: Database) -> None:
        """The transaction is durable. Now what `apply` collected may go where operations see it."""

    def closing(self, db: Database) -> None:
        """The file is about to be closed; may be skipped by a crash. For saving what `opened` would otherwise have to make again."""

    def comparable(self, db: Database) -> Iterable[tuple[object, ...]]:
        """What has to be equal in two views of the same events, in an order that is the same in both: `verify` compares these.

        Default: every row of every table that is not the engine's, and the terms of every FTS5 index.
        """
        return rows_of(db)


def row_id(event: RecordedEvent) -> int:
    """A number for a row made of `event`: unique in the log, above 0, the same in every rebuild, and fit for an INTEGER PRIMARY KEY or the
    label of a vector. Another number of shards (export and import) gives others, and a rebuild with it."""
    return event.position * SHARDS_PER_ROW_ID + event.shard


def forgets(projection: Projection) -> bool:
    """Whether it says how to erase a stream; else the view is built anew."""
    return type(projection).erase is not Projection.erase


ProjectionFactory = Callable[[], Projection]
"""How an app names a projection: its class, or anything else without arguments that makes one. Called once per file, and once more to ask
for name and version: the constructor does no work."""
