"""How a process of this machine reaches the cache's server, without starting anything; and the secrets that it needs for that."""

import contextlib
import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import msgspec

from ops.exits import StartError
from ops.private_files import make_private_folder, write_private
from ops.settings import Settings
from ops.versions import distribution_version
from projections.cache.address import ServerAddress

USER = "cuebook"
INSTALL = "pip install 'cuebook[cache]'"
_SOCKET_CHARACTERS_MAX = 100
"""The system takes 107 on Linux, 103 on macOS (unix(7))."""


class CacheSecrets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """DATA/cache/credentials.json, made at the first start. password: of the embedded server. seal: hex; what every value carries a MAC
    under, also in a server of yours."""

    password: str
    seal: str


class CachePlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the results of steps are shared. off: why they are not; each process then keeps its own only."""

    address: ServerAddress | None
    seal: bytes
    embedded: bool
    off: str | None = None

    @property
    def shown(self) -> str:
        """For people: no secrets."""
        if self.address is None:
            return f"off: {self.off}"
        if self.address.url is None:
            return f"embedded, {self.address.socket}"
        return without_password(self.address.url)


def without_password(url: str) -> str:
    """The URL without user and password, and without its query, which may hold them too."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def cache_place(settings: Settings) -> CachePlace:
    """Where the cache of a deployment is, as its settings and its folder say; nothing is asked or started.

    Raises:
        StartError: the folder for its socket belongs to somebody else.
    """
    known = _known(_folder(settings) / "credentials.json")
    seal = b"" if known is None else bytes.fromhex(known.seal)
    if settings.cache == "off":
        return CachePlace(address=None, seal=seal, embedded=False, off="by its settings")
    if distribution_version("redis") is None:
        return CachePlace(address=None, seal=seal, embedded=False, off=f"its client is not installed ({INSTALL})")
    if known is None:
        return CachePlace(address=None, seal=seal, embedded=False, off="no deployment has run here with it")
    if settings.redis_url is not None:
        return CachePlace(address=ServerAddress(url=settings.redis_url), seal=seal, embedded=False)
    address = ServerAddress(socket=str(socket_path(Path(settings.data))), user=USER, password=known.password)
    return CachePlace(address=address, seal=seal, embedded=True)


def make_secrets(settings: Settings) -> CacheSecrets:
    """The secrets of a deployment, made if there are none; several processes at once get the same."""
    path = make_private_folder(_folder(settings)) / "credentials.json"
    while (known := _known(path)) is None:
        made = CacheSecrets(password=secrets.token_urlsafe(32), seal=secrets.token_hex(32))
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        write_private(draft, msgspec.json.encode(made).decode())
        # A link fails where the name is taken; what was there and could not be read is of no use to anybody.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
        if _known(path) is None:
            path.unlink(missing_ok=True)
    return known


def socket_path(data: Path) -> Path:
    """The socket of the embedded server: in the deployment's folder, or where that name is too long for one, in a folder of this user's
    among the temporary files.

    Raises:
        StartError: that folder is not ours alone.
    """
    path = data.absolute() / "cache" / "valkey.sock"
    if len(os.fsencode(path)) <= _SOCKET_CHARACTERS_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"cuebook-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StartError(f"{folder} is not a folder of yours alone", why="the cache's socket would lie in it", next_step="remove it")
    return folder / "valkey.sock"


def _folder(settings: Settings) -> Path:
    return Path(settings.data) / "cache"


def _known(path: Path) -> CacheSecrets | None:
    try:
        known = msgspec.json.decode(path.read_bytes(), type=CacheSecrets)
        bytes.fromhex(known.seal)
    except (OSError, ValueError):
        return None
    return known
