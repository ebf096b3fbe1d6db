"""How a client of this machine reaches the deployment's NATS server, without starting anything."""

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from ops.exits import CommandError, Exit


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How a client of this machine reaches the server."""

    url: str
    """Without secrets: may be printed and logged, unless an outside URL itself came with a password."""
    user: str | None = None
    password: str | None = None
    credentials: Path | None = None

    def nats_options(self) -> dict[str, Any]:
        """Return the keyword arguments for `nats.connect` that name and authenticate."""
        options: dict[str, Any] = {"servers": [self.url]}
        if self.user is not None:
            options |= {"user": self.user, "password": self.password}
        if self.credentials is not None:
            options["user_credentials"] = str(self.credentials)
        return options

    @property
    def client_url(self) -> str:
        """The URL with its credentials, for a client that takes nothing else. A secret: for 0600 files and `status`."""
        if self.user is None or self.password is None:
            return self.url
        return self.url.replace("://", f"://{quote(self.user)}:{quote(self.password)}@", 1)

    @property
    def public_url(self) -> str:
        """The URL without user and password, also if an outside URL came with them."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def __repr__(self) -> str:
        return f"Connection({self.public_url!r})"


class ServerSecrets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """DATA/nats/credentials.json, made at the first start."""

    server_name: str
    user: str
    password: str


def connection_of(data: Path, *, url: str | None = None, credentials: Path | None = None) -> Connection:
    """Return how to reach the server of the deployment in `data`, without starting anything.

    Args:
        url, credentials: the settings for an outside server; with a URL, `data` is not looked at.

    Raises:
        CommandError: code CANNOT_CONNECT, no embedded server was ever started there.
    """
    if url is not None:
        return Connection(url=url, credentials=credentials)
    try:
        known = msgspec.json.decode((data / "nats" / "credentials.json").read_bytes(), type=ServerSecrets)
        port = int((data / "nats" / "port").read_text())
    except (OSError, ValueError) as error:
        raise CommandError(
            f"no deployment has run in {data}",
            why="its NATS credentials are not there",
            next_step="cuebook up, or name another folder with --data",
            code=Exit.CANNOT_CONNECT,
        ) from error
    return Connection(url=f"nats://127.0.0.1:{port}", user=known.user, password=known.password)
