"""Scenario 16: path tricks, secrets and large files are refused, each with an event; what is allowed has a backup and an audit
event, and is rolled back byte for byte."""

import hashlib
import json
from pathlib import Path
from typing import Any

from actors.workspace_id import workspace_id
from runtime.client import Client
from tests.support.deployment import Deployment, run_cuebook

RULES: dict[str, Any] = {
    "agents": {
        "fixer": {"file_write": True, "allowed_paths": ["backend/**/*.py", "extension/**/*.ts", "**/docker-compose.yml", "**/*.txt"]},
        "architect": {"file_write": True, "allowed_paths": ["**/config/**"]},
    }
}  # fmt: skip
DENIED = (
    ("backendevil/x.py", "outside_grant"), ("../../etc/x.ts", "outside_workspace"), ("docker-compose.yml.bak", "outside_grant"),
    ("backend/.env", "protected"), ("prod.env", "protected"), ("backend/server.pem", "protected"), ("/etc/passwd", "outside_workspace"),
    (".git/config", "protected"), ("backend/CON.py", "not_a_file"),
)  # fmt: skip


async def test_s16_capabilities(cue: Client, crew: Deployment, tmp_path: Path) -> None:
    root = tmp_path / "work"
    (root / "backend").mkdir(parents=True)
    old = b"line one\r\nline two without an end \xc3\xa4"
    (root / "backend" / "a.py").write_bytes(old)
    (root / "large.txt").write_bytes(b"x" * (11 * 1024 * 1024))
    (root / "backend" / "way.py").symlink_to("/etc/hostname")
    workspace = workspace_id(root.resolve())
    files = cue.ref("files", workspace, timeout_s=30)
    await files.ask("open", root=str(root), rules=RULES)

    for path, rule in DENIED:
        reply = await files.ask("write", path=path, content="evil", agent="fixer")
        assert (reply["type"], reply["rule"]) == ("refused", rule), (path, reply)
    large = await files.ask("edit", path="large.txt", edits=[], agent="fixer")
    assert (large["type"], large["rule"]) == ("refused", "too_large")
    linked = await files.ask("write", path="backend/way.py", content="evil", agent="fixer")
    assert linked["type"] == "refused"
    reader = await files.ask("write", path="backend/b.py", content="evil", agent="reviewer")
    assert (reader["type"], reader["rule"]) == ("refused", "not_granted")
    assert not (tmp_path / "backendevil").exists()
    assert {path.name for path in root.iterdir()} - {".git", ".gitignore"} <= {"backend", "large.txt", ".cuebook"}

    made = await files.ask("write", path="backend/config/a.yaml", content="a: 1\n", agent="architect")
    assert made["type"] == "changed"
    changed = await files.ask("write", path="backend/a.py", content="new = 1\n", agent="fixer")
    assert (root / "backend" / "a.py").read_text() == "new = 1\n"
    assert changed["change"]["before"]["sha256"] == hashlib.sha256(old).hexdigest()
    kept = [path for path in (root / ".cuebook").rglob("*") if path.is_file() and path.read_bytes() == old]
    assert [path.name for path in kept] == [hashlib.sha256(old).hexdigest()], "the backup"
    assert await files.ask("undo", to=0) == ["backend/a.py", "backend/config/a.yaml"]
    assert (root / "backend" / "a.py").read_bytes() == old
    assert not (root / "backend" / "config" / "a.yaml").exists()

    shown = run_cuebook("log", f"actor:files/{workspace}", "-n", "0", "--json", "--data", str(crew.data))
    types = [json.loads(line)["type"] for line in shown.stdout.splitlines()]
    assert types.count("files.access_denied") == len(DENIED) + 3
    assert (types.count("files.written"), types.count("files.changes_undone")) == (2, 1)
