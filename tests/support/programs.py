"""Programs that come with packages of their own."""

import os
from collections.abc import Callable

import pytest

from ops.exits import StartError


def needs_program(find: Callable[[], object]) -> None:
    """Skip where `find` has no program to start, except in CI: there it is an error."""
    try:
        find()
    except StartError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.why)
