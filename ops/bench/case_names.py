"""Names of cases that several measures are compared with: the table of the measures and what prepares them agree on these."""

from typing import Final

SQLITE_1: Final = "sqlite-1"
SQLITE_100: Final = "sqlite-100"
SQLITE_REPLAY: Final = "sqlite-replay"
ECHO_1: Final = "echo-1"
ECHO_100: Final = "echo-100"
