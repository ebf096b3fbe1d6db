"""A connection to the server: Redis or Valkey, by socket or URL."""

import asyncio
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, RedisError

from events.errors import ConfigurationError
from projections.cache.address import ServerAddress

FAILURES: Final = (RedisError, OSError, TimeoutError, asyncio.IncompleteReadError)
"""What a call raises when the server is away, refuses, or does not speak its protocol."""


def as_bytes(reply: object) -> bytes:
    """What a client that decodes nothing answers, as its type does not say. Raises: InvalidResponse."""
    if not isinstance(reply, bytes):
        raise InvalidResponse(f"the cache's server answered {type(reply).__name__} instead of bytes")
    return reply


def open_client(address: ServerAddress, *, timeout_s: float, connections_max: int = 4) -> "Redis":
    """A client that connects at its first use, tries nothing twice, and waits at most `timeout_s` for a connection.

    For an answer it waits as long as its caller does, who has a timeout of his own around it: given one, redis-py sends each command by
    `asyncio.wait_for`, which on Python 3.11 loses a cancellation that arrives while the command is just sent.

    Raises:
        ConfigurationError: the URL is none that a server has.
    """
    options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": connections_max,
        "protocol": 2,
        # No CLIENT SETINFO: a user with few rights may not call it.
        "driver_info": None,
    }
    if address.url is None:
        return Redis(unix_socket_path=address.socket, username=address.user, password=address.password, **options)
    try:
        return Redis.from_url(address.url, **options)
    except ValueError as error:
        raise ConfigurationError(f"the URL of the cache's server is none: {error}") from error
