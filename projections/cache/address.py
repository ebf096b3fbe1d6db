"""Where the server is. Apart from what connects to it: who only hands it on needs no client library."""

import msgspec


class ServerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server is. url: ``redis://``, ``rediss://`` or ``unix://``, with its credentials; or the path of a socket with user and
    password."""

    url: str | None = None
    socket: str | None = None
    user: str | None = None
    password: str | None = None
