"""What a journaled step says of the cache (S37): the field ``cache`` of ``step.completed`` and ``step.failed``.

Shared by those who write it (`actors`) and those who read it (`projections`), which know nothing of each other. A result is cached under
its address; one address is only ever filled by steps of one stream, because the actor's type is part of the key and its id is the
workspace. So of two results the one with the higher version is the newer.
"""

import re
from typing import Final

import msgspec

from events.ids import StreamId, is_token

NAMESPACES: Final[dict[str, float]] = {"response": 1_800.0, "api": 3_600.0, "analysis": 7_200.0}
"""How long results of each sort are good where a step does not say it, in seconds: answers of agents and models; replies of services;
analyses of content."""
NAMESPACE_DEFAULT: Final = "response"
_KEY = re.compile(r"[0-9a-f]{64}")


class Address(msgspec.Struct, frozen=True):
    """Where a result is cached. workspace: the id of the actor, so that nothing passes from one workspace to another. key: 64 hex digits,
    the hash of everything that the result depends on."""

    workspace: str
    namespace: str
    key: str

    @property
    def sound(self) -> bool:
        """Whether it is one that this program could have made."""
        return self.namespace in NAMESPACES and is_token(self.workspace) and _KEY.fullmatch(self.key) is not None


class Cached(msgspec.Struct, frozen=True):
    """A result and where it comes from. result: JSON as it was journaled. version: of the ``step.completed`` in `stream`. expires_us: wall
    clock; from then on it is not served."""

    result: bytes
    stream: StreamId
    version: int
    expires_us: int


class Caching(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The field ``cache``. hit: version of the event whose result was taken from the cache; None = a miss, the step ran."""

    namespace: str
    key: str
    ttl_us: int
    hit: int | None = None
