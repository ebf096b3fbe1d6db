"""The adapters that every contract test runs against."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.logs import LogUnderTest, SqliteLogUnderTest, log_under_test

SHARDS = 2


@pytest.fixture(params=["memory", "sqlite"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LogUnderTest]:
    opened = log_under_test(request.param, SHARDS, tmp_path / "log")
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite_log(tmp_path: Path) -> AsyncIterator[SqliteLogUnderTest]:
    """For what is about files: a log in memory has none that could be damaged."""
    opened = SqliteLogUnderTest(SHARDS, tmp_path / "log")
    yield opened
    await opened.close()
