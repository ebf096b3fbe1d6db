"""What can go wrong when a LangGraph program writes to the log."""

from typing import Any

from events.errors import CuebookError, EncodingError, SupersededError


class StaleWriteOwnerError(SupersededError):
    """This writer was superseded: another saver took the folder, or another claim took the thread. Nothing of the write was stored.

    `is_stale_write_owner_error` is how the write-ownership clauses proposed for langgraph-checkpoint-conformance know the refusal.
    """

    code = "superseded"
    is_stale_write_owner_error = True

    def __init__(self, detail: str, *, thread_id: str | None = None, **fields: Any) -> None:
        about = "" if thread_id is None else f"thread {thread_id!r}: "
        super().__init__(f"write refused, {about}{detail}", thread_id=thread_id, **fields)
        self.thread_id = thread_id


class UnregisteredTypeError(EncodingError):
    """A value of a type that has no kind: nothing was stored. Also raised for a stored kind that this program did not register."""

    code = "unregistered_type"


class ThreadWriteError(CuebookError):
    """A write of a thread was not stored, because another one before it failed or got in between; the thread is as the log has it."""

    code = "thread_write"
