"""Claude Code as a program that misbehaves: whatever it prints, keeps open or ignores, a call ends in time with a typed outcome, and
nothing of it is left. What it is asked is text, whatever that looks like."""

import asyncio
import json
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from actors.models import claude_code
from actors.models.claude_code import ClaudeCodeClient
from actors.models.limits import ProviderLimits
from actors.models.records import Answer, Failure, Message, Request
from actors.models.registry import Configured, ProviderRegistry
from ops.models import limits_of
from ops.settings import ModelSettings
from runtime.tasks import Tasks
from tests.support.pids import gone, until
from tests.unit.models.test_claude_code import ASKED, PRINTED, ask, failed, printing, program

RESULT = PRINTED[-1]
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


def client(place: str, **more: Any) -> ClaudeCodeClient:
    return ClaudeCodeClient("claude", more.pop("model", "sonnet"), program=place, **more)


async def failure(place: str, **more: Any) -> Failure:
    ended, _ = await ask(client(place, **more))
    assert isinstance(ended, Failure), ended
    return ended


async def test_the_timeout_of_the_settings_ends_the_whole_group(tmp_path: Path) -> None:
    """Also who ignores the polite signal, and who has left the session."""
    pids = tmp_path / "pids"
    body = f"""{STUBBORN}
import subprocess
held = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
others = [subprocess.Popen([sys.executable, "-c", held], start_new_session=far) for far in (False, True)]
open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{others[0].pid}} {{others[1].pid}}\\n")
time.sleep(600)
"""
    limits = limits_of(ModelSettings(kind="claude_code", model="sonnet", timeout_s=3.0))
    tasks = Tasks()
    registry = ProviderRegistry({"claude": Configured(client=client(program(tmp_path, body)), limits=limits)}, tasks.spawn)
    begun = time.monotonic()
    ended = await registry.call("claude", ASKED, "key", lambda _: None)
    took = time.monotonic() - begun
    assert isinstance(ended, Failure)
    assert (ended.kind, ended.code, ended.message) == ("transient", "timeout", "no answer within 3 s")
    assert 3.0 <= took < 15.0
    pid, near, far = (await until(pids)).split()
    assert await gone(int(pid))
    assert await gone(int(near))
    if sys.platform == "linux":
        assert await gone(int(far))
    await registry.close()
    await tasks.cancel_all()


async def test_what_it_used_up_is_counted_and_priced_also_when_it_fails(tmp_path: Path) -> None:
    """The result counts; without one what the stream said until then."""
    limits = ProviderLimits(usd_per_million_input=1.0, usd_per_million_output=10.0)
    usage = {"input_tokens": 100, "output_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": None}
    cut = [
        {"type": "stream_event", "event": {"type": "message_start", "message": {"usage": usage}}},
        {"type": "stream_event", "event": {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 7}}},
    ]
    for lines, code, tokens in (
        (PRINTED, "", (12, 4)),
        ([*PRINTED[:-1], {**RESULT, "is_error": True}], "program", (12, 4)),
        (cut, "cut", (120, 7)),
    ):
        tasks = Tasks()
        registry = ProviderRegistry({"claude": Configured(client=client(printing(tmp_path, lines)), limits=limits)}, tasks.spawn)
        ended = await registry.call("claude", ASKED, "key", lambda _: None)
        assert (ended.code if isinstance(ended, Failure) else "") == code
        assert (ended.usage.input_tokens, ended.usage.output_tokens) == tokens
        assert ended.usage.cost_micro_usd == tokens[0] + 10 * tokens[1]
        await tasks.cancel_all()


@pytest.mark.timeout(40)
@pytest.mark.parametrize(
    "body",
    [
        "while True: sys.stdout.write('x' * (1 << 20))",
        "sys.stdout.write(json.dumps({'type': 'result', 'result': 'x' * (17 << 20)}) + '\\n')\nsys.stdout.flush()\ntime.sleep(600)",
        "line = json.dumps({'type': 'system', 'pad': 'x' * (1 << 20)}) + '\\n'\nwhile True: sys.stdout.write(line)",
    ],
    ids=["a line without an end", "a result of 17 MiB", "lines without an end"],
)
async def test_more_than_any_answer_is_a_typed_failure_in_bounded_memory(tmp_path: Path, body: str) -> None:
    tracemalloc.start()
    try:
        ended = await failure(program(tmp_path, body))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (ended.kind, ended.code) == ("transient", "too_large")
    assert peak < 6 * claude_code.LINE_BYTES_MAX


GARBAGE = [
    '"just text"', "[1, 2, 3]", "{", '{"type": "result", "result": 5}', '{"type": "result", "is_error": "no", "result": "x"}',
    '{"type": "result", "result": "cut of', '{"type": "stream_event", "event": [1]}',
    '{"type": "result", "modelUsage": [1], "result": "x"}', '{"type": "result", "modelUsage": {"m": {"inputTokens": "many"}}}',
    "[" * 100_000, '{"type": "result", "result": "\\ud800"}',
]  # fmt: skip


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_is_a_typed_failure(tmp_path: Path, line: str) -> None:
    for end in ("\n", ""):
        place = program(tmp_path, f"sys.stdout.buffer.write({(line + end).encode()!r})")
        ended = await failure(place)
        assert (ended.kind, ended.code) == ("transient", "garbage")


async def test_garbage_between_the_lines_costs_no_answer(tmp_path: Path) -> None:
    body = f"""
sys.stdout.buffer.write(b"(node:1) Warning: x\\n\\xff\\xfe\\n\\n[]\\n")
for line in {PRINTED!r}: print(json.dumps(line), flush=True)
print("after the result: {{")
"""
    ended, said = await ask(client(program(tmp_path, body)))
    assert isinstance(ended, Answer)
    assert "".join(said) == "The sky is blue"


@pytest.mark.parametrize("how", ["sys.exit(3)", "os.kill(os.getpid(), 9)"])
async def test_a_result_of_a_program_that_then_fails_is_none(tmp_path: Path, how: str) -> None:
    ended = await failure(
        program(tmp_path, f"print(json.dumps({RESULT!r}), flush=True)\nprint('it broke', file=sys.stderr, flush=True)\n{how}")
    )
    assert (ended.kind, ended.code) == ("transient", "exit")
    assert ("3" if "exit" in how else "-9") in ended.message
    assert ended.usage.input_tokens == 12, "paid for all the same"


@pytest.mark.timeout(30)
async def test_a_flood_of_complaints_holds_nothing_up_and_its_end_is_told(tmp_path: Path) -> None:
    flood = "for _ in range(200): sys.stderr.write('x' * 65_536)\nsys.stderr.write('\\nthe reason')\nsys.stderr.flush()\n"
    ended, _ = await ask(client(program(tmp_path, f"{flood}print(json.dumps({RESULT!r}), flush=True)")))
    assert isinstance(ended, Answer)
    cut = await failure(program(tmp_path, f"{flood}sys.exit(1)"))
    assert cut.code == "cut"
    assert cut.message.endswith("the reason")
    assert len(cut.message) <= 500


@pytest.mark.timeout(30)
async def test_a_result_without_an_end_of_line_counts_though_somebody_holds_the_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claude_code, "_LAST_WORDS_S", 0.3)
    body = f"""
import subprocess
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
sys.stdout.write(json.dumps({RESULT!r}))
"""
    ended, _ = await ask(client(program(tmp_path, body)))
    assert isinstance(ended, Answer)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "after",
    [
        f"{STUBBORN}time.sleep(600)",
        "import subprocess\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)",
        "while True: print('x' * 100_000, flush=True)",
        "os.close(1)\ntime.sleep(600)",
    ],
    ids=["does not end", "leaves somebody with its pipe", "goes on talking", "closes its output"],
)
async def test_a_result_counts_whatever_the_program_does_after_it(tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude_code, "_LAST_WORDS_S", 0.3)
    pids = tmp_path / "pids"
    start = f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}}\\n')\nprint(json.dumps({RESULT!r}), flush=True)\n"
    ended, _ = await ask(client(program(tmp_path, start + after)))
    assert isinstance(ended, Answer)
    assert ended.text == "The sky is blue"
    assert await gone(int(pids.read_text()))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("answers", [True, False])
async def test_a_question_that_nobody_reads_holds_nothing_up(tmp_path: Path, answers: bool) -> None:
    """Five megabytes do not fit into the pipe."""
    huge = Request(messages=(Message(role="user", content="x" * 5_000_000),))
    place = printing(tmp_path, [RESULT] if answers else [])
    ended, _ = await ask(client(place), huge)
    assert isinstance(ended, Answer if answers else Failure)


SHOWN = """
seen = {"args": sys.argv[1:], "stdin": sys.stdin.buffer.read().decode(), "cwd": os.listdir(".")}
seen["system"] = open(sys.argv[sys.argv.index("--system-prompt-file") + 1]).read()
seen["mode"] = os.stat(os.path.dirname(os.getcwd())).st_mode & 0o777
places = [f"{where}/{name}" for where, _, names in os.walk("..") for name in names]
seen["key_in_files"] = [place for place in places if "sk-1" in open(place).read()]
seen["env"] = dict(os.environ)
print(json.dumps({"type": "result", "result": json.dumps(seen)}))
"""
TEXTS = [
    "-", "--help", "-p --dangerously-skip-permissions", "a\0b", "@/etc/passwd", "$(id) `id` ; id", "\u202e\U0001f600", " ", "\n",
    "x" * 2_000_000,
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_whatever_is_asked_goes_in_as_text_and_never_as_an_argument(tmp_path: Path, text: str) -> None:
    request = Request(messages=(Message(role="system", content=f"be {text}"), Message(role="user", content=text)))
    ended, _ = await ask(client(program(tmp_path, SHOWN), api_key=lambda: "sk-1"), request)
    assert isinstance(ended, Answer), ended
    seen = json.loads(ended.text)
    assert seen["stdin"] == text
    assert seen["system"] == f"be {text}"
    assert len(json.dumps(seen["args"])) < 500
    assert (seen["mode"], seen["cwd"], seen["key_in_files"]) == (0o700, [], [])
    assert "sk-1" not in str(seen["args"])
    assert seen["env"]["CLAUDE_CODE_DISABLE_ATTACHMENTS"] == "1", "or @/etc/passwd would be read"
    assert not list(Path(seen["args"][-1]).parents[0].glob("*")), "nothing is left of it"


async def test_a_slash_is_no_command_of_the_program(tmp_path: Path) -> None:
    request = Request(messages=(Message(role="user", content=" /clear all"),))
    ended, _ = await ask(client(program(tmp_path, SHOWN)), request)
    assert isinstance(ended, Answer)
    assert json.loads(ended.text)["stdin"] == "User:  /clear all"


@pytest.mark.parametrize("model", ["--dangerously-skip-permissions", "-p", "a b", "$(id)"])
async def test_a_model_is_never_an_option(tmp_path: Path, model: str) -> None:
    ended, _ = await ask(client(program(tmp_path, SHOWN), model=model))
    assert isinstance(ended, Answer)
    args = json.loads(ended.text)["args"]
    assert f"--model={model}" in args
    assert model not in args[1:]


async def test_a_model_that_cannot_be_said_is_a_typed_failure(tmp_path: Path) -> None:
    ended = await failure(printing(tmp_path, PRINTED), model="a\0b")
    assert (ended.kind, ended.code) == ("permanent", "not_started")


async def test_a_key_that_the_program_repeats_is_not_told(tmp_path: Path) -> None:
    said = printing(tmp_path, failed(401, "Invalid API key sk-canary-1: no"))
    assert (await failure(said, api_key=lambda: "sk-canary-1")).message == "Invalid API key ***: no"
    complained = program(tmp_path, "sys.exit('cannot use ' + os.environ['ANTHROPIC_API_KEY'])")
    ended = await failure(complained, api_key=lambda: "sk-canary-1")
    assert "canary" not in ended.message
    assert "cannot use ***" in ended.message


async def test_nothing_that_changes_what_programs_do_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD", "GIT_DIR", "NODE_OPTIONS", "PYTHONPATH", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "CUEBOOK_TOKEN"):
        monkeypatch.setenv(name, "" if name == "LD_PRELOAD" else "canary")
    monkeypatch.setenv("PATH", f".:relative:{sys.prefix}/bin")
    ended, _ = await ask(client(program(tmp_path, SHOWN)))
    assert isinstance(ended, Answer)
    environment = json.loads(ended.text)["env"]
    assert "canary" not in str(environment)
    assert "LD_PRELOAD" not in environment
    assert environment["PATH"] == f"{sys.prefix}/bin", "a relative folder would be one of the folder that it is started in"


async def test_a_program_of_the_current_folder_is_not_taken_for_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printing(tmp_path, PRINTED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".:{sys.prefix}/bin")
    assert (await failure("claude")).code == "not_installed"


async def test_many_calls_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    place = printing(tmp_path, PRINTED)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(ask(client(place))) for _ in range(5)]
    assert all(isinstance(call.result()[0], Answer) for call in calls)
    assert list((tmp_path / "tmp").iterdir()) == []
