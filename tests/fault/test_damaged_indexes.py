"""An index entry that leads nowhere looks like "unknown": a repeated command would be done again, a state would begin anew (S24, I-7)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from events.errors import CorruptLogError
from events.log_directory import shard_path
from tests.support.logs import SqliteLogUnderTest, append_one, command, deposited, stream_in

A = stream_in(0, 1, "a")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLogUnderTest]:
    opened = SqliteLogUnderTest(1, tmp_path / "log")
    yield opened
    await opened.close()


async def test_s24_an_index_that_does_not_lead_to_a_known_command_closes_its_shard(log: SqliteLogUnderTest) -> None:
    store = await log.shard()
    for number in range(8):
        await append_one(store, A, number, deposited(), inbox=command(A, f"command-{number}", reply=b"1"))
    await store.close()
    path = shard_path(log.directory, 0)
    content = path.read_bytes()
    # In the table the row stands behind its other columns, in the index the id stands alone before the stream: change only the index.
    pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    index = [page for page in pages if page[0] == 10 and b"command-5" in page]
    assert len(index) == 1
    path.write_bytes(content.replace(index[0], index[0].replace(b"command-5", b"command-4")))
    with pytest.raises(CorruptLogError, match=r"index inbox_command|non-unique|out of order|missing from index"):
        await log.shard()
