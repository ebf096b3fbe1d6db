"""A server of the cache for the tests of this folder."""

from tests.support.valkey import server, server_of_module

__all__ = ["server", "server_of_module"]
