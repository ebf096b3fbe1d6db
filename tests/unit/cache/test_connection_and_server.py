"""How a process reaches the cache's server: its secrets, its socket, the server itself, and the verbs about it (S37)."""

import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import redis

from events.log_directory import create_log
from ops.cache_connection import cache_place, make_secrets, socket_path, without_password
from ops.cache_health import clear, findings, report
from ops.cache_server import CacheServer
from ops.exits import CommandError, StartError
from ops.settings import Settings
from projections.cache.values import ROOT


def test_processes_that_start_at_once_get_the_same_secrets(tmp_path: Path) -> None:
    """Also where a file that nobody can read is in the way."""
    for attempt in range(20):
        settings = Settings(data=tmp_path / str(attempt))
        if attempt % 2:
            (tmp_path / str(attempt) / "cache").mkdir(parents=True)
            (tmp_path / str(attempt) / "cache" / "credentials.json").write_text("{")
        with ThreadPoolExecutor(8) as threads:
            made = list(threads.map(make_secrets, [settings] * 8))
        folder = tmp_path / str(attempt) / "cache"
        assert make_secrets(settings) in made
        if not attempt % 2:
            assert len({each.seal for each in made}) == 1
        assert [path.name for path in folder.iterdir()] == ["credentials.json"], "no draft is left"
        assert stat.S_IMODE((folder / "credentials.json").stat().st_mode) == 0o600


def test_a_socket_name_that_is_too_long_is_replaced_by_a_private_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    short = Path("/d")
    assert socket_path(short) == Path("/d/cache/valkey.sock")
    one, other = (socket_path(tmp_path / (letter * 120)) for letter in "ab")
    assert one != other
    assert len(os.fsencode(one)) < 108
    assert stat.S_IMODE(one.parent.stat().st_mode) == 0o700
    one.parent.chmod(0o777)
    with pytest.raises(StartError, match="not a folder of yours alone"):
        socket_path(tmp_path / ("a" * 120))
    other.parent.rmdir()
    other.parent.symlink_to(tmp_path)
    with pytest.raises(StartError, match="not a folder of yours alone"):
        socket_path(tmp_path / ("b" * 120))


def test_a_url_is_shown_without_its_secrets() -> None:
    assert without_password("redis://me:secret@host:6379/1?password=secret") == "redis://host:6379/1"


async def test_the_embedded_server_takes_its_one_user_for_our_names_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a folder whose name needs quoting; it listens on no port."""
    settings = Settings(data=tmp_path_factory.mktemp('c') / 'a "b" ü')
    secrets = make_secrets(settings)
    async with CacheServer(settings) as server:
        assert server.statistics().starts == 1
        client = redis.Redis(
            unix_socket_path=str(socket_path(Path(settings.data))), username="cuebook", password=secrets.password, protocol=2
        )  # fmt: skip
        assert client.set(f"{ROOT}:x", "1") is True
        for refused in (("SET", "other", "1"), ("GET", f"{ROOT}:x"), ("EVAL", "return 1", "0"), ("CONFIG", "GET", "port"), ("FLUSHALL",)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*refused)  # type: ignore[no-untyped-call]
        client.close()
        nobody = redis.Redis(unix_socket_path=str(socket_path(Path(settings.data))), protocol=2)
        with pytest.raises(redis.exceptions.AuthenticationError):
            nobody.ping()
        nobody.close()
    assert server.statistics().pid is None
    assert not socket_path(Path(settings.data)).exists()


async def test_health_says_what_there_is_and_clearing_needs_a_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(data=tmp_path_factory.mktemp("h") / "d")
    assert (await report(settings)).mode == "off: no deployment has run here with it"
    assert (await report(Settings(data=settings.data, cache="off"))).mode == "off: by its settings"
    with pytest.raises(CommandError, match="no cache to clear"):
        await clear(settings)
    make_secrets(settings)
    create_log(Path(settings.data) / "log", 1)
    assert "does not answer" in (await report(settings)).mode
    (embedded,) = await findings(settings)
    assert embedded.ok, "it is never needed"
    (outside,) = await findings(msgspec.structs.replace(settings, redis_url="unix:///nowhere/x.sock"))
    assert not outside.ok, "an outside one was wanted"
    with pytest.raises(CommandError, match="does not answer"):
        await clear(settings)
    async with CacheServer(settings):
        found = await report(settings)
        assert (found.entries, found.namespaces, found.mode) == (0, [], cache_place(settings).shown)
        assert found.version is not None
        assert await clear(settings) == 0
