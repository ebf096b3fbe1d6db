"""Scenario 17: each of four providers fails five times; its breaker opens, calls fail at once with a typed error, the others work, it is
open after a restart, one trial closes it; what is refused for good is not tried again; no key is in the log."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")

from runtime.client import Client, connect
from tests.support.deployment import Deployment, run_cuebook
from tests.support.scripted_model import Say, ScriptedModel

KINDS = ("openai", "anthropic", "perplexity", "claude_code")
SECRET = "sk-canary-8251"
CLAUDE = """#!{python}
import json, os, sys, urllib.request
body = json.dumps({{"model": "m", "max_tokens": 9, "messages": [{{"role": "user", "content": sys.stdin.read()}}]}}).encode()
request = urllib.request.Request(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", body, {{"content-type": "application/json"}})
try:
    with urllib.request.urlopen(request) as reply:
        said = json.load(reply)
    text = said["content"][0]["text"]
    used = {{"m": {{"inputTokens": 10, "outputTokens": 5}}}}
    print(json.dumps({{"type": "result", "is_error": False, "result": text, "modelUsage": used}}))
except urllib.error.HTTPError as error:
    print(json.dumps({{"type": "result", "is_error": True, "api_error_status": error.code, "result": "scripted"}}))
    sys.exit(1)
"""


def settings(folder: Path, servers: dict[str, ScriptedModel]) -> None:
    """cuebook.toml of the deployment: four providers, each at its own server."""
    tables = []
    for kind, server in servers.items():
        url = f"{server.url}/v1" if kind == "openai" else server.url
        tables.append(f'[models.{kind}]\nkind = "{kind}"\nmodel = "m"\nbase_url = "{url}"\napi_key = "env:THE_KEY"\nattempts = 5\n')
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cuebook.toml").write_text("\n".join(tables))


def program(folder: Path) -> None:
    """A `claude` on the search path, which asks the same server: the real one is not on every machine."""
    place = folder / "claude"
    place.write_text(CLAUDE.format(python=sys.executable))
    place.chmod(0o755)


async def ask(cue: Client, kind: str, text: str, **more: Any) -> str:
    said: str = await cue.ref("asker", kind, timeout_s=180).ask("ask", text=text, model=kind, **more)
    return said


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_nats_program")
async def test_s17_breakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    servers = {kind: ScriptedModel(*[Say(status=503)] * 5, Say(text="I am back", tokens=(10, 5))) for kind in KINDS}
    servers["claude_code"].script.insert(0, Say(text="I work"))
    for server in servers.values():
        await server.__aenter__()
    settings(tmp_path / "data", servers)
    try:
        with Deployment(tmp_path / "data", app="tests.support.asking:app", environment={"THE_KEY": SECRET}) as deployment:
            deployment.wait_balanced()
            async with connect(deployment.nats_url) as cue:
                failed = await asyncio.gather(*(ask(cue, kind, "1", deadline_s=60.0) for kind in KINDS[:3]))
                opened_at = time.monotonic()
                assert failed == ["ModelUnavailable http_503"] * 3
                assert [len(servers[kind].ledger) for kind in KINDS[:3]] == [5, 5, 5]
                at_once = await asyncio.gather(*(ask(cue, kind, "2") for kind in KINDS[:3]))
                assert at_once == ["ModelUnavailable open"] * 3
                assert [len(servers[kind].ledger) for kind in KINDS[:3]] == [5, 5, 5]
                # The fourth has failed nobody yet: it works, whatever became of the others. Then it fails as well.
                assert await ask(cue, "claude_code", "0") == "I work"
                assert await ask(cue, "claude_code", "1", deadline_s=60.0) == "ModelUnavailable http_503"
                assert (await cue.ref("provider", "claude_code").ask("health"))["breaker"] == "open"
            deployment.stop()
            deployment.start()
            deployment.wait_balanced()
            async with connect(deployment.nats_url) as cue:
                assert (await cue.ref("provider", "openai").ask("health"))["breaker"] == "open"
                assert time.monotonic() - opened_at < 50, "too slow a machine to see an open breaker after a restart"
                assert await ask(cue, "openai", "3", deadline_s=2.0) == "ModelUnavailable open"
                answers = await asyncio.gather(*(ask(cue, kind, "4", deadline_s=120.0) for kind in KINDS))
                assert answers == ["I am back"] * 4
                health = [await cue.ref("provider", kind).ask("health") for kind in KINDS]
                assert [found["breaker"] for found in health] == ["closed"] * 4
                assert [found["total"]["calls"] for found in health] == [1, 1, 1, 2]
                assert [found["failures"] for found in health] == [{"http_503": 5}] * 4
                servers["openai"].script = [Say(status=401)]
                before = len(servers["openai"].ledger)
                assert await ask(cue, "openai", "5") == "ModelRefused http_401"
                assert len(servers["openai"].ledger) == before + 1
        keys = {entry.key for entry in servers["openai"].ledger}
        assert len(keys) == 3, "five attempts of the first call, the answered one, the refused one"
        data = str(tmp_path / "data")
        life = run_cuebook("log", "actor:provider/openai", "type:provider.breaker_*", "-n", "0", "--json", "--data", data)
        assert [json.loads(line)["type"] for line in life.stdout.splitlines()] == [
            "provider.breaker_opened", "provider.breaker_tried", "provider.breaker_closed",
        ]  # fmt: skip
        for place in (tmp_path / "data").rglob("*"):
            if place.is_file() and not place.is_socket():
                assert SECRET.encode() not in place.read_bytes(), place
    finally:
        for server in servers.values():
            await server.__aexit__()
