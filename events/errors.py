"""What can go wrong with the log, grouped by what the catcher should do.

CuebookError
 +- InvariantError                 a promise is broken: stop and call a human
 |   +- CorruptLogError            a row, a file or the tail is damaged; names where
 +- ConfigurationError             at start only: the message says what to change
 +- TransientError                 disk or broker away for a time: the only kind that is retried
 +- AppendError
 |   +- WrongExpectedVersionError  somebody appended first: reload and decide again
 |   +- SupersededError            this writer lost the shard: stop, tell nobody it was done
 |   +- LogFullError               nothing was written; works again when space returns
 |   +- AppendOutcomeUnknownError  ask again with the same command id
 +- UnknownEventTypeError          stop this actor, keep the log
 +- UnreadablePayloadError         sealed and the key is not here, or erased: stop this actor, keep the log
 +- UnknownStreamError             the log never named it
 +- StreamBusyError                finish or cancel what is under way first
 +- StreamClosedError              archived or erased: nothing more can be done with it
 +- EncodingError                  a value does not survive JSON (S13, S16)
 +- EmbeddingError                 a model gave no embedding, or vectors of two models were brought together
"""

from typing import Any


class CuebookError(Exception):
    """Root of all errors of this project. Keyword fields come before prose: `fields` is what a machine reads."""

    code = "error"

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class InvariantError(CuebookError):
    """A promise that the code relies on does not hold."""

    code = "invariant"


class CorruptLogError(InvariantError):
    """Stored bytes are not what was written. Fields name the file, stream, version and position where known."""

    code = "corrupt"


class ConfigurationError(CuebookError):
    """The deployment cannot start like this."""

    code = "configuration"


class TransientError(CuebookError):
    """A part that we need is away for a time."""

    code = "transient"


class AppendError(CuebookError):
    """An append did not happen, or may not have."""


class WrongExpectedVersionError(AppendError):
    """The stream is not at the version that the turn was decided on."""

    code = "wrong_expected_version"

    def __init__(self, stream: str, *, expected: int, actual: int) -> None:
        super().__init__(f"{stream} is at version {actual}, not {expected}", stream=stream, expected=expected, actual=actual)


class SupersededError(AppendError):
    """Another owner has taken the shard, or its file was replaced (S3)."""

    code = "superseded"


class LogFullError(AppendError):
    """No space left: rolled back, nothing written (S18)."""

    code = "full"


class AppendOutcomeUnknownError(AppendError):
    """COMMIT or the disk failed in a way that leaves the outcome open: look up the command id (S18)."""

    code = "unknown"


class UnknownEventTypeError(CuebookError):
    """The log holds an event type or schema version that this program does not know."""

    code = "unknown_event_type"


class UnreadablePayloadError(CuebookError):
    """What an event or a row says is not to be had here: it is sealed and its key is elsewhere or destroyed, or it was erased (S29)."""

    code = "unreadable"


class UnknownStreamError(CuebookError):
    """The log has no stream of that name."""

    code = "unknown_stream"


class StreamBusyError(CuebookError):
    """The stream has commands, waits or sends under way, or dead letters: finish, cancel or drop them first."""

    code = "busy"


class StreamClosedError(CuebookError):
    """The stream is archived or erased."""

    code = "closed"


class EncodingError(CuebookError):
    """A value is not plain JSON, or does not come back as it went in."""

    code = "encoding"


class EmbeddingError(CuebookError):
    """A model gave something that is no embedding, or vectors of two models or sizes were brought together."""

    code = "embedding"
