"""What can go wrong with a projection, grouped by what the catcher should do. None of these concerns the log: a view can always be rebuilt.

CuebookError
 +- ProjectionError
     +- PoisonError             one event cannot be applied: park its stream in this view, go on with the others
     +- CheckpointError         another projector moved the view on: read its checkpoint again
     +- RebuildNeededError      the view cannot go on as it is: build it anew beside itself
     +- ViewUnavailableError    disk or server of the view away for now: try again
     +- NotReadyError           nobody can answer yet; `retry_after_ms` says when to ask again
     +- UnknownOperationError   no such projection or operation
     +- BadArgumentsError       the arguments do not fit the operation; `field` names the place where known
     +- OperationFailedError    the operation raised
"""

from events.errors import CuebookError


class ProjectionError(CuebookError):
    """Concerns one projection; every other one goes on."""

    code = "projection"


class PoisonError(ProjectionError):
    """`apply` raised for one event; nothing of the batch was committed.

    Args:
        index: of the event in the batch.
        reason: class and text of what was raised.
    """

    code = "poison"

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason, index=index)
        self.index = index
        self.reason = reason


class CheckpointError(ProjectionError):
    """The view's checkpoint is not what this projector believed; nothing was written."""

    code = "checkpoint"


class RebuildNeededError(ProjectionError):
    """The view is damaged, of another log, or has to forget a stream and does not say how."""

    code = "rebuild_needed"


class ViewUnavailableError(ProjectionError):
    """The store of the view does not take the batch now (disk full, server away); nothing was written."""

    code = "view_unavailable"


class NotReadyError(ProjectionError):
    """The view is being built, is not yet at the positions that were asked for, or its projector does not run."""

    code = "not_ready"


class UnknownOperationError(ProjectionError):
    """No projection of that name here, or it has no such operation."""

    code = "unknown_operation"


class BadArgumentsError(ProjectionError):
    """The arguments are not a JSON object of the operation's parameters."""

    code = "bad_arguments"


class OperationFailedError(ProjectionError):
    """The operation raised something else than a `ProjectionError`."""

    code = "operation_failed"
