"""A refusal that the log remembers says so, and a turn that has begun waits out a full disk wherever it is (S18, S24)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, State, command
from actors.errors import ActorError, Overloaded, Unavailable, error_body
from events.errors import LogFullError
from events.ids import StreamId
from events.store import Append
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime
from runtime.turns import driver


class Nothing(State):
    """Nothing."""


class Asked(Actor[Nothing], name="asked"):
    @command
    async def refuse(self) -> None:
        raise Overloaded("too much to do")

    @command
    async def refuse_after_a_step(self) -> None:
        await self.step("look", str)
        raise Unavailable("nobody has time")

    @command
    async def give(self) -> str:
        return "given"


class Asking(Actor[Nothing], name="asking"):
    @command
    async def ask_of(self, whom: str, what: str) -> str:
        return str(await getattr(self.ref("asked", whom), what)())


APP = App(actors=[Asked, Asking])


async def refused(runtime: LocalRuntime, stream: str, method: str, command_id: str, **arguments: Any) -> ActorError:
    with pytest.raises(ActorError) as told:
        await runtime.ask(stream, method, command_id=command_id, **arguments)
    return told.value


@pytest.mark.parametrize(
    ("stream", "method", "arguments", "kind"),
    [
        ("asked/a", "refuse", {}, Overloaded),
        ("asked/a", "refuse_after_a_step", {}, Unavailable),
        ("asking/a", "ask_of", {"whom": "a", "what": "refuse"}, Overloaded),
        ("asking/a", "ask_of", {"whom": "a", "what": "refuse_after_a_step"}, Unavailable),
    ],
)
async def test_s24_a_refusal_that_is_remembered_does_not_ask_to_be_repeated(
    tmp_path: Path, stream: str, method: str, arguments: dict[str, str], kind: type[ActorError]
) -> None:
    """Whoever believed "retryable" would hear the same for seven days."""
    async with local_runtime(APP, tmp_path) as runtime:
        for _ in range(2):
            told = await refused(runtime, stream, method, "c-1", **arguments)
            assert type(told) is kind
            assert error_body(told)["retryable"] is False


async def test_a_refusal_that_nobody_remembers_may_be_repeated(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        with pytest.raises(Overloaded) as told:
            await runtime.ask("asked/a", "refuse")
        assert error_body(told.value)["retryable"] is True


async def test_s18_a_turn_that_has_begun_waits_out_a_full_disk_of_whom_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its command is refused for good, and its caller was told to try again."""
    monkeypatch.setattr(driver, "FULL_RETRY_S", 0.01)
    async with local_runtime(APP, tmp_path, shards=2) as runtime:
        there = next(name for name in "abcdefgh" if shard_of(runtime, f"asked/{name}") != shard_of(runtime, "asking/a"))
        store = runtime.shards[shard_of(runtime, f"asked/{there}")].store
        commit, attempts = store.commit, 0

        async def full_three_times(groups: Sequence[Append], *others: Any, **more: Any) -> Any:
            nonlocal attempts
            attempts += 1
            if attempts <= 3:
                raise LogFullError("no space left")
            return await commit(groups, *others, **more)

        monkeypatch.setattr(store, "commit", full_three_times)
        async with asyncio.timeout(20):
            assert await runtime.ask("asking/a", "ask_of", command_id="c-1", whom=there, what="give") == "given"
        assert attempts == 4


def shard_of(runtime: LocalRuntime, stream: str) -> int:
    return runtime.exchange.shard_of(StreamId(stream))
