"""Actor types from a TOML file.

The file says what an agent is called, what it is told, which model it asks, and what it may do - from what this program has: a tool is
chosen by its name from `actors.agents.tools`, and nothing is imported because a file says so.
"""

import re
import tomllib
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.agents.agent import ROUNDS_MAX, Declaration, DeclaredAgent
from actors.agents.tools import TOOLS
from actors.files.rules import DEFAULT_RULES, Grant, Rules
from events.errors import ConfigurationError
from events.ids import is_token

_FIELD: Final = re.compile(r"unknown field `(?P<unknown>\w+)`|missing required field `(?P<missing>\w+)`|at `\$\.(?P<path>[\w.]+)")


class AgentFileError(ConfigurationError):
    """A file of agents does not fit; says the file, the line where known, the field, and what is allowed."""


def agents_from(path: str | Path) -> list[type[DeclaredAgent]]:
    """The actor types of the agents that the file declares, for ``App(actors=[...])``.

    Raises:
        AgentFileError: it cannot be read, or something in it is not allowed.
    """
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise AgentFileError(f"{place}: {error}") from error
    file = _File(place, text)
    for key in content:
        if key != "agents":
            raise file.error(None, key, "unknown; a file of agents has tables [agents.NAME] only")
    tables = content.get("agents")
    if not isinstance(tables, dict) or not tables:
        raise file.error(None, "agents", "there is no table [agents.NAME]")
    return [_agent(file, name, table) for name, table in tables.items()]


def rules_for(agents: Iterable[type[DeclaredAgent]], rules: Rules = DEFAULT_RULES) -> Rules:
    """`rules` with what the files of these agents grant them: for `actors.files.files_with`, or ``files/WORKSPACE open`` from outside."""
    declared = {str(agent.__actor_name__): agent.declared.capabilities for agent in agents}
    return msgspec.structs.replace(rules, agents={**rules.agents, **declared})


class _File:
    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def error(self, agent: str | None, field: str, why: str) -> AgentFileError:
        """The error for a field like ``capabilities.file_write`` of an agent."""
        line = self._line(agent, field)
        where = f"{self._path}:{line}" if line else str(self._path)
        name = ".".join(part for part in ("agents" if agent is not None else "", agent or "", field) if part)
        return AgentFileError(f"{where}: {name}: {why}")

    def _line(self, agent: str | None, field: str) -> int | None:
        """The line of the field, else of its table; None if neither stands there as usual (an inline table, say)."""
        *inner, key = field.split(".")
        table = ".".join(part for part in ("agents" if agent is not None else "", agent or "", *inner) if part)
        found, current = None, ""
        for number, line in enumerate(self._lines, 1):
            if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
                current = header[1].replace('"', "").replace(" ", "")
                if current in (table, f"{table}.{key}"):
                    found = number if found is None or current != table else found
            elif current == table and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[.=]""", line):
                return number
        return found


def _agent(file: _File, name: str, table: Any) -> type[DeclaredAgent]:
    if not is_token(name):
        raise file.error(name, "", "a name has 1 to 64 letters, digits, '_' or '-'")
    try:
        declared = msgspec.convert(table, Declaration)
    except msgspec.ValidationError as error:
        raise _misfit(file, name, str(error)) from error
    if not declared.model.strip():
        raise file.error(name, "model", "empty; name a table [models.NAME] of the settings")
    if not 1 <= declared.rounds <= ROUNDS_MAX:
        raise file.error(name, "rounds", f"{declared.rounds} is not 1 to {ROUNDS_MAX}")
    for position, tool in enumerate(declared.tools):
        if tool not in TOOLS:
            raise file.error(name, "tools", f"there is no tool {tool!r}; allowed: {', '.join(TOOLS)}")
        if tool in declared.tools[:position]:
            raise file.error(name, "tools", f"{tool!r} stands there twice")
    return types.new_class(
        name, (DeclaredAgent,), {"name": name}, lambda body: body.update(declared=declared, __slots__=(), __module__=__name__, __doc__=None)
    )


def _misfit(file: _File, name: str, message: str) -> AgentFileError:
    """What msgspec says, at its place, with the fields that there are."""
    found = _FIELD.search(message)
    within = re.search(r" - at `\$\.(\w+)", message)
    prefix = within[1] if within else ""
    struct: type[msgspec.Struct] = Grant if prefix == "capabilities" else Declaration
    allowed = ", ".join(struct.__struct_fields__)
    field = "" if found is None else found["unknown"] or found["missing"] or ""
    if not field:
        place = re.search(r"at `\$\.([\w.]+)", message)
        return file.error(name, place[1] if place else "", message.partition(" - at ")[0])
    return file.error(name, f"{prefix}.{field}".strip("."), f"{message.partition(' - at ')[0]}; allowed: {allowed}")
