"""Events and states: class keywords, tags and versions, and which actor may emit which event (S35)."""

from typing import Any

import msgspec
import pytest

from actors import Actor, Event, State, command
from actors.event import event_state_type
from actors.journal import RESERVED_TAGS
from actors.registry import ActorType, Registry
from actors.testing import ActorTest
from events.errors import ConfigurationError
from events.ids import is_tag


class Shelf(State):
    books: list[str] = []
    limit: int = 3


class LentShelf(Shelf):
    lent: int = 0


class Added(Event[Shelf], tag="shelf.added", version=3):
    book: str
    tag: str = "novel"
    version: int = 1

    def apply(self, state: Shelf) -> None:
        state.books.append(self.book)


class Lent(Event[LentShelf], tag="shelf.lent"):
    def apply(self, state: LentShelf) -> None:
        state.lent += 1


class Dated(Event[Shelf]):
    """Abstract: it has no tag."""

    day: int


class Dusted(Dated, tag="shelf.dusted"):
    def apply(self, state: Shelf) -> None:
        state.limit = self.day


class Silent(Event[Shelf], tag="shelf.silent"):
    """Defines no apply."""


class ShelfActor(Actor[Shelf], name="shelf"):
    @command
    async def lend(self) -> None:
        wrong: Any = Lent()
        self.emit(wrong)


class LentShelfActor(Actor[LentShelf], name="lent_shelf"):
    @command
    async def add_and_lend(self, book: str) -> int:
        self.emit(Added(book=book))
        self.emit(Lent())
        return self.state.lent


def define(*, tag: str, version: int = 1) -> type[Event[Any]]:
    class Defined(Event[Shelf], tag=tag, version=version):
        pass

    return Defined


# -- class keywords -----------------------------------------------------------------------------------------------------------------------


def test_tag_and_version_are_class_keywords_and_never_fields() -> None:
    """S35: both are stored in the envelope only, so the payload holds the fields alone - whatever they are called."""
    assert (Added.__event_tag__, Added.__event_version__) == ("shelf.added", 3)
    assert msgspec.json.encode(Added(book="Emma")) == b'{"book":"Emma","tag":"novel","version":1}'
    assert ActorType(ShelfActor).events["shelf.added"].version == 3


def test_a_schema_version_is_one_unless_said() -> None:
    assert Lent.__event_version__ == 1


@pytest.mark.parametrize(
    "tag",
    [
        "added", "Shelf.added", "shelf.Added", "shelf..added", ".shelf.added", "shelf.added.", "shelf added", "shelf.added ",
        "shelf.added\n", "shelf.*", "shelf.>", "shelf-x.added", "shelf.1st", "shelf.ädded", "shelf/added", "shelf." + "x" * 123,
    ],
)  # fmt: skip
def test_a_tag_that_is_not_dotted_lower_case_words_is_refused(tag: str) -> None:
    with pytest.raises(TypeError, match="dotted lower-case words"):
        define(tag=tag)


@pytest.mark.parametrize("version", [0, -1])
def test_a_schema_version_below_one_is_refused(version: int) -> None:
    with pytest.raises(TypeError, match="start at 1"):
        define(tag="shelf.refused", version=version)


def test_other_unknown_class_keywords_are_still_refused() -> None:
    make: Any = type(Event)
    with pytest.raises(TypeError, match="tags"):
        make("Misspelt", (Event,), {}, tags="shelf.misspelt")


def test_an_event_cannot_be_changed_and_takes_its_fields_by_name() -> None:
    event: Any = Added(book="Emma")
    with pytest.raises(AttributeError, match="immutable"):
        event.book = "Persuasion"
    make: Any = Added
    with pytest.raises(TypeError, match="positional"):
        make("Emma")


def test_an_unknown_field_in_a_stored_payload_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"book":"Emma","shelf":1}', type=Added)


def test_an_event_without_apply_says_so() -> None:
    with pytest.raises(TypeError, match="Silent does not define apply"):
        Silent().apply(Shelf())


# -- which actor may emit which event -----------------------------------------------------------------------------------------------------


def test_an_event_without_a_tag_is_abstract_and_hands_its_state_down() -> None:
    assert Dated.__event_tag__ == ""
    assert event_state_type(Dusted) is Shelf
    kind = ActorType(ShelfActor)
    assert kind.events["shelf.dusted"].cls is Dusted
    assert Dated not in [entry.cls for entry in kind.events.values()]


def test_a_tag_and_a_version_are_not_inherited() -> None:
    """S35: a tag belongs to one class, so a subclass without one is abstract again."""

    class Swept(Dusted):
        pass

    assert (Swept.__event_tag__, Swept.__event_version__) == ("", 1)


def test_an_event_of_a_base_state_may_be_emitted_by_an_actor_of_a_sub_state() -> None:
    """S35: Event is contravariant in its state."""
    assert set(ActorType(LentShelfActor).events) == {"shelf.added", "shelf.dusted", "shelf.lent", "shelf.silent"}


async def test_an_event_of_a_base_state_changes_the_sub_state() -> None:
    result = await ActorTest(LentShelfActor).when("add_and_lend", book="Emma")
    assert result.reply == 1
    assert result.state == LentShelf(books=["Emma"], lent=1)


async def test_an_event_of_a_sub_state_is_refused_by_an_actor_of_the_base_state() -> None:
    assert "shelf.lent" not in ActorType(ShelfActor).events
    with pytest.raises(ConfigurationError, match="Lent is no event of shelf"):
        await ActorTest(ShelfActor).when("lend")
    with pytest.raises(ConfigurationError, match="Lent is no event of shelf"):
        ActorTest(ShelfActor).given(Lent())


@pytest.mark.parametrize("reserved", sorted(RESERVED_TAGS))
def test_a_tag_of_our_own_events_is_refused_at_registration(reserved: str) -> None:
    """events/FORMAT.md 7: an app's `turn.started` would be read as ours at recovery."""
    assert is_tag(reserved)

    class Cell(State):
        pass

    class Taken(Event[Cell], tag=reserved):
        pass

    class CellActor(Actor[Cell], name="cell"):
        pass

    with pytest.raises(ConfigurationError, match=rf"Taken: the tag '{reserved}' is one of Cuebook's own"):
        ActorType(CellActor)


def test_a_tag_that_two_events_of_one_actor_share_is_refused() -> None:
    class Cell(State):
        pass

    class First(Event[Cell], tag="cell.twice"):
        pass

    class Second(Event[Cell], tag="cell.twice", version=2):
        pass

    class CellActor(Actor[Cell], name="cell"):
        pass

    with pytest.raises(ConfigurationError, match=r"'cell\.twice' belongs to both .*(First|Second).* and .*(First|Second)"):
        ActorType(CellActor)
    assert First.__event_tag__ == Second.__event_tag__


def test_a_tag_that_two_actors_of_one_app_share_is_refused() -> None:
    """S35: a tag belongs to one class per app; two apps may each have it."""

    class Left(State):
        pass

    class Right(State):
        pass

    class LeftMoved(Event[Left], tag="side.moved"):
        pass

    class RightMoved(Event[Right], tag="side.moved"):
        pass

    class LeftActor(Actor[Left], name="left"):
        pass

    class RightActor(Actor[Right], name="right"):
        pass

    assert Registry([LeftActor]).type("left").events["side.moved"].cls is LeftMoved
    assert Registry([RightActor]).type("right").events["side.moved"].cls is RightMoved
    with pytest.raises(ConfigurationError, match=r"'side\.moved' belongs to both .*LeftMoved and .*RightMoved"):
        Registry([LeftActor, RightActor])


def test_actors_of_related_states_share_the_events_of_the_base() -> None:
    registry = Registry([ShelfActor, LentShelfActor])
    assert registry.type("shelf").events["shelf.added"].cls is registry.type("lent_shelf").events["shelf.added"].cls


# -- states -------------------------------------------------------------------------------------------------------------------------------


def test_every_actor_begins_with_the_defaults_of_its_state() -> None:
    assert ActorType(LentShelfActor).initial() == LentShelf(books=[], limit=3, lent=0)


def test_a_mutable_default_is_not_shared_between_two_states() -> None:
    kind = ActorType(ShelfActor)
    first, second = kind.initial(), kind.initial()
    first.books.append("Emma")
    assert second.books == []


def test_a_state_survives_its_encoding() -> None:
    kind = ActorType(LentShelfActor)
    state = LentShelf(books=["Emma", "Ümläut 😀"], limit=-1, lent=2)
    assert kind.decode_state(kind.encode_state(state)) == state


def test_another_shape_of_state_has_another_name() -> None:
    """S17, I-8: an older snapshot is then ignored by name, never misread."""

    class Box(State):
        size: int = 0

    class BoxActor(Actor[Box], name="box"):
        pass

    before = ActorType(BoxActor).shape

    class Box(State):  # type: ignore[no-redef]
        size: str = ""

    class BoxActor(Actor[Box], name="box"):  # type: ignore[no-redef]
        pass

    assert ActorType(BoxActor).shape != before
    assert ActorType(ShelfActor).shape == ActorType(ShelfActor).shape
