"""The mailbox: classes in order of precedence, senders in turns, each sender in its own order, bounded (S25, I-16, I-17)."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.registry import ActorType
from actors.turn import Command
from events.ids import CommandId, StreamId
from events.limits import BYPASS_MAX, MAILBOX_MAX
from events.store import InboxStatus
from ops.examples.bank import AccountActor
from runtime.items import Item
from runtime.mailboxes import Mailbox, MailClass, lane_of

KIND: ActorType[Any] = ActorType(AccountActor)
_DEPOSIT = KIND.method("deposit")


def item(name: str = "c", *, client: str = "", sender: str | None = None, stored: InboxStatus | None = None, control: bool = False) -> Item:
    """One command; outside asks by default."""
    command = Command(
        stream=StreamId("account/1"), method="_state" if control else "deposit", args=b"{}", command_id=CommandId(name), explicit=True,
        received_at_us=1, sender=sender, client=client,
    )  # fmt: skip
    return Item(command, _DEPOSIT, {}, None, stored)


def tell(name: str, sender: str | None = None) -> Item:
    return item(name, sender=sender, stored=InboxStatus.QUEUED)


def names(mailbox: Mailbox) -> list[str]:
    """What comes out, to the end."""
    found = []
    while mailbox.ready:
        found.append(str(mailbox.popleft().command.command_id))
    return found


def filled(*items: Item) -> Mailbox:
    mailbox = Mailbox()
    for each in items:
        mailbox.append(each)
    return mailbox


def test_control_comes_before_people_before_agents_before_bulk() -> None:
    mailbox = filled(tell("bulk"), item("agent", sender="a/1"), tell("send", sender="a/2"), item("person"), item("control", control=True))
    assert names(mailbox) == ["control", "person", "agent", "send", "bulk"]


def test_a_class_follows_from_who_asks_and_cannot_be_claimed() -> None:
    assert lane_of(item(sender="a/1"))[0] is MailClass.AGENTS
    assert lane_of(tell("t", sender="a/1"))[0] is MailClass.AGENTS
    assert lane_of(item(client="_INBOX.x"))[0] is MailClass.PEOPLE
    assert lane_of(tell("t"))[0] is MailClass.BULK
    assert lane_of(item(control=True, sender="a/1"))[0] is MailClass.CONTROL


def test_senders_of_one_class_take_turns_so_a_flood_delays_another_by_one() -> None:
    mailbox = filled(*(item(f"flood-{n}", client="flood") for n in range(500)), item("one", client="calm"))
    assert names(mailbox)[:3] == ["flood-0", "one", "flood-1"]


def test_a_lower_class_is_passed_over_only_so_often() -> None:
    """A tell that is accepted must be handled some day, whatever people do meanwhile."""
    mailbox = filled(*(item(f"p-{n}") for n in range(BYPASS_MAX * 2)), tell("told"))
    assert names(mailbox).index("told") == BYPASS_MAX


def test_an_open_turn_goes_before_everything() -> None:
    """S15: between its entries nothing else of its actor is decided."""
    mailbox = filled(item("p"), item("control", control=True))
    mailbox.append(item("open", stored=InboxStatus.RUNNING))
    mailbox.append(item("second", stored=InboxStatus.RUNNING))
    assert names(mailbox) == ["open", "second", "control", "p"]


def test_what_is_put_back_comes_first_in_its_order() -> None:
    """S18: what was decided on a state that was dropped is decided again before what came later."""
    mailbox = filled(item("control", control=True), item("p"))
    mailbox.extendleft([item("2"), item("1")])
    assert names(mailbox) == ["1", "2", "control", "p"]


def test_a_mailbox_of_one_holds_no_queue() -> None:
    """The common case costs no more than a slot."""
    mailbox = filled(item("only"))
    assert (mailbox._rings, mailbox._front, mailbox._lanes) == (None, None, {})
    assert names(mailbox) == ["only"]


def test_a_full_mailbox_makes_room_for_who_has_less_and_refuses_who_has_most() -> None:
    """design.md 6: one flooding client does not push others out."""
    mailbox = filled(*(item(f"flood-{n}", client="flood") for n in range(MAILBOX_MAX)))
    assert mailbox.full
    assert mailbox.displaced_by(item("more", client="flood")) is None
    displaced = mailbox.displaced_by(item("calm", client="calm"))
    assert displaced is not None
    assert displaced.command.command_id == f"flood-{MAILBOX_MAX - 1}"
    mailbox.append(item("calm", client="calm"))
    assert mailbox.full


def test_two_floods_share_and_end_with_halves() -> None:
    mailbox = filled(*(item(f"a-{n}", client="a") for n in range(MAILBOX_MAX)))
    accepted = 0
    for number in range(MAILBOX_MAX):
        newcomer = item(f"b-{number}", client="b")
        if mailbox.displaced_by(newcomer) is not None:
            mailbox.append(newcomer)
            accepted += 1
    assert accepted in (MAILBOX_MAX // 2, MAILBOX_MAX // 2 - 1)


def test_a_command_of_ours_gets_into_a_full_mailbox() -> None:
    """A person must get at an actor that is flooded by a thousand clients."""
    mailbox = filled(*(item(f"c-{n}", client=f"client-{n}") for n in range(MAILBOX_MAX)))
    assert mailbox.displaced_by(item("other", client="other")) is None
    assert mailbox.displaced_by(item("control", control=True)) is not None


def test_tells_never_fill_a_mailbox_for_asks() -> None:
    """S11: a tell never gets 429, and a backlog of them refuses nobody else."""
    mailbox = filled(*(tell(f"t-{n}") for n in range(MAILBOX_MAX * 2)))
    assert not mailbox.full


def test_a_held_sender_waits_in_order_while_its_asks_and_others_pass() -> None:
    """I-16: later messages of the same sender wait for the one that is tried again."""
    mailbox = filled(tell("poison", "a/1"), tell("2", "a/1"), item("ask", sender="a/1"), tell("b", "b/1"), tell("3", "a/1"))
    poison = mailbox.popleft()
    mailbox.hold(poison)
    mailbox.append(tell("4", "a/1"))
    assert (mailbox.ready, len(mailbox)) == (2, 6)
    assert sorted(names(mailbox)) == ["ask", "b"]
    mailbox.append(item("ask-2", sender="a/1"))
    mailbox.release(poison)
    assert names(mailbox) == ["poison", "2", "3", "4", "ask-2"]


def test_one_that_waits_behind_a_held_one_can_be_let_go_alone() -> None:
    """S22: it was cancelled."""
    mailbox = filled(tell("poison", "a/1"), tell("2", "a/1"), tell("3", "a/1"))
    poison = mailbox.popleft()
    mailbox.hold(poison)
    second = next(each for each in mailbox if each.command.command_id == "2")
    mailbox.release(second)
    assert names(mailbox) == ["2"]
    mailbox.release(poison)
    assert names(mailbox) == ["poison", "3"]


SENDERS = st.sampled_from(["a/1", "b/1", "c/1"])
ACTIONS = st.lists(st.one_of(SENDERS, st.sampled_from(["pop", "put back", "hold", "release"])), max_size=60)


@given(ACTIONS)
def test_what_a_sender_told_is_taken_in_its_order_whatever_happens(actions: list[str]) -> None:
    """S25: over appends, put-backs, holds and releases in any interleaving, nothing is lost, doubled or swapped within a sender."""
    mailbox = Mailbox()
    sent: dict[str, int] = defaultdict(int)
    taken: dict[str, list[int]] = defaultdict(list)
    in_hand: list[Item] = []
    held: list[Item] = []

    def done() -> None:
        for each in in_hand:
            taken[each.command.sender or ""].append(int(each.command.command_id))
        in_hand.clear()

    for action in actions:
        if action == "pop":
            done()
            if mailbox.ready:
                in_hand.append(mailbox.popleft())
        elif action == "put back":
            while in_hand:
                mailbox.appendleft(in_hand.pop())
        elif action == "hold":
            if in_hand:
                held.append(in_hand.pop())
                mailbox.hold(held[-1])
        elif action == "release":
            if held:
                mailbox.release(held.pop())
        else:
            mailbox.append(tell(str(sent[action]), action))
            sent[action] += 1
    done()
    for each in reversed(held):
        mailbox.release(each)
    assert mailbox.ready == len(mailbox) == len(list(mailbox))
    while mailbox.ready:
        in_hand.append(mailbox.popleft())
    done()
    assert taken == {sender: list(range(count)) for sender, count in sent.items()}


def test_take_all_empties_it_and_keeps_everybody() -> None:
    mailbox = filled(tell("poison", "a/1"), tell("2", "a/1"), item("p"), item("control", control=True))
    poison = tell("0", "a/1")
    mailbox.hold(poison)
    assert {str(each.command.command_id) for each in mailbox.take_all()} == {"poison", "2", "p", "control", "0"}
    assert (mailbox.ready, len(mailbox)) == (0, 0)
    with pytest.raises(IndexError):
        mailbox.popleft()
