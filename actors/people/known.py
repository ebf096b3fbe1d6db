"""Who is known to a deployment: people and programs by name, each by the digest of a key that nobody else has."""

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

OPERATOR: Final = "operator"
"""The name of whoever can read the deployment's own files: the command line on its machine."""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody, as the deployment's settings name him; roles are what several may share."""

    name: str
    roles: tuple[str, ...] = ()

    @property
    def titles(self) -> frozenset[str]:
        """All that names him where somebody is chosen: his name, and ``role:NAME`` for each of his roles."""
        return frozenset((self.name, *(f"role:{role}" for role in self.roles)))


class People:
    """Everybody who is known. It holds digests only, so whoever reads it out of a process can still be nobody of them."""

    def __init__(self, by_digest: Mapping[str, Person] | None = None) -> None:
        """
        Args:
            by_digest: SHA-256 (hex) of each key, and whose it is.
        """
        self._by_digest = dict(by_digest or {})
        self.titles: Final = frozenset(title for person in self._by_digest.values() for title in person.titles)

    def who(self, key: str) -> Person | None:
        """Whose key that is, None = nobody's who is known. Keys are compared by their digests, which tell nothing by the time it takes."""
        return self._by_digest.get(digest_of(key))


NOBODY: Final = People()


def digest_of(key: str) -> str:
    """What a log and a process may hold of a key."""
    return hashlib.sha256(key.encode()).hexdigest()
