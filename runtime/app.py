"""What a deployment runs: the actors and projections named by ``--app MODULE:OBJECT`` (S39)."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from actors.actor import Actor
from actors.registry import Registry


class App:
    """A closed set of actor types. Everything that a log or a message names is looked up in here or refused."""

    def __init__(
        self, actors: Sequence[type[Actor[Any]]], *, projections: Sequence[Callable[[], Any]] = (), version: str | None = None
    ) -> None:
        """
        Args:
            actors: classes with a name; order does not matter.
            projections: classes of `projections.Projection`, or anything else without arguments that makes one. The projector of the
                deployment runs them; a worker makes none.
            version: the code version recorded with every event; by default a digest of the source files of `actors`.

        Raises:
            ConfigurationError: two types share a name, or two event classes a tag.
        """
        self.registry = Registry(actors)
        self.projections = tuple(projections)
        self._actors = tuple(actors)
        self._version = version

    def adding(self, actor: type[Actor[Any]], *, projections: Sequence[Callable[[], Any]]) -> "App":
        """This app with one more actor, in place of one of the same name, and with these projections. Its code version stays: what is added
        is not its own."""
        actors = [cls for cls in self._actors if cls.__actor_name__ != actor.__actor_name__]
        return App([*actors, actor], projections=projections, version=self.code_version)

    @cached_property
    def code_version(self) -> str:
        if self._version is not None:
            return self._version
        digest = hashlib.sha256()
        for path in sorted({inspect.getsourcefile(cls) or "" for cls in self._actors}):
            if path:
                digest.update(Path(path).read_bytes())
        return digest.hexdigest()[:12]
