"""The room of what a process computes once: counted, bounded, cleared."""

import threading

import pytest

from events.errors import InvariantError
from events.memo import clear_memos, memo, memo_statistics


def test_a_repeat_is_not_computed_and_both_are_counted() -> None:
    computed: list[int] = []

    @memo("test of repeats", 8)
    def double(number: int) -> int:
        computed.append(number)
        return 2 * number

    assert [double(number) for number in (1, 2, 1, 1)] == [2, 4, 2, 2]
    assert computed == [1, 2]
    found = memo_statistics()["test of repeats"]
    assert (found.hits, found.misses, found.entries, found.entries_max, found.rate) == (2, 2, 2, 8, 0.5)


def test_a_memo_is_bounded_and_drops_what_was_used_longest_ago() -> None:
    computed: list[int] = []

    @memo("test of bounds", 2)
    def same(number: int) -> int:
        computed.append(number)
        return number

    for number in (1, 2, 1, 3, 1, 2):
        same(number)
    assert computed == [1, 2, 3, 2]
    assert memo_statistics()["test of bounds"].entries == 2


def test_what_raises_is_computed_again() -> None:
    attempts: list[str] = []

    @memo("test of errors", 8)
    def refuse(text: str) -> int:
        attempts.append(text)
        raise ValueError(text)

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            refuse("no")
    assert attempts == ["no", "no"]
    assert memo_statistics()["test of errors"].entries == 0


def test_clearing_forgets_results_and_counts() -> None:
    @memo("test of clearing", 8)
    def same(number: int) -> int:
        return number

    same(1)
    same(1)
    clear_memos()
    found = memo_statistics()["test of clearing"]
    assert (found.hits, found.misses, found.entries, found.rate) == (0, 0, 0, 0.0)


def test_a_name_stands_for_one_function() -> None:
    memo("test of names", 1)(test_clearing_forgets_results_and_counts)
    memo("test of names", 1)(test_clearing_forgets_results_and_counts)
    with pytest.raises(InvariantError, match="another's name"):
        memo("test of names", 1)(test_a_name_stands_for_one_function)
    with pytest.raises(InvariantError, match="no room"):
        memo("test of no room", 0)(test_a_name_stands_for_one_function)


def test_threads_may_share_one() -> None:
    @memo("test of threads", 64)
    def square(number: int) -> int:
        return number * number

    wrong: list[int] = []

    def use() -> None:
        wrong.extend(number for number in range(5_000) if square(number % 100) != (number % 100) ** 2)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = memo_statistics()["test of threads"]
    assert wrong == []
    assert found.hits + found.misses == 20_000
    assert found.entries == 64
