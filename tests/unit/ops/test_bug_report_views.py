"""A bug report of a conversation that recalled what another one had said to be remembered."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from actors import Actor, State, command
from events.envelope import RecordedEvent
from ops.memory import with_memory
from projections.answers import ProjectionAnswers
from projections.embedding.hashing import HashEmbedder
from projections.memory.projection import MemoryProjection
from projections.view_sqlite import SqliteView
from runtime import App
from runtime.local import local_runtime
from tests.support.verbs import Verb

APP = f"{__name__}:app"
REMEMBERED, SOLUTION = "the payment keys lie under the third flower pot", "lift every flower pot"


class Asked(State):
    pass


class AskerActor(Actor[Asked], name="asker"):
    @command
    async def look(self, query: str) -> int:
        found = await self.view("memory").recall(query=query)
        known = await self.view("memory").solution(pattern="lost keys")
        return len(found) + (known is not None)


app = with_memory(App(actors=[AskerActor]))


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("deployment")
    asyncio.run(_remember_and_recall(data))
    return data


async def _remember_and_recall(data: Path) -> None:
    projection = MemoryProjection(HashEmbedder())
    view = await SqliteView.open(projection, data / "view", "log")
    answers = ProjectionAnswers(projection, view.path)
    try:
        async with local_runtime(app, data / "log", shards=1) as cue:
            committed: list[RecordedEvent] = []
            cue.exchange.on_events = committed.extend
            await cue.ask("memory/desk", "remember", content=REMEMBERED, command_id="remember-1")
            await cue.ask("memory/desk", "learn", pattern="lost keys", solution=SOLUTION, success=True, command_id="remember-2")
            said = [event for event in committed if event.type in projection.handles]
            await view.apply(said, expected={}, positions={0: said[-1].position})

            async def asked(projection: str, operation: str, body: bytes, timeout_s: float) -> bytes:
                given = {name: value for name, value in msgspec.json.decode(body).items() if not name.startswith("_")}
                found, _ = await answers.ask(operation, {"workspace": "desk", **given}, timeout_s)
                return msgspec.json.encode(found)

            cue.exchange.on_view = asked
            assert await cue.ask("asker/desk", "look", query="where are the payment keys?", command_id="look-1") == 2
    finally:
        await answers.close()
        await view.close()


def test_what_a_view_answered_from_another_conversation_is_redacted(cuebook: Verb, tmp_path: Path) -> None:
    """The conversation has no event with the mark: only the view's operation says what its answer holds."""
    file = tmp_path / "bug.jsonl"
    code, rows, said = cuebook("export", str(file), "--correlation", "look-1", "--app", APP)
    assert code == 0, said
    text = file.read_text()
    assert "remember-1" not in text
    assert "view.completed" in text
    for secret in (REMEMBERED, SOLUTION, "where are the payment keys?"):
        assert secret not in text
    assert rows[0]["redacted"] >= 3


def test_without_code_the_same_report_has_what_was_recalled(cuebook: Verb, tmp_path: Path) -> None:
    """What shows that the test above looks where the text would be."""
    file = tmp_path / "bug.jsonl"
    assert cuebook("export", str(file), "--correlation", "look-1")[0] == 0
    assert REMEMBERED in file.read_text()
