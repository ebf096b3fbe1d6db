"""What another thread ends: everybody who waits hears of it once, whether they wait in a thread or on a loop."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from events.errors import InvariantError
from events.submitted import Submitted

MANY = 2_000


def test_it_ends_once_and_says_how() -> None:
    done: Submitted[int] = Submitted()
    with pytest.raises(InvariantError):
        done.exception()
    heard: list[Submitted[int]] = []
    done.add_done_callback(heard.append)
    done.set_result(3)
    assert heard == [done]
    done.add_done_callback(heard.append)
    assert (heard, done.result(), done.exception()) == ([done, done], 3, None)
    with pytest.raises(InvariantError):
        done.set_result(4)
    failed: Submitted[int] = Submitted()
    failed.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        failed.result()


def test_a_thread_waits_for_it() -> None:
    submitted: Submitted[str] = Submitted()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(submitted.result)
        submitted.set_result("done")
        assert waiting.result(10) == "done"


def test_no_callback_is_lost_or_called_twice_when_it_ends_while_they_are_added() -> None:
    begin = threading.Barrier(3)
    for _ in range(MANY // 10):
        submitted: Submitted[None] = Submitted()
        heard: list[int] = []

        def add(first: int, submitted: Submitted[None] = submitted, heard: list[int] = heard) -> None:
            begin.wait()
            for number in range(first, first + 10):
                submitted.add_done_callback(lambda _, number=number: heard.append(number))  # type: ignore[misc]

        threads = [threading.Thread(target=add, args=(first,)) for first in (0, 10)]
        for thread in threads:
            thread.start()
        begin.wait()
        submitted.set_result(None)
        for thread in threads:
            thread.join()
        assert sorted(heard) == list(range(20))


async def test_all_that_wait_on_a_loop_are_woken_by_few_calls_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, calls = asyncio.get_running_loop(), 0
    call_soon = loop.call_soon_threadsafe

    def counted(*arguments: object, **keywords: object) -> object:
        nonlocal calls
        calls += 1
        return call_soon(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    many: list[Submitted[int]] = [Submitted() for _ in range(MANY)]

    async def waited(number: int) -> int:
        return await many[number]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(waited(number)) for number in range(MANY)]
        await asyncio.sleep(0)  # all of them wait

        def end() -> None:
            for number, each in enumerate(many):
                each.set_result(number)

        ending = threading.Thread(target=end)
        ending.start()
        ending.join()  # the loop stands still meanwhile, so what it is told is one batch
    assert [task.result() for task in tasks] == list(range(MANY))
    assert calls == 1


async def test_a_caller_that_is_cancelled_takes_nothing_back() -> None:
    submitted: Submitted[int] = Submitted()

    async def wait() -> int:
        return await submitted

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    threading.Thread(target=submitted.set_result, args=(5,)).start()
    assert await submitted == 5


def test_a_loop_that_was_closed_meanwhile_hears_nothing_and_hinders_nobody() -> None:
    submitted: Submitted[int] = Submitted()

    async def give_up() -> None:
        async def wait() -> int:
            return await submitted

        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(give_up())
    submitted.set_result(1)
    assert submitted.result() == 1


async def test_what_its_own_loop_ends_needs_no_call_as_from_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", lambda *arguments: calls.append(arguments))
    submitted: Submitted[int] = Submitted()

    async def wait() -> int:
        return await submitted

    waiting = [asyncio.ensure_future(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    gone = waiting.pop()
    gone.cancel()
    submitted.set_result(5)
    assert await asyncio.gather(*waiting) == [5, 5]
    assert gone.cancelled()
    assert calls == []
