"""Takes one mechanism at a time out of a copy of the code and shows that a named test fails: ``python -m tests.crash.mutations``.

The copy lies in a temporary folder; each change is the smallest that disables what the line names. A change whose text is no longer found
is an error, so the table cannot grow old unnoticed. Tests that pass although their mechanism is out are the finding.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("actors", "events", "ops", "projections", "runtime", "tests")


class Mutation(NamedTuple):
    """What is taken out, how, and the test that must notice."""

    what: str
    file: str
    was: str
    becomes: str
    test: str


MUTATIONS = (
    Mutation(
        "epoch compare (S3)", "events/sqlite/writer_sqlite.py", "if (epoch, token) != (ownership.epoch, ownership.token):", "if False:",
        "tests/contract/test_store_contract.py::test_a_superseded_owner_is_refused_whatever_it_tries",
    ),
    Mutation(
        "inode compare (S3)", "events/sqlite/writer_sqlite.py", "        if found != self._file:", "        if False:",
        "tests/fault/test_fences.py::test_an_owner_whose_file_was_replaced_never_says_committed",
    ),
    Mutation(
        "inbox lookup (S24)", "events/sqlite/append_sqlite.py",
        "        pending = self._pending.inbox.get(key)\n", "        return None\n        pending = None\n",
        "tests/contract/test_inbox_outbox_contract.py::test_a_known_command_is_a_duplicate_and_shows_what_it_came_to",
    ),
    Mutation(
        "number of a send (S25)", "events/sqlite/append_sqlite.py", "if arrival.n < expected:", "if False:",
        "tests/fault/test_old_sends.py::test_s25_a_send_that_comes_again_after_its_command_was_forgotten_is_not_done_again",
    ),
    Mutation(
        "gap in the sends (S25)", "events/sqlite/append_sqlite.py", "if arrival.n > expected:", "if False:",
        "tests/contract/test_inbox_outbox_contract.py::test_outbox_rows_are_taken_only_in_the_order_of_their_numbers",
    ),
    Mutation(
        "anchor check (S28)", "events/sqlite/heads.py",
        "    if position < anchor.position or eventless < anchor.eventless:", "    if False:",
        "tests/fault/test_fences.py::test_a_lost_commit_without_events_is_detected_too",
    ),
    Mutation(
        "hash check at read (S27)", "events/sqlite/rows.py",
        "        if computed_hash(row, previous_hash) != row[25]:", "        if False:",
        "tests/fault/test_fences.py::test_a_damaged_event_is_refused_at_read_and_others_are_not",
    ),
    Mutation(
        "expected version", "events/sqlite/append_sqlite.py", "        if version != group.expected_version:", "        if False:",
        "tests/contract/test_store_contract.py::test_append_refuses_any_other_expected_version",
    ),
    Mutation(
        "reply after commit (S18)", "runtime/cell.py", "        self.shard.commit.submit(group, partial(short_outcome, self, item))",
        "        item.answer(self.stand(item.reply))\n        self.shard.commit.submit(group, partial(short_outcome, self, item))",
        "tests/unit/runtime/test_reply_after_commit.py::test_s18_no_reply_leaves_before_its_commit",
    ),
    Mutation(
        "deadline check (S10)", "runtime/shard.py", "self.now_ms() > command.deadline_ms", "False",
        "tests/unit/runtime/test_reply_after_commit.py::test_s10_an_expired_command_is_refused_and_leaves_nothing",
    ),
    Mutation(
        "left-over journal entries (S19)", "actors/stepping.py",
        "        if unused:\n            raise effects.diverged(unused, None)", "        return",
        "tests/unit/actors/test_rerun.py::test_a_left_over_concurrent_step_is_found_at_the_end_of_the_turn",
    ),
    Mutation(
        "BEGIN IMMEDIATE (S2, S3)", "events/sqlite/writer_sqlite.py",
        '    def _begin(self, connection: SqliteConnection) -> None:\n        try:\n            connection.execute("BEGIN IMMEDIATE")',
        '    def _begin(self, connection: SqliteConnection) -> None:\n        try:\n            connection.execute("BEGIN")',
        "tests/fault/test_sqlite_faults.py::test_s2_a_taker_waits_for_the_write_lock_as_long_as_it_is_told",
    ),
    Mutation(
        "ROLLBACK TO of one group (S18)", "events/sqlite/writer_sqlite.py",
        '            connection.execute("ROLLBACK TO one")\n', "            pass\n",
        "tests/fault/test_sqlite_faults.py::test_s18_rows_of_a_group_that_fails_at_its_last_are_taken_back",
    ),
    Mutation(
        "tells acknowledged after their commit (S11)", "runtime/over_nats/tells_nats.py",
        "        if arrivals:\n            await self._shard.accept(arrivals)\n",
        "        for message in taken:\n            await message.ack()\n"
        "        if arrivals:\n            await self._shard.accept(arrivals)\n",
        "tests/unit/runtime/test_tell_intake.py::test_s11_a_tell_is_acknowledged_after_the_commit_that_took_it",
    ),
    Mutation(
        "copies dropped by who lost the shard (S5)", "runtime/ownership/seats.py",
        "        self.buffer.clear()\n        self.handler = _dropped", "        self.release_buffer()",
        "tests/unit/runtime/test_seats.py::test_s5_who_lost_a_shard_handles_no_copy_of_what_came_in_meanwhile",
    ),
    Mutation(
        "indexes compared at open (S24)", "events/sqlite/writer_sqlite.py", "            check_indexes(connection, self._path)\n", "",
        "tests/fault/test_damaged_indexes.py::test_s24_an_index_that_does_not_lead_to_a_known_command_closes_its_shard",
    ),
)  # fmt: skip


def passes(folder: Path, test: str) -> bool:
    """Run one test on the code in `folder`."""
    environment = {**os.environ, "CI": "true", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "", test],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{test} could not be run: {done.stdout[-2_000:]}{done.stderr[-2_000:]}")
    return done.returncode == 0


def main() -> int:
    survived = 0
    with tempfile.TemporaryDirectory(prefix="cuebook-mutations-") as name:
        folder = Path(name)
        for part in COPIED:
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for mutation in MUTATIONS:
            path = folder / mutation.file
            sound = path.read_text()
            if sound.count(mutation.was) != 1:
                raise RuntimeError(f"{mutation.what}: its text stands {sound.count(mutation.was)} times in {mutation.file}")
            before = passes(folder, mutation.test)
            path.write_text(sound.replace(mutation.was, mutation.becomes))
            after = passes(folder, mutation.test)
            path.write_text(sound)
            noticed = before and not after
            survived += not noticed
            verdict = "noticed" if noticed else ("SURVIVED" if before else "FAILS WITHOUT IT")
            print(f"{verdict:16}  {mutation.what:34}  {mutation.test}", flush=True)
    print(f"{len(MUTATIONS) - survived} of {len(MUTATIONS)} noticed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
