"""What an actor class says about itself is checked when an app is put together, not at the first message (S35, design.md 3 and 4)."""

from typing import Any

import pytest

from actors import Actor, State, command, query
from actors.errors import Unknown
from actors.registry import ActorType, Registry
from actors.testing import ActorTest
from events.errors import ConfigurationError


class Lamp(State):
    lit: bool = False


class Switchable(Actor[Lamp]):
    """Abstract: it has no name."""

    @command
    async def flip(self, times: int = 1) -> str:
        """Turn it on or off.

        Not in the summary.
        """
        return f"{type(self).__name__} {times}"

    @query
    def lit(self) -> bool:
        return self.state.lit

    def helper(self) -> None:
        """No command, no query: not reachable from outside."""


class LampActor(Switchable, name="lamp"):
    pass


class DimmerActor(Switchable, name="dimmer"):
    @command
    async def flip(self, times: int = 2) -> str:
        return f"dimmed {times}"

    @command
    def dim(self) -> str:
        """A command that awaits nothing may be a plain def."""
        return "dim"


# -- names --------------------------------------------------------------------------------------------------------------------------------


def test_an_actor_class_without_a_name_is_abstract() -> None:
    """S35."""
    with pytest.raises(ConfigurationError, match="Switchable has no name"):
        ActorType(Switchable)


def test_a_name_is_not_inherited() -> None:
    class Child(LampActor):
        pass

    with pytest.raises(ConfigurationError, match="Child has no name"):
        ActorType(Child)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a/b", "*", ">", "lämp", "lamp\n", "x" * 65])
def test_a_name_that_cannot_stand_in_a_subject_is_refused(name: str) -> None:
    """design.md 3: type, id and method are single subject tokens."""
    with pytest.raises(TypeError, match="letters, digits"):

        class Bad(Switchable, name=name):
            pass


@pytest.mark.parametrize("name", ["a", "_", "-", "A-b_9", "x" * 64])
def test_a_name_of_letters_digits_and_dashes_is_taken(name: str) -> None:
    class Good(Switchable, name=name):
        pass

    assert ActorType(Good).name == name


def test_two_actors_of_one_name_are_refused() -> None:
    class Other(Switchable, name="lamp"):
        pass

    with pytest.raises(ConfigurationError, match="two actor classes are called 'lamp'"):
        Registry([LampActor, Other])


def test_an_actor_without_a_state_is_refused() -> None:
    class Stateless(Actor, name="stateless"):  # type: ignore[type-arg]
        pass

    with pytest.raises(ConfigurationError, match="Stateless names no state"):
        ActorType(Stateless)


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Unknown, match="no actor type 'lmap' here \\(known: dimmer, lamp\\)") as refusal:
        Registry([LampActor, DimmerActor]).type("lmap")
    assert refusal.value.fields == {"type": "lmap"}
    with pytest.raises(Unknown, match="known: none"):
        Registry([]).type("lamp")


# -- commands and queries -----------------------------------------------------------------------------------------------------------------


async def test_commands_and_queries_are_inherited() -> None:
    """S35."""
    assert set(ActorType(LampActor).methods) == {"flip", "lit"}
    assert (await ActorTest(LampActor).when("flip")).reply == "LampActor 1"
    assert (await ActorTest(LampActor).when("lit")).reply is False


async def test_a_subclass_may_override_and_add_commands() -> None:
    assert set(ActorType(DimmerActor).methods) == {"dim", "flip", "lit"}
    assert (await ActorTest(DimmerActor).when("flip")).reply == "dimmed 2"
    assert (await ActorTest(DimmerActor).when("dim")).reply == "dim"


def test_a_command_that_is_overridden_without_its_mark_is_gone() -> None:
    """What is not marked is not reachable: an override states its role again."""

    class Stuck(Switchable, name="stuck"):
        async def flip(self, times: int = 1) -> str:
            return "stuck"

    assert set(ActorType(Stuck).methods) == {"lit"}


@pytest.mark.parametrize("name", ["helper", "emit", "state", "__init__", "_turn", "id", "", "flip "])
def test_what_is_no_command_or_query_is_unknown(name: str) -> None:
    with pytest.raises(Unknown, match="lamp has no method") as refusal:
        ActorType(LampActor).method(name)
    assert refusal.value.number == 404
    assert refusal.value.fields == {"method": name}


def test_a_query_that_could_await_is_refused() -> None:
    class Waiting(Actor[Lamp], name="waiting"):
        @query
        async def slow(self) -> bool:
            return True

    with pytest.raises(ConfigurationError, match=r"Waiting\.slow: a query is a plain def"):
        ActorType(Waiting)


def _takes(function: Any) -> type[Actor[Any]]:
    class Taker(Actor[Lamp], name="taker"):
        take = function

    return Taker


@command
async def _any_positional(self: Any, *args: int) -> None: ...


@command
async def _any_keyword(self: Any, **kwargs: int) -> None: ...


@command
async def _positional_only(self: Any, x: int, /) -> None: ...


@query
def _query_any(self: Any, *args: int) -> None: ...


@pytest.mark.parametrize("function", [_any_positional, _any_keyword, _positional_only, _query_any])
def test_parameters_that_have_no_name_in_json_are_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Taker\.take: \*args"):
        ActorType(_takes(function))


@pytest.mark.parametrize("name", ["_flip", "__flip", "_cancel", "_answer", "_state", "_"])
def test_names_that_begin_with_an_underscore_are_ours(name: str) -> None:
    """design.md 3, S22."""
    cls = type("Private", (Switchable,), {name: command(lambda self: None)}, name="private")
    with pytest.raises(ConfigurationError, match="names that start with '_' are reserved"):
        ActorType(cls)


def test_a_method_name_that_cannot_stand_in_a_subject_is_refused() -> None:
    cls = type("Foreign", (Switchable,), {"größe": command(lambda self: None)}, name="foreign")
    with pytest.raises(ConfigurationError, match="größe"):
        ActorType(cls)


async def test_the_reserved_query_state_says_where_the_actor_stands() -> None:
    """What `replay --verify` compares the log with; it is not among the author's methods."""
    kind = ActorType(LampActor)
    assert "_state" not in kind.methods
    assert kind.method("_state").query
    reply = (await ActorTest(LampActor).when("_state")).reply
    assert reply["version"] == 0
    assert len(reply["state_hash"]) == 64


def test_a_method_is_described_by_the_first_line_of_its_docstring() -> None:
    assert ActorType(LampActor).method("flip").summary == "Turn it on or off."
    assert ActorType(LampActor).method("lit").summary == ""
