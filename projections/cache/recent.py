"""What this process has had lately: the tier before the server, because asking a server of the same machine costs more than reading the log
it is made from (facts/limits.md 6)."""

from collections import OrderedDict
from typing import Final

import msgspec

from events.caching import Address, Cached
from events.ids import StreamId
from events.limits import CACHE_RECENT_BYTES_MAX, CACHE_RECENT_MAX

TRUST_US: Final = 60_000_000
"""How long a result is served without another look at the server: what another process knows better, or that its stream was erased, reaches
this one within a minute."""
_OVERHEAD_BYTES: Final = 500
"""Of one entry beside its result, about."""


class _Entry(msgspec.Struct, gc=False):
    cached: Cached
    trusted_until_us: int


class Recent:
    """The results used last, by address. Bounded by count and bytes.

    An entry whose time is over still says which version was known, until it is pushed out.
    """

    def __init__(self, entries_max: int = CACHE_RECENT_MAX, bytes_max: int = CACHE_RECENT_BYTES_MAX) -> None:
        self._entries: OrderedDict[Address, _Entry] = OrderedDict()
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, address: Address, now_us: int) -> Cached | None:
        """What may be served without asking anybody."""
        entry = self._entries.get(address)
        if entry is None:
            return None
        self._entries.move_to_end(address)
        return entry.cached if now_us < min(entry.trusted_until_us, entry.cached.expires_us) else None

    def known_version(self, address: Address) -> int:
        """The newest version that was ever seen here; 0 if none."""
        entry = self._entries.get(address)
        return 0 if entry is None else entry.cached.version

    def put(self, address: Address, cached: Cached, now_us: int) -> None:
        """Take the newer of what is here and `cached`."""
        entry = self._entries.get(address)
        if entry is not None:
            if entry.cached.version > cached.version:
                return
            self._drop(address)
        self._entries[address] = _Entry(cached, now_us + TRUST_US)
        self.size_bytes += _size(cached)
        while len(self._entries) > self._entries_max or self.size_bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))

    def forget(self, stream: StreamId) -> None:
        for address in [address for address, entry in self._entries.items() if entry.cached.stream == stream]:
            self._drop(address)

    def _drop(self, address: Address) -> None:
        self.size_bytes -= _size(self._entries.pop(address).cached)


def _size(cached: Cached) -> int:
    return len(cached.result) + _OVERHEAD_BYTES
