"""Agents that ask model providers, for a deployment: ``--app tests.support.asking:app``."""

from actors import Actor, Event, State, command
from actors.errors import ActorError
from actors.models import Message
from runtime import App


class AskerState(State):
    said: list[str] = []


class Heard(Event[AskerState], tag="asker.heard"):
    text: str

    def apply(self, state: AskerState) -> None:
        state.said.append(self.text)


class Asker(Actor[AskerState], name="asker"):
    @command
    async def ask(self, text: str, model: str, deadline_s: float = 20.0, stream: bool = False, fallback: bool = False) -> str:
        """The answer of a model, recorded; or how it failed."""
        message = Message(role="user", content=text)
        try:
            answer = await self.model(model).chat([message], deadline_s=deadline_s, stream=stream, fallback=fallback)
        except ActorError as error:
            return f"{type(error).__name__} {error.fields.get('reason')}"
        self.emit(Heard(text=answer.text))
        return answer.text


    @command
    async def several(self, texts: list[str], model: str, pause_after: int, max_tokens: int) -> list[str]:
        """One run: asks one after another, and waits for somebody's word after so many; the answers, or why there is none."""
        said = []
        for number, text in enumerate(texts):
            if number == pause_after:
                await self.wait_for("go")
            try:
                message = Message(role="user", content=text)
                said.append((await self.model(model).chat([message], max_tokens=max_tokens, fallback=False)).text)
            except ActorError as error:
                said.append(f"{type(error).__name__} {error.fields.get('reason')}")
        return said


app = App(actors=[Asker])
