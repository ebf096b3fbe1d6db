"""Many waits, one timer."""

import asyncio

import pytest

from runtime.deadlines import Deadlines


async def test_only_the_waits_that_were_not_dropped_are_told_each_in_time() -> None:
    deadlines = Deadlines()
    late: list[tuple[str, float]] = []
    loop = asyncio.get_running_loop()
    begun = loop.time()

    def told(name: str) -> None:
        late.append((name, loop.time() - begun))

    kept = deadlines.add(60.0, lambda: told("long"))
    dropped = deadlines.add(0.01, lambda: told("dropped"))
    deadlines.add(0.05, lambda: told("second"))
    deadlines.add(0.02, lambda: told("first"))
    deadlines.drop(dropped)
    deadlines.drop(dropped)
    async with asyncio.timeout(5.0):
        while len(late) < 2:
            await asyncio.sleep(0.005)
    assert [name for name, _ in late] == ["first", "second"]
    assert late[0][1] == pytest.approx(0.02, abs=1e-6) or late[0][1] > 0.02
    assert late[1][1] == pytest.approx(0.05, abs=1e-6) or late[1][1] > 0.05
    assert len(deadlines) == 1
    deadlines.drop(kept)
    assert len(deadlines) == 0


async def test_a_deadline_that_has_passed_is_told_from_the_loop_and_not_at_once() -> None:
    deadlines, late = Deadlines(), asyncio.Event()
    deadlines.add(0.0, late.set)
    assert not late.is_set()
    async with asyncio.timeout(5.0):
        await late.wait()


async def test_a_thousand_waits_set_one_timer() -> None:
    """Later deadlines than the one that the timer stands at do not move it."""
    deadlines = Deadlines()
    waits = [deadlines.add(30.0 + number, lambda: None) for number in range(1_000)]
    timer = deadlines._timer
    for wait in waits:
        deadlines.drop(wait)
    deadlines.add(40.0, lambda: None)
    assert deadlines._timer is timer
