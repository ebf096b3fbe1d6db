"""What waits in a mailbox, and the ways in which a turn is unwound without being answered."""

from collections.abc import Sequence
from typing import Any

from actors.errors import ActorError
from actors.registry import Method
from actors.turn import Command
from events.codec import args_hash
from events.letters import Letter
from events.store import InboxEntry, InboxStatus, TimerEntry
from runtime.exchange import Reply, ReplyTo


class Item:
    """One command in a mailbox, and everybody who waits for its answer."""

    __slots__ = (
        "after", "arguments", "attempts", "base", "cancelled", "closing", "command", "committing", "counted", "deciding", "doubtful",
        "error", "from_inbox", "lane", "letter", "method", "misled", "received_time", "replies", "reply", "stored", "timers",
        "timers_gone", "unknown",
    )  # fmt: skip

    def __init__(
        self, command: Command, method: Method, arguments: dict[str, Any], reply: ReplyTo | None, stored: InboxStatus | None
    ) -> None:
        self.command = command
        self.method = method
        self.arguments = arguments
        self.replies: list[ReplyTo] = [] if reply is None else [reply]
        self.reply = b"null"
        self.error: ActorError | None = None
        """How it ends once its append group is committed, if it does not succeed; `reply` is then its body."""
        self.from_inbox = stored is not None
        """It came out of the inbox, and is counted there until it has ended."""
        self.stored = stored
        """The status its inbox row has already: QUEUED for a tell, RUNNING for the open turn of a crash, None without a row."""
        self.letter: Letter | None = None
        """How its attempts went so far, if it stands in the inbox and failed."""
        self.lane: Any = None
        """Where it waits in its mailbox, and whether it counts there as an ask: both as of when it was put in."""
        self.counted = False
        self.attempts = 0
        self.base = 0
        """The version upon which its last append was made."""
        self.misled = False
        """Its last append stood upon one that did not come about."""
        self.doubtful = command.copied_since_us > 0
        """It may have been done, and has no inbox row that would tell: look it up first."""
        self.unknown = False
        """An append of it had an unknown outcome: it may have been done."""
        self.cancelled = False
        self.deciding = False
        """Its handler runs: only there a cancellation may be raised. What comes after it writes the end of the turn."""
        self.committing = False
        """Its beginning or a wait of it is on its way into the log: a cancel comes after that."""
        self.closing = False
        """Its last append is on its way: too late to cancel."""
        self.timers: Sequence[TimerEntry] = ()
        self.timers_gone: Sequence[str] = ()
        self.after: list[tuple[Item, Reply]] = []
        """Answers that were made on the state which this command left uncommitted: they leave with its commit (S17)."""
        self.received_time = command.time
        """Highest logical time that its turn has heard of: what it records must stand after that (S30)."""

    def args_hash(self) -> str:
        return args_hash(self.method.name, self.command.args or b"{}")

    def answer(self, reply: Reply) -> None:
        for send in self.replies:
            send(reply)
        self.replies.clear()


class StaleError(BaseException):
    """The state is no longer what the log says: decide again. No `except Exception` of a handler may swallow it."""


class NoRoomError(BaseException):
    """The outbox takes nothing more: the command is refused, or waits (S25)."""


class LostError(BaseException):
    """The shard has another owner: tell nobody anything (I-5)."""


class KnownError(BaseException):
    """The command turns out to be known to the log already."""

    def __init__(self, entry: InboxEntry) -> None:
        super().__init__()
        self.entry = entry


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception of a group that is none itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
