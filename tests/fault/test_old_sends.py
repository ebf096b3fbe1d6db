"""A send that is repeated when the receiver has forgotten its command: only the number of the pair tells (S24, S25)."""

from pathlib import Path

from events.ids import CommandId
from events.limits import INBOX_KEPT_S
from tests.support.logs import SqliteLogUnderTest, append_one, arrival, command, deposited, stream_in

A, B = stream_in(0, 1, "a"), stream_in(0, 1, "b")


async def test_s25_a_send_that_comes_again_after_its_command_was_forgotten_is_not_done_again(tmp_path: Path) -> None:
    log = SqliteLogUnderTest(1, tmp_path / "log")
    try:
        store = await log.shard()
        sent = arrival(A, "sent", sender=B, n=1, incarnation="other")
        assert (await store.accept([sent]))[0].result == "taken"
        await append_one(store, A, 0, deposited(), inbox=command(A, "sent", reply=b"1"))
        log.clock.advance(INBOX_KEPT_S + 3_600)
        await append_one(store, A, 1, deposited())
        assert await store.inbox(A, CommandId("sent")) is None
        assert (await store.accept([sent]))[0].result == "known"
    finally:
        await log.close()
