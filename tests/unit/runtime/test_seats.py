"""What an heir keeps of what came in before a shard is its own (S5): only what no other owner may have said "no room" of."""

import pytest

from runtime.ownership.seats import Seat


def heir_of(epoch: int) -> Seat:
    """It listened before anybody offered it the shard, and since."""
    seat = Seat()
    seat.handler("before the offer")
    seat.offered(epoch)
    seat.handler("since the offer")
    return seat


@pytest.mark.parametrize(("epoch", "handled"), [(8, ["since the offer"]), (9, [])])
def test_s5_an_heir_keeps_copies_only_if_it_takes_the_shard_from_the_owner_that_offered_it(epoch: int, handled: list[str]) -> None:
    """An owner in between knew of no heir: it may have told a caller that the copy it got was not done."""
    seat, done = heir_of(7), list[str]()
    seat.taken(epoch)
    seat.handler = done.append
    seat.release_buffer()
    assert done == handled


def test_s5_a_later_offer_begins_anew() -> None:
    seat, done = heir_of(7), list[str]()
    seat.offered(9)
    seat.handler("since the second offer")
    seat.taken(10)
    seat.handler = done.append
    seat.release_buffer()
    assert done == ["since the second offer"]


def test_s5_who_takes_a_shard_that_nobody_offered_keeps_what_came_in_since_it_listens() -> None:
    seat, done = Seat(), list[str]()
    seat.handler("came in while it was taken")
    seat.taken(3)
    seat.handler = done.append
    seat.release_buffer()
    assert done == ["came in while it was taken"]


def test_s5_who_lost_a_shard_handles_no_copy_of_what_came_in_meanwhile() -> None:
    """The new owner has it too, and may have told its caller that there was no room: then it must not be done here after all."""
    seat, done = Seat(), list[str]()
    seat.taken(3)
    seat.handler = done.append
    seat.buffer.append("came in while we were stopped")
    seat.drop()
    seat.handler("in the socket still")
    seat.release_buffer()
    assert done == []
