"""Log lines: one file per role, JSON, ids of the turn bound, secrets blanked. In a process of its own, as in life."""

import json
import subprocess
import sys
from pathlib import Path

WRITE = """
import logging, sys
from pathlib import Path
import structlog
from ops import log_setup
log_setup.configure("worker-1", data=Path(sys.argv[1]), level="info", console=True)
log = structlog.get_logger("t")
with log_setup.bound_ids(correlation_id="c1", command_id="d1"):
    log.info("appended", version=3, password="hush", url="nats://u:hush@h:1")
log.debug("unseen")
logging.getLogger("nats").warning("slow %s", "consumer")
def fails(options):
    local = "hush in a local variable"
    raise ValueError("bad")
try:
    fails({"password": "hush"})
except ValueError:
    log.exception("failed")
"""


def test_lines_are_json_with_ids_and_without_secrets(tmp_data: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRITE, str(tmp_data)], capture_output=True, text=True, check=True, timeout=30)
    text = (tmp_data / "logs" / "worker-1.log").read_text()
    appended, slow, failed = [json.loads(line) for line in text.splitlines()]
    assert (appended["event"], appended["version"], appended["level"], appended["role"]) == (
        "appended",
        3,
        "info",
        "worker-1",
    )
    assert (appended["correlation_id"], appended["command_id"]) == ("c1", "d1")
    assert (slow["event"], slow["logger"], slow["role"]) == ("slow consumer", "nats", "worker-1")
    assert "command_id" not in slow
    assert failed["exception"][0]["exc_type"] == "ValueError"
    assert "hush" not in text + done.stderr
    assert "appended" in done.stderr
