"""``pytest --cuebook-log PATH --cuebook-app MODULE:OBJECT``: would the code that is checked out still read what was recorded?

Every stream of the log becomes one test that folds it through this code and compares with the recorded state hashes and the snapshot, as
``cuebook replay --verify --app`` does (S32, S34). PATH is a deployment's folder, the log's own folder, or an export, for example a bug
report. Nothing is executed but `apply`, in a trap; nothing is written beside a temporary folder for an export.

Loaded by pytest through its entry point, also where nobody asks for it: nothing of ours but this file is imported until the options are.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from actors.registry import Registry
    from events.store import LogReader
    from runtime.past.inspection import StateCheck

_NAME = "cuebook-gate"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cuebook", "recorded logs against the checked-out code")
    group.addoption(
        "--cuebook-log", metavar="PATH", default=None, help="a recorded log: a deployment's folder, its log folder, or a .jsonl export"
    )
    group.addoption("--cuebook-app", metavar="MODULE:OBJECT", default=None, help="the app whose code has to read it")


def pytest_configure(config: pytest.Config) -> None:
    log, app = config.getoption("--cuebook-log"), config.getoption("--cuebook-app")
    if log is None and app is None:
        return
    if log is None or app is None:
        raise pytest.UsageError("--cuebook-log and --cuebook-app go together: a recorded log, and the code that has to read it")
    config.pluginmanager.register(_Gate(Path(log), str(app)), _NAME)


class _Gate:
    """Adds one test per stream to the session, behind all others."""

    def __init__(self, log: Path, app: str) -> None:
        self._log = log
        self._app = app
        self._imported: tempfile.TemporaryDirectory[str] | None = None
        self._recorded: _Recorded | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
        registry = self._load_app()
        self._recorded = _Recorded(self._log_folder(), registry)
        root = _Log.from_parent(session, name=f"cuebook-log {self._log}", recorded=self._recorded)
        added = list(root.collect())
        items.extend(added)

    def pytest_sessionfinish(self) -> None:
        if self._recorded is not None:
            self._recorded.close()
        if self._imported is not None:
            self._imported.cleanup()

    def _load_app(self) -> "Registry":
        from ops.exits import CommandError
        from ops.worker import load_app

        try:
            return load_app(self._app).registry
        except CommandError as error:
            raise pytest.UsageError(f"--cuebook-app {self._app}: {error.what}") from error

    def _log_folder(self) -> Path:
        from events.errors import CuebookError
        from events.keeping.export_import import import_log

        for folder in (self._log, self._log / "log"):
            if (folder / "log.json").is_file():
                return folder
        if not self._log.is_file():
            raise pytest.UsageError(f"--cuebook-log {self._log}: neither a log nor an export of one")
        self._imported = tempfile.TemporaryDirectory(prefix="cuebook-gate-")
        folder = Path(self._imported.name) / "log"
        try:
            import_log(self._log, folder)
        except CuebookError as error:
            raise pytest.UsageError(f"--cuebook-log {self._log}: {error.message}") from error
        return folder


class _Recorded:
    """The log, open for the whole session, with a loop of its own: pytest runs its items without one."""

    def __init__(self, folder: Path, registry: "Registry") -> None:
        from events.sqlite.reader_sqlite import SqliteLogReader

        self.folder = folder
        self._registry = registry
        self._runner = asyncio.Runner()
        self._reader: LogReader = self._runner.run(SqliteLogReader.open(folder))

    def streams(self) -> list[str]:
        from runtime.past.inspection import streams

        async def names() -> list[str]:
            return [info.stream async for info in streams(self._reader)]

        return self._runner.run(names())

    def check(self, stream: str) -> "StateCheck":
        from events.ids import StreamId
        from runtime.past.inspection import verify_state

        return self._runner.run(verify_state(self._reader, self._registry, StreamId(stream), gate=True))

    def close(self) -> None:
        self._runner.run(self._reader.close())
        self._runner.close()


class _Log(pytest.Collector):
    """The log as a collector: its items are its streams."""

    def __init__(self, *, recorded: _Recorded, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._recorded = recorded

    def collect(self) -> "Iterator[_Stream]":
        for stream in self._recorded.streams():
            yield _Stream.from_parent(self, name=stream, recorded=self._recorded)


class _DiffersError(Exception):
    """The fold of a stream does not lead to what was recorded."""


class _Stream(pytest.Item):
    def __init__(self, *, recorded: _Recorded, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._recorded = recorded

    def runtest(self) -> None:
        check = self._recorded.check(self.name)
        found = check.difference
        problems = []
        if found is not None:
            problems.append(f"version {found.version}: {found.what} expected {found.expected}, found {found.found}")
        # The gate names an open turn that cannot go on as the difference; where the fold itself differs it stands here.
        problems += [
            f"version {turn.version}: the turn {turn.method} ({turn.command_id}) is open: {turn.problem}"
            for turn in check.open_turns
            if turn.problem and (found is None or found.what != "turn")
        ]
        if problems:
            raise _DiffersError("\n".join(problems))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, _DiffersError):
            return f"{self.name} is not read as it was recorded:\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self._recorded.folder, None, f"{self.name} replayed through the checked-out code"
