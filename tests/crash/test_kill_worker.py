"""kill -9 of a worker under 1,000 concurrent asks, and proof that the judge of it sees what it should (issue 2, "It is done when")."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.kill_run import ASKS, Result, run_once
from tests.support.checker import Asked, check

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]
SEEDS = (1, 8, 13)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """One run, and its log for the tests of the judge."""
    folder = tmp_path_factory.mktemp("killed")
    return run_once(folder, SEEDS[0]), folder / "data" / "log"


def assert_sound(result: Result) -> None:
    print(result.line())
    assert not result.problems, result.line()
    assert len(result.ledger) == ASKS
    assert result.waiting > 0
    assert result.slowest_s < 30.0


def test_a_killed_worker_loses_and_doubles_nothing_first_seed(run: tuple[Result, Path]) -> None:
    assert_sound(run[0])


@pytest.mark.parametrize("seed", SEEDS[1:])
def test_a_killed_worker_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    assert_sound(run_once(tmp_path, seed))


# -- the judge ------------------------------------------------------------------------------------------------------------------------


def remove_middle(file: sqlite3.Connection) -> None:
    """An event with others behind it."""
    file.execute("DELETE FROM events WHERE position = (SELECT max(position) / 2 FROM events)")


def remove_last(file: sqlite3.Connection) -> None:
    """The newest event, as a lost tail would: nothing behind it says so, and the flushed heads are gone with it."""
    file.execute("DELETE FROM events WHERE position = (SELECT max(position) FROM events)")
    file.execute("DELETE FROM heads")


def remove_last_with_its_inbox_row(file: sqlite3.Connection) -> None:
    """... of a turn that is gone as a whole: only the caller knows."""
    file.execute(
        "DELETE FROM inbox WHERE (command_id, stream_id) IN (SELECT command_id, stream_id FROM events ORDER BY position DESC LIMIT 1)"
    )
    remove_last(file)


def double_as_it_is(file: sqlite3.Connection) -> None:
    """The same row again under the next position."""
    names = [row[1] for row in file.execute("PRAGMA table_info(events)") if row[1] != "position"]
    columns = ", ".join(names)
    file.execute(f"INSERT INTO events (position, {columns}) SELECT max(position) + 1, {columns} FROM events")


def double_consistently(file: sqlite3.Connection) -> None:
    """The newest event of a stream once more, with place, time, id and hash as a writer would give them: the effect itself is doubled."""
    file.row_factory = sqlite3.Row
    newest = "SELECT e.*, s.name FROM events e JOIN streams s ON s.id = e.stream_id ORDER BY position DESC LIMIT 1"
    row = dict(file.execute(newest).fetchone())
    row.update(position=row["position"] + 1, prev_position=row["position"], version=row["version"] + 1, time=row["time"] + 1)
    row["event_id"] = row["event_id"][:-1] + ("0" if row["event_id"][-1] != "0" else "1")
    fields = [row[name] for name in (
        "name", "version", "event_id", "type", "schema_version", "kind", "recorded_at_us", "time", "command_id", "causation_id",
        "correlation_id", "sender", "branch",
    )]  # fmt: skip
    fields.append(hashlib.sha256(row["salt"] + row["payload"].encode()).hexdigest())
    row["hash"] = hashlib.sha256(row["hash"] + json.dumps(fields, separators=(",", ":")).encode()).digest()
    del row["name"]
    file.execute(f"INSERT INTO events ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def change_payload(file: sqlite3.Connection) -> None:
    file.execute("UPDATE events SET payload = replace(payload, ':', ':1') WHERE position = 3")


def swap_versions(file: sqlite3.Connection) -> None:
    """Two events of one stream change places."""
    stream, first, second = file.execute(
        "SELECT stream_id, min(version), max(version) FROM events GROUP BY stream_id ORDER BY count(*) DESC LIMIT 1"
    ).fetchone()
    for version, to in ((first, -1), (second, first), (-1, second)):
        file.execute("UPDATE events SET version = ? WHERE stream_id = ? AND version = ?", (to, stream, version))


def lower_epoch(file: sqlite3.Connection) -> None:
    """A superseded owner wrote after its successor."""
    file.execute("UPDATE events SET owner_epoch = owner_epoch - 1 WHERE position = (SELECT max(position) FROM events)")


def change_reply(file: sqlite3.Connection) -> None:
    first = "SELECT min(id) FROM inbox WHERE code IS NULL"
    file.execute(f"UPDATE inbox SET reply = CAST('1' || CAST(reply AS TEXT) AS BLOB) WHERE id = ({first})")


DAMAGES: dict[Callable[[sqlite3.Connection], None], str] = {
    remove_middle: "is not there",
    remove_last: "left no event",
    remove_last_with_its_inbox_row: "is lost",
    double_as_it_is: "event ids stand twice",
    double_consistently: "took effect 2 times",
    change_payload: "its hash is not that of its content",
    swap_versions: "follows version",
    lower_epoch: "written in epoch",
    change_reply: "the inbox says",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_judge_sees_a_damaged_log(run: tuple[Result, Path], tmp_path: Path, damage: Callable[[sqlite3.Connection], None]) -> None:
    result, log = run
    copy = tmp_path / "log"
    shutil.copytree(log, copy)
    assert check(copy, result.ledger) == []
    with closing(sqlite3.connect(copy / "shard-0.db")) as file, file:
        file.execute("UPDATE switches SET is_open = 1")
        damage(file)
        file.execute("UPDATE switches SET is_open = 0")
    problems = check(copy, result.ledger)
    assert any(DAMAGES[damage] in problem for problem in problems), problems


def test_the_judge_sees_an_answer_that_is_not_in_the_log(run: tuple[Result, Path]) -> None:
    result, log = run
    invented = Asked("account/a0", "never-asked", "deposit", 5, 5)
    assert check(log, [*result.ledger, invented]) == ["account/a0: never-asked was answered, but is lost"]


def test_the_judge_sees_a_command_that_nobody_asked(run: tuple[Result, Path]) -> None:
    result, log = run
    done = next(asked for asked in result.ledger if asked.balance is not None)
    assert check(log, [asked for asked in result.ledger if asked != done]) == [f"{done.stream}: nobody asked for {done.command_id}"]
