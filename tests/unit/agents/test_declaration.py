"""Agents from a file: what is wrong with it is said with file, line, field and what is allowed."""

from pathlib import Path

import pytest

from actors.agents import AgentFileError, agents_from, rules_for
from actors.agents.tools import TOOLS
from actors.files.rules import DEFAULT_RULES
from runtime import App

GOOD = 'model = "m"\ninstructions = "x"\n'


def declared(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agents.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (f"[agents.a]\n{GOOD}tools = ['read_file', 'os.system']\n", 4, "agents.a.tools: there is no tool 'os.system'; allowed: read_file,"),
        (f"[agents.a]\n{GOOD}tools = ['recall', 'recall']\n", 4, "agents.a.tools: 'recall' stands there twice"),
        (f"[agents.a]\n{GOOD}tool = []\n", 4, "agents.a.tool: Object contains unknown field `tool`; allowed: instructions, model, tools,"),
        ("[agents.a]\nmodel = 'm'\n", 1, "agents.a.instructions: Object missing required field `instructions`; allowed: instructions,"),
        (f"[agents.a]\n{GOOD}rounds = 21\n", 4, "agents.a.rounds: 21 is not 1 to 20"),
        (f"[agents.a]\n{GOOD}rounds = 'many'\n", 4, "agents.a.rounds: Expected `int`, got `str`"),
        (f"[agents.b]\n{GOOD}[agents.a]\nmodel = ' '\ninstructions = ''\n", 5, "agents.a.model: empty; name a table [models.NAME]"),
        (f"[agents.a]\n{GOOD}[agents.a.capabilities]\nwrite = true\n", 5, "agents.a.capabilities.write: Object contains unknown field"),
        (f"[agents.'a b']\n{GOOD}", None, "a name has 1 to 64 letters"),
        (f"[agent.a]\n{GOOD}", None, "agent: unknown; a file of agents has tables [agents.NAME] only"),
        ("", None, "agents: there is no table [agents.NAME]"),
        ("[agents.a\n", None, "line 1"),
    ],
    ids=lambda value: str(value)[:30].replace("\n", " "),
)
def test_what_is_wrong_is_named(text: str, line: int | None, said: str, tmp_path: Path) -> None:
    path = declared(tmp_path, text)
    with pytest.raises(AgentFileError) as wrong:
        agents_from(path)
    assert wrong.value.message.startswith(f"{path}:{line}: " if line else f"{path}:")
    assert said in wrong.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgentFileError, match=r"nowhere\.toml"):
        agents_from(tmp_path / "nowhere.toml")


def test_each_table_is_an_actor_type(tmp_path: Path) -> None:
    capable = "capabilities = { file_write = true, allowed_paths = ['docs/**'] }\n"
    agents = agents_from(declared(tmp_path, f"[agents.one]\n{GOOD}{capable}[agents.two]\n{GOOD}tools = ['recall']\n"))
    app = App(actors=agents)
    assert {"one", "two"} <= set(app.registry.types)
    assert set(app.registry.types["one"].methods) == {"do", "settle", "work"}
    rules = rules_for(agents)
    assert rules.agents["one"].allowed_paths == ("docs/**",)
    assert not rules.agents["two"].file_write
    assert rules.agents["fixer"] == DEFAULT_RULES.agents["fixer"]


@pytest.mark.parametrize("name", TOOLS)
def test_a_model_is_told_the_shape_of_each_tool(name: str) -> None:
    spec = TOOLS[name].spec(name)
    assert spec.parameters["type"] == "object"
    assert spec.parameters["properties"]
    assert spec.parameters["additionalProperties"] is False
