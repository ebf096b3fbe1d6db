"""Where sealed actors meet their keys: the sealer of a process, and the store of a shard through it (S29)."""

from pathlib import Path
from typing import TYPE_CHECKING

from actors.registry import Registry
from events.clock import Clock, Entropy
from events.errors import ConfigurationError
from events.sealed.sealed_store import SealedShard
from events.sealed.sealing import Sealer
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.sqlite_library import Durability
from events.sqlite.store_sqlite import SqliteShard
from events.store import ShardStore
from runtime.ownership.formats import check_shard

if TYPE_CHECKING:
    from runtime.sealer_aesgcm import AesGcmSealer

INSTALL = "pip install 'cuebook[sealed]'"


def open_sealer(keys: Path | None, log: Path, registry: Registry | None) -> "AesGcmSealer | None":
    """The sealer over the folder `keys`; None where no library for it is installed and no actor of `registry` needs one.

    Raises:
        ConfigurationError: an actor is sealed, but the library is missing, no folder is named, or it lies inside the data folder: a copy of
            that would hold the keys.
    """
    needed = sorted(registry.sealed) if registry is not None else []
    if keys is None:
        if needed:
            raise ConfigurationError(f"{needed[0]} is a sealed actor, and no folder for keys is named", type=needed[0])
        return None
    if keys.resolve().is_relative_to(log.resolve().parent):
        raise ConfigurationError(
            f"the folder of keys {keys} lies inside the data folder: a copy of that would hold what opens it. Name another (setting keys)",
            path=str(keys),
        )
    try:
        from runtime.sealer_aesgcm import AesGcmSealer
    except ImportError as error:
        if needed:
            raise ConfigurationError(f"{needed[0]} is a sealed actor: that needs a cipher. Run: {INSTALL}", type=needed[0]) from error
        return None
    return AesGcmSealer(keys)


def sealed_store(store: ShardStore, shards: int, sealer: Sealer | None, registry: Registry) -> ShardStore:
    """`store` as the runtime uses it: through `sealer`, if there is one."""
    return store if sealer is None else SealedShard(store, shards, sealer, registry.sealed)


class Stores:
    """How a worker opens the files of its shards: each through the one sealer of the process."""

    def __init__(
        self, log: Path, registry: Registry, keys: Path | None, shards: int, clock: Clock, entropy: Entropy, durability: Durability
    ) -> None:
        """Raises: ConfigurationError: as `open_sealer`."""
        self.sealer = open_sealer(keys, log, registry)
        self._log = log
        self._registry = registry
        self._shards = shards
        self._clock = clock
        self._entropy = entropy
        self._durability = durability

    async def open(self, number: int) -> ShardStore:
        """Raises as `SqliteShard.open`."""
        store = await SqliteShard.open(self._log, number, clock=self._clock, entropy=self._entropy, durability=self._durability)
        return sealed_store(store, self._shards, self.sealer, self._registry)

    async def check(self, store: ShardStore) -> None:
        """Raises: UnknownFormatsError: as `formats.check_shard`."""
        await check_shard(store, self._registry, lambda: SqliteLogReader.open(self._log))

    def close(self) -> None:
        """After the stores: keys that were made and not used are destroyed."""
        if self.sealer is not None:
            self.sealer.close()
