"""Who may touch which file: capabilities as data, and the one function that decides.

The decision is pure: it sees the path as it was written, never the disk. What the disk adds (links, devices, sizes) is checked by
`actors.files.disk` where the file is opened, so that nothing can change between the look and the use.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from actors.files.globs import ANY, Segment, fits, segment
from actors.files.limits import COMMAND_TIMEOUT_S, FILE_BYTES_MAX
from actors.files.names import Refusal, path_parts
from events.memo import memo

Operation = Literal["read", "write", "delete", "move", "find", "search", "run", "undo", "checkpoint", "restore"]

PROTECTED: Final = (
    "*.env", ".env.*", "*.key", "*.pem", "*.secret", "id_rsa*", "id_ed25519*", "*.p12", "*.pfx", ".netrc", ".npmrc", ".pypirc",
)  # fmt: skip
"""Names that hold secrets, by custom: refused to every agent for reading and writing alike, wherever they lie."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one kind of agent may do. Paths are patterns from the workspace's top: `*` within a name, `**` for any folders."""

    file_write: bool = False
    allowed_paths: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    description: str = ""


class CommandTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program that agents may start, with what they may say to it. It gets no shell, and nothing that is not listed here.

    argv: the program and its fixed arguments; ``python`` is the interpreter that runs Cuebook. options: further ones that a caller may
    choose from; one that ends in ``=`` takes a value behind it. paths: whether the caller may name files of the workspace.
    """

    argv: tuple[str, ...]
    options: tuple[str, ...] = ()
    paths: bool = False
    timeout_s: float = COMMAND_TIMEOUT_S


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The capabilities of all agents of a workspace. An agent that is not named may read and nothing else."""

    agents: dict[str, Grant] = {}
    commands: dict[str, CommandTool] = {}
    protected_files: tuple[str, ...] = PROTECTED
    max_file_bytes: int = FILE_BYTES_MAX


_CODE = tuple(f"**/*.{ending}" for ending in ("py", "js", "ts", "tsx", "jsx", "html", "css", "json", "yaml", "yml", "md"))
_PROJECT = ("**/*.toml", "**/*.sql", "**/*.sh", "**/Dockerfile", "**/docker-compose.yml", "**/.gitignore")
_PLANS = ("config/**", "**/config/**", "docker/**", "docs/architecture/**", "**/docker-compose.yml")

DEFAULT_RULES: Final = Rules(
    agents={
        "codesmith": Grant(file_write=True, allowed_paths=_CODE + _PROJECT),
        "architect": Grant(file_write=True, allowed_paths=_PLANS),
        "fixer": Grant(file_write=True, allowed_paths=_CODE),
        "fixer2": Grant(file_write=True, allowed_paths=_CODE),
        "docs": Grant(file_write=True, allowed_paths=("docs/**", "**/*.md")),
        "performance": Grant(file_write=True, allowed_paths=("performance/**", "benchmarks/**", "profiling/**")),
        "tradestrat": Grant(file_write=True, allowed_paths=("trading/**", "strategies/**", "backtest/**")),
        "video": Grant(file_write=True, allowed_paths=("**/*.json", "**/*.md")),
        "reviewer": Grant(),
        "research": Grant(),
        "orchestrator": Grant(),
        "arbitrator": Grant(),
    }
)
"""The predecessor's table of twelve, its patterns anchored."""


@memo("patterns of paths", 1_024)
def _names_of(pattern: str) -> tuple[Segment, ...]:
    """`pattern` name by name: the same few are asked at every access to a file. `**` is any number of folders, `*` and `?` stay within one
    name."""
    parts = pattern.split("/")
    names: list[Segment] = []
    for number, part in enumerate(parts):
        if part == "**":
            names += [ANY, None] if number == len(parts) - 1 else [None]
        else:
            pieces = part.split("*")
            names.append(segment(["".join("." if one == "?" else re.escape(one) for one in piece) for piece in pieces]))
    return tuple(names)


def matches(path: str, patterns: Sequence[str]) -> bool:
    """`path` as a whole fits one of `patterns`: `backend/**` takes `backend/x.py`, and neither `backendevil/x.py` nor `backend`."""
    names = path.split("/")
    return any(fits(names, _names_of(pattern)) for pattern in patterns)


@memo("paths that hold secrets", 4_096)
def holds_secrets(path: str, protected_files: tuple[str, ...] = PROTECTED) -> bool:
    """A name on the way to `path` is one of those that hold secrets, in any case of letters. No agent reads such a file."""
    wanted = tuple(pattern.casefold() for pattern in protected_files)
    forms = {path, path if path.isascii() else unicodedata.normalize("NFKC", path)}
    return any(matches(part.casefold(), wanted) for form in forms for part in form.split("/"))


def grant_of(agent: str, rules: Rules) -> Grant:
    """What `agent` may do: looked up exactly; who is not there may only read."""
    return rules.agents.get(agent, Grant())


def decide(agent: str, operation: Operation, path: str, rules: Rules) -> Refusal | None:
    """Whether `agent` may read, write or delete `path`; None = yes."""
    parts = path_parts(path)
    if isinstance(parts, Refusal):
        return parts
    if holds_secrets(path, rules.protected_files):
        return Refusal(rule="protected", reason=f"{path!r} has a name that holds secrets")
    if operation == "read":
        return None
    grant = grant_of(agent, rules)
    if not grant.file_write:
        return Refusal(rule="not_granted", reason=f"{agent or 'an unnamed caller'} may not write files")
    if not matches(path, grant.allowed_paths):
        return Refusal(rule="outside_grant", reason=f"{agent} may not write {path!r}: its paths are {', '.join(grant.allowed_paths)}")
    return None


def too_large(size: int, rules: Rules) -> Refusal | None:
    if size > rules.max_file_bytes:
        return Refusal(rule="too_large", reason=f"{size:,} bytes; at most {rules.max_file_bytes:,} are allowed")
    return None


def command_line(agent: str, name: str, arguments: Sequence[str], rules: Rules) -> list[str] | Refusal:
    """What to start when `agent` asks for the command `name`: the tool's own words, then what the caller may add.

    An argument is an option from the tool's list or the path of a file in the workspace, which is handed on as ``./path``: whatever it is
    called, no program can take it for an option.
    """
    tool = rules.commands.get(name)
    if tool is None:
        declared = ", ".join(sorted(rules.commands)) or "none is declared"
        return Refusal(rule="unknown_command", reason=f"there is no command {name!r}: {declared}")
    if name not in grant_of(agent, rules).commands:
        return Refusal(rule="not_granted", reason=f"{agent or 'an unnamed caller'} may not run {name!r}")
    words = list(tool.argv)
    for argument in arguments:
        if argument.startswith("-"):
            option, equals, value = argument.partition("=")
            known = argument in tool.options or (equals and f"{option}=" in tool.options)
            if not known or any(ord(character) < 32 for character in value):
                return Refusal(rule="argument", reason=f"{name} takes no option {argument!r}: {', '.join(tool.options) or 'none'}")
            words.append(argument)
            continue
        if not tool.paths:
            return Refusal(rule="argument", reason=f"{name} takes no paths: {argument!r}")
        parts = path_parts(argument)
        if isinstance(parts, Refusal):
            return parts
        if holds_secrets(argument, rules.protected_files):
            return Refusal(rule="protected", reason=f"{argument!r} has a name that holds secrets")
        words.append(f"./{argument}")
    return words
