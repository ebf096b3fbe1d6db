"""How an author keeps old events readable: ``@upcaster("account.deposited", 1)`` above a function from old payload to new.

Like event classes, upcasters are found by having been imported before the app is put together; no name in a log ever loads one.
"""

import inspect
from collections.abc import Callable
from typing import Final, TypeVar

from actors.journal import RESERVED_TAGS
from events.errors import ConfigurationError
from events.upcast import Upcaster, Upcasters

U = TypeVar("U", bound=Upcaster)

REGISTERED: Final = Upcasters()
"""The upcasters of this process. An `ActorType` checks and takes the chains of its tags when it is made."""


def upcaster(tag: str, version: int) -> Callable[[U], U]:
    """Register a pure function that turns the payload of schema `version` of `tag` into that of `version` + 1, both plain JSON dicts.

    It runs on read only, at every replay: no clock, no randomness, no I/O. The last one of a tag must make what the event class decodes.

    Raises:
        ConfigurationError: the step exists twice, is async, or belongs to one of Cuebook's own events.
    """

    def register(step: U) -> U:
        if inspect.iscoroutinefunction(step):
            raise ConfigurationError(f"{step.__qualname__}: an upcaster is a plain def; it may await nothing")
        if tag in RESERVED_TAGS:
            raise ConfigurationError(f"{step.__qualname__}: the tag {tag!r} is one of Cuebook's own")
        REGISTERED.add(tag, version, step)
        return step

    return register
