"""The projections of an app, put together with the log of a deployment: where views lie, and how their events are read."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.registry import EventType, Registry
from events.clock import Clock, SystemClock
from events.envelope import Kind, RecordedEvent
from events.errors import ConfigurationError, UnknownEventTypeError
from events.log_directory import read_identity
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.watch_sqlite import SqliteWatch
from ops.cache import cache_view
from ops.cache_connection import cache_place
from ops.settings import Settings
from projections.follower import Upcast
from projections.generations import Generations
from projections.generations_sqlite import SqliteGenerations
from projections.hints import Hints
from projections.projection import Projection, ProjectionFactory
from projections.runner import Runner
from projections.single import SingleGeneration
from runtime.app import App

FOLDER: Final = "views"
CACHE: Final = "cache"
"""The name of the view that the cache's server is."""


def upcast_of(registry: Registry) -> Upcast:
    """Events of the app's types with their payload in the newest schema version; others as they are.

    Raises (when called):
        UnknownEventTypeError: no upcaster leads from its schema version. UpcastError: one failed.
    """
    known: dict[str, EventType] = {tag: entry for kind in registry.types.values() for tag, entry in kind.events.items()}

    def upcast(event: RecordedEvent) -> RecordedEvent:
        entry = known.get(event.type) if event.kind is Kind.STATE else None
        if entry is None or entry.version == event.schema_version:
            return event
        if not entry.chain.reaches(event.schema_version):
            raise UnknownEventTypeError(
                f"{event.type} in schema version {event.schema_version}: this program reads {entry.chain.first} to {entry.version}",
                type=event.type, schema_version=event.schema_version,
            )  # fmt: skip
        payload = event.payload
        if bytes(payload) != b"null":  # a sealed one, shown without what it says
            payload = msgspec.Raw(entry.chain.upcast(payload, event.schema_version))
        return msgspec.structs.replace(event, payload=payload, schema_version=entry.version)

    return upcast


def generations_of(app: App, folder: Path, log: str, clock: Clock) -> list[Generations[Any]]:
    """Where each projection of `app` is kept.

    Raises:
        ConfigurationError: an entry is no projection, or two share a name.
    """
    found: dict[str, Generations[Any]] = {}
    for make in app.projections:
        made = _sqlite(make, folder, log, clock)
        if made.name in found:
            raise ConfigurationError(f"the app has two projections with the name {made.name!r}")
        found[made.name] = made
    return list(found.values())


def _sqlite(make: Callable[[], Any], folder: Path, log: str, clock: Clock) -> Generations[Any]:
    if not isinstance(make(), Projection):
        raise ConfigurationError(f"{make!r} among the app's projections makes no projections.Projection")
    return SqliteGenerations(make, folder, log, clock=clock)


class Views:
    """Everything that projects in one process."""

    def __init__(
        self, runners: Sequence[Runner[Any]], hints: Hints, reader: SqliteLogReader, watch: SqliteWatch, *, clock: Clock, folder: Path,
        upcast: Upcast, makers: Mapping[str, ProjectionFactory],
    ) -> None:  # fmt: skip
        self.runners = {runner.name: runner for runner in runners}
        self.hints = hints
        self.reader = reader
        self.watch = watch
        self.clock = clock
        self.folder = folder
        self.upcast = upcast
        self._makers = makers

    def make(self, name: str) -> ProjectionFactory:
        """What makes the projection `name`. Raises: ConfigurationError: the app has none of that name in SQLite."""
        if name not in self._makers:
            raise ConfigurationError(f"the app has no projection {name!r} (it has: {', '.join(sorted(self._makers)) or 'none'})")
        return self._makers[name]


@asynccontextmanager
async def open_views(
    settings: Settings, app: App, *, only: Sequence[str] = (), clock: Clock | None = None, folder: Path | None = None
) -> AsyncIterator[Views]:
    """The projections of `app`, and the cache if there is a server for it, on the log of a deployment. Nothing runs yet: the caller has
    `Runner.run` and `hints.watch_files` run.

    Args:
        only: names of projections; none = all.
        folder: where the views lie; None = in the deployment's own. A view in another one is a second one of the same log.

    Raises:
        ConfigurationError: no log there, or as `generations_of`.
    """
    clock, data = clock or SystemClock(), Path(settings.data)
    folder = folder or data / FOLDER
    identity = read_identity(data / "log")
    hints = Hints(identity.shards)
    async with AsyncExitStack() as stack:
        reader = await SqliteLogReader.open(data / "log")
        stack.push_async_callback(reader.close)
        watch = await SqliteWatch.open(data / "log")
        stack.push_async_callback(watch.close)
        upcast = upcast_of(app.registry)
        found = generations_of(app, folder, identity.incarnation, clock)
        if cache_place(settings).address is not None:
            found.append(SingleGeneration(lambda: cache_view(settings, clock), CACHE, 1, folder))
        kept = [each for each in found if not only or each.name in only]
        runners = [Runner(each, reader, hints, upcast=upcast, clock=clock) for each in kept]
        makers = {make().name: make for make in app.projections}
        yield Views(runners, hints, reader, watch, clock=clock, folder=folder, upcast=upcast, makers=makers)
