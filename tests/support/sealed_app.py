"""A sealed actor that is told, says and gets wrong whatever it is given, and a plain one that does the same."""

from typing import Any

from actors import Actor, Event, Rejected, State, command, query
from runtime import App


class Notes(State):
    texts: list[str] = []


class Noted(Event[Notes], tag="notes.noted"):
    text: str

    def apply(self, state: Notes) -> None:
        state.texts.append(self.text)


async def echo(text: str) -> str:
    return text


async def fail(text: str) -> str:
    raise ValueError(f"cannot {text}")


class _Keeper(Actor[Notes]):
    @command
    async def note(self, text: str) -> str:
        self.emit(Noted(text=text))
        return text

    @command
    async def step_through(self, text: str) -> list[str]:
        """A step that works, one that does not, a chunk, a timer, and an event behind them."""
        got = await self.step("echo", echo, text)
        self.chunk({"said": text})
        try:
            await self.step("fail", fail, text)
        except Exception as error:  # noqa: BLE001  whatever it is, it quotes the text
            self.emit(Noted(text=str(error)))
        self.schedule(3_600, "note", text=got)
        return self.state.texts

    @command
    async def refuse(self, text: str) -> None:
        raise Rejected(f"not {text}", text=text)

    @command
    async def break_down(self, text: str) -> None:
        raise RuntimeError(f"broken by {text}")

    @command
    async def pass_on(self, to: str, text: str) -> None:
        self.ref("patient", to).tell.note(text=text)

    @query
    def all(self) -> list[str]:
        return self.state.texts

    @query
    def wrong(self, text: str) -> Any:
        raise RuntimeError(f"no answer to {text}")


class Patient(_Keeper, name="patient", sealed=True):
    """Sealed."""


class Board(_Keeper, name="board"):
    """Plain."""


app = App(actors=[Patient, Board])
