"""What verbs that read or talk share: the log's files, the app's code, a client, and errors of actors as exit codes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.exits import CommandError, Exit
from ops.nats_connection import connection_of
from ops.output import progress
from ops.settings import Settings
from ops.up_state import read_up

if TYPE_CHECKING:
    from actors.errors import ActorError
    from actors.registry import Registry
    from events.ids import StreamId
    from events.sqlite.reader_sqlite import SqliteLogReader
    from events.store import LogReader
    from runtime.app import App
    from runtime.client import Client
    from runtime.past.states import StateView

_EXITS = {400: Exit.USAGE, 404: Exit.NOT_FOUND, 409: Exit.CONFLICT, 410: Exit.NOT_FOUND, 413: Exit.USAGE, 503: Exit.CANNOT_CONNECT}
_EXITS |= dict.fromkeys((202, 504, 520), Exit.TIMEOUT)


KEYS_HINT = "CUEBOOK_KEYS=FOLDER names the keys of sealed actors"
_RECORDED = "what was recorded: cuebook log actor:TYPE/ID -n 0"


def log_folder(settings: Settings) -> Path:
    """The folder of the deployment's log.

    Raises:
        CommandError: NOT_FOUND, there is none.
    """
    folder = Path(settings.data) / "log"
    if not (folder / "log.json").is_file():
        raise CommandError(
            f"there is no log in {settings.data}",
            why="no deployment was ever started there",
            next_step="name the deployment's folder with --data, or start one: cuebook up --app MODULE:OBJECT",
            code=Exit.NOT_FOUND,
        )
    return folder


@asynccontextmanager
async def open_log(settings: Settings) -> AsyncIterator["LogReader"]:
    """The log: on its files, whether a deployment runs or not; where its files are not here but a server is named, over ``cue.log``.

    What actors answer becomes an exit code.
    """
    from actors.errors import ActorError
    from events.errors import UnreadablePayloadError
    from events.sqlite.reader_sqlite import SqliteLogReader
    from runtime.past.states import FoldError

    if settings.nats_url is not None and not (Path(settings.data) / "log" / "log.json").is_file():
        from runtime.past.reader_remote import RemoteLogReader

        async with open_client(settings) as client:
            yield await RemoteLogReader.open(client.log)
        return
    reader = await SqliteLogReader.open(log_folder(settings))
    try:
        yield await _unsealing(settings, reader)
    except ActorError as error:
        raise as_command_error(error) from error
    except FoldError as error:
        raise CommandError(error.message, why="the code at hand does not fit the log", next_step=_RECORDED, code=Exit.FAILURE) from error
    except UnreadablePayloadError as error:
        raise CommandError(error.message, why="what it says takes no part in this", next_step=KEYS_HINT, code=Exit.FAILURE) from error
    finally:
        await reader.close()


async def _unsealing(settings: Settings, reader: "SqliteLogReader") -> "LogReader":
    """`reader`, through the keys of sealed streams where it has some and the keys are here (S29)."""
    from events.sealed.sealed_reader import SealedReader
    from runtime.sealed import open_sealer

    if not await reader.has_sealed_streams() or not settings.keys_folder.is_dir():
        return reader
    sealer = open_sealer(settings.keys_folder, log_folder(settings), None)
    return reader if sealer is None else SealedReader(reader, sealer)


async def state_view(reader: "LogReader", registry: "Registry | None", stream: "StreamId", version: int | None = None) -> "StateView":
    """`runtime.past.states.state_at`; without code here, of a deployment elsewhere, by the code of its workers."""
    from runtime.past.reader_remote import RemoteLogReader
    from runtime.past.states import StateView, state_at

    if registry is None and isinstance(reader, RemoteLogReader):
        return await reader.request(StateView, "state", stream=stream, version=version)
    return await state_at(reader, registry, stream, version)


def registry_of(settings: Settings, app: str | None) -> "Registry | None":
    """The code that folds states (S32), as `app_of` finds it."""
    found = app_of(settings, app)
    return None if found is None else found.registry


def app_of(settings: Settings, app: str | None) -> "App | None":
    """The app named by --app, else the one of the settings, else None.

    The one of the settings is only used if it can be: reading a log must work where its code is not.
    """
    from ops.worker import load_app

    if app is not None:
        return load_app(app)
    if settings.app is None:
        return None
    try:
        return load_app(settings.app)
    except Exception as error:  # noqa: BLE001  importing somebody's module may raise anything
        progress(f"note: the app {settings.app} cannot be loaded ({type(error).__name__}: {error}); going on without its code")
        return None


def is_up(settings: Settings) -> bool:
    """Whether there is a server to talk to: an outside one by URL, or that of a running deployment."""
    return settings.nats_url is not None or read_up(Path(settings.data)) is not None


@asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator["Client"]:
    """A client of the running deployment.

    Raises:
        CommandError: CANNOT_CONNECT, nothing runs or the server does not answer; else what an actor answered, by its number.
    """
    from actors.errors import ActorError
    from events.errors import TransientError
    from runtime.client import connect

    if not is_up(settings):
        raise CommandError(f"no deployment runs on {settings.data}", next_step="cuebook up --app MODULE:OBJECT", code=Exit.CANNOT_CONNECT)
    connection = connection_of(Path(settings.data), url=settings.nats_url, credentials=settings.nats_credentials)
    try:
        async with connect(namespace=settings.namespace, wait_s=3.0, **connection.nats_options()) as client:
            yield client
    except ActorError as error:
        raise as_command_error(error) from error
    except TransientError as error:
        raise CommandError(error.message, next_step="cuebook doctor", code=Exit.CANNOT_CONNECT) from error


def as_command_error(error: "ActorError") -> CommandError:
    """What an actor, or the client for it, answered, as an exit code (design.md 9)."""
    from actors.errors import error_body

    body: dict[str, Any] = error_body(error)
    fields = {name: value for name, value in body.items() if name not in ("code", "error", "message", "retryable", "outcome")}
    said = ", ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
    next_step = f"the same command with --id {body['command_id']}" if error.number == 520 and body.get("command_id") else ""
    why = f"{error.number} {error.error}" + (f" ({said})" if said else "")
    return CommandError(error.message, why=why, next_step=next_step, code=_EXITS.get(error.number, Exit.FAILURE))


def seconds(text: str) -> float:
    """A duration such as 500ms, 30s, 5m, or a plain number of seconds.

    Raises:
        CommandError: USAGE.
    """
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}
    number, unit = text, "s"
    for name in units:
        if text.endswith(name) and text[: -len(name)].replace(".", "", 1).isdigit():
            number, unit = text[: -len(name)], name
            break
    try:
        found = float(number) * units[unit]
    except ValueError:
        found = 0.0
    if not 0 < found <= 86_400:
        raise CommandError(f"{text!r} is no duration", next_step="for example 30s, 500ms or 5m", code=Exit.USAGE)
    return found
