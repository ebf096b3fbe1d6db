"""Settings of a deployment and where each value came from.

Precedence, strongest first: command line, environment (`CUEBOOK_<NAME>`), `--config FILE`, the deployment's own
`DATA/cuebook.toml`, `cuebook.toml` in the current folder, defaults. The deployment's file beats the folder somebody
happens to stand in, because it belongs to the log. Secrets are not settings: they are files that settings name.
"""

import os
import re
import sys
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from actors.models.limits import ProviderLimits
from ops.exits import StartError
from ops.private_files import write_private

FILE_NAME = "cuebook.toml"
PREFIX = "CUEBOOK_"
# Environment variables of ours that are not settings.
OTHER_VARIABLES = frozenset({"CUEBOOK_CONFIG"})

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Token = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class ModelSettings(ProviderLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model provider: where it is, and with `ProviderLimits` what it is allowed.

    kind: ``local`` runs in the worker's own process, then `model` is ``smollm2`` or the path of a GGUF file. api_key: where the key is,
    ``env:NAME`` or ``file:PATH``, never the key. fallbacks: who is asked while this one cannot be had.
    """

    kind: Literal["openai", "anthropic", "perplexity", "claude_code", "local"]
    model: Annotated[str, msgspec.Meta(min_length=1)]
    base_url: str | None = None
    api_key: Annotated[str, msgspec.Meta(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$")] | None = None
    fallbacks: tuple[str, ...] = ()


class PersonSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody whom runs may name as one who decides.

    key: what proves that it is he: ``env:NAME`` or ``file:PATH`` say where the key is, ``sha256:HEX`` is its digest, so that the key itself
    need not be here. roles: what several may share; a run names one as ``role:NAME``.
    """

    key: Annotated[str, msgspec.Meta(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|sha256:[0-9a-f]{64})$")]
    roles: tuple[Token, ...] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a deployment can be told; field names are the keys of the file and, in capitals, variables."""

    data: Path
    """The deployment's folder: log files, credentials, JetStream store, its own cuebook.toml."""
    namespace: Token = "cue"
    """First token of every subject."""
    nats_url: str | None = None
    """An outside server; None starts the embedded one."""
    nats_credentials: Path | None = None
    """A NATS credentials file (JWT and seed) for the outside server."""
    redis_url: str | None = None
    """A Redis or Valkey of yours for the cache; None starts the embedded one, where it is installed."""
    cache: Literal["auto", "off"] = "auto"
    """off: what steps had before is shared by nobody. Costs time only."""
    embedder: Literal["hash", "minilm", "fused"] | None = None
    """What memories are embedded with: hash = built in, by words; minilm = a sentence model (extra embed); fused = both. None = as the app
    says, else hash. Changed later: `cuebook projections rebuild memory --new-vectors`."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 2
    shards: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    """Used when the log is created and never after; None = 4 or the number of cores, whichever is greater (S6)."""
    app: str | None = None
    """MODULE:OBJECT of the app that the deployment runs."""
    keys: Path | None = None
    """The folder of the keys of sealed actors, outside `data`; None = the user's configuration folder (S29)."""
    durability: Literal["process", "disk"] = "disk"
    """What an acknowledged command survives: `process` kill -9, `disk` power loss."""
    ask_timeout_s: Seconds = 30.0
    drain_s: Seconds = 30.0
    passivate_after_s: Seconds = 300.0
    """How long an actor stays in memory without a command."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    models: dict[Token, ModelSettings] = {}
    """Model providers by name: tables ``[models.NAME]`` of the file."""
    review_model: Token | None = None
    """Which of `models` explains a review; None = the first, ``off`` = none."""

    people: dict[Token, PersonSettings] = {}
    """Who may be named to decide about runs: tables ``[people.NAME]`` of the file."""

    @property
    def keys_folder(self) -> Path:
        """Where the keys of sealed actors are."""
        return self.keys or default_keys(os.environ)

    @property
    def explaining_model(self) -> str | None:
        """Name of the model provider that explains a review; None = no one does."""
        if self.review_model is not None:
            return None if self.review_model == "off" else self.review_model
        return next(iter(self.models), None)

    @property
    def shard_count(self) -> int:
        """The number of shards a new log gets."""
        return self.shards or max(4, os.cpu_count() or 1)


class LoadedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with the origin of every field: `default`, `environment CUEBOOK_X`, a file's path, `command line`."""

    settings: Settings
    origins: Mapping[str, str]
    unknown_variables: tuple[str, ...]
    """CUEBOOK_* variables that name no setting: a typing error shows here instead of being silently without effect."""


def default_data(environment: Mapping[str, str]) -> Path:
    """Return the user's data folder for Cuebook (XDG base directories; Application Support on macOS)."""
    home = Path(environment.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "cuebook"
    base = environment.get("XDG_DATA_HOME", "")
    # The specification says that a relative path is invalid and must be ignored.
    return (Path(base) if Path(base).is_absolute() else home / ".local" / "share") / "cuebook"


def default_keys(environment: Mapping[str, str]) -> Path:
    """Return the user's folder for keys: among the configuration, so that no copy of a data folder takes them along."""
    home = Path(environment.get("HOME") or Path.home())
    base = environment.get("XDG_CONFIG_HOME", "")
    return (Path(base) if Path(base).is_absolute() else home / ".config") / "cuebook" / "keys"


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> LoadedSettings:
    """Collect the settings from all their places.

    Args:
        overrides: values from the command line; None as a value means not given.
        config: the file of `--config`; must exist. None looks at CUEBOOK_CONFIG.
        environment: default `os.environ`.
        folder: where `cuebook.toml` may lie; default the current folder.

    Raises:
        StartError: an unreadable file, an unknown key, or a value that does not fit, with its origin.
    """
    variables = os.environ if environment is None else environment
    here = Path.cwd() if folder is None else folder
    if config is None and variables.get("CUEBOOK_CONFIG"):
        config = Path(variables["CUEBOOK_CONFIG"])
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    # Weakest first; a later layer replaces an earlier one field by field.
    weak = [_read_file(here / FILE_NAME)] if (here / FILE_NAME).is_file() else []
    strong = [_read_file(config)] if config is not None else []
    strong += _from_environment(variables, here)
    strong.append(_Layer(given, "command line", here))
    data = _data_folder([*weak, *strong], default_data(variables))
    own = data / FILE_NAME
    read = {Path(layer.origin).resolve() for layer in (*weak, *strong)}
    if own.is_file() and own.resolve() not in read:
        weak.append(_read_file(own))
    return _merge([*weak, *strong], data, variables)


def name_app(data: Path, app: str) -> None:
    """Write `app` into the deployment's own file, keeping its other lines (S32: readers take the app from there)."""
    path = data / FILE_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    line = f"app = {msgspec.json.encode(app).decode()}"
    # Keys after the first table header belong to that table.
    top = next((i for i, text in enumerate(lines) if text.lstrip().startswith("[")), len(lines))
    at = next((i for i in range(top) if lines[i].partition("=")[0].strip() == "app"), None)
    if at is None:
        lines.insert(0, line)
    elif lines[at] == line:
        return
    else:
        lines[at] = line
    write_private(path, "\n".join(lines) + "\n")


class _Layer(typing.NamedTuple):
    values: Mapping[str, object]
    origin: str
    base: Path
    """Where relative paths in this layer count from."""


def _read_file(path: Path) -> _Layer:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError(f"cannot read the settings file {path}", why=str(error)) from error
    for key in content:
        if key not in Settings.__struct_fields__:
            known = ", ".join(Settings.__struct_fields__)
            raise StartError(f"{path} has an unknown key {key!r}", why=f"known keys: {known}")
    return _Layer(content, str(path), path.absolute().parent)


def _from_environment(variables: Mapping[str, str], here: Path) -> list[_Layer]:
    # An empty variable counts as not set, as `CUEBOOK_NATS_URL= cuebook up` suggests.
    named = [(name, PREFIX + name.upper()) for name in Settings.__struct_fields__]
    return [_Layer({name: variables[v]}, f"environment {v}", here) for name, v in named if variables.get(v)]


def _data_folder(layers: list[_Layer], default: Path) -> Path:
    data = default
    for layer in layers:
        if "data" in layer.values:
            data = _convert("data", layer)
    return data


def _merge(layers: list[_Layer], data: Path, variables: Mapping[str, str]) -> LoadedSettings:
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.__struct_fields__, "default")
    for layer in layers:
        for name in layer.values:
            values[name] = _convert(name, layer)
            origins[name] = layer.origin
    # The deployment's own file cannot move the deployment elsewhere.
    values["data"] = data
    known = {PREFIX + name.upper() for name in Settings.__struct_fields__} | OTHER_VARIABLES
    unknown = tuple(sorted(v for v in variables if v.startswith(PREFIX) and v not in known))
    return LoadedSettings(settings=Settings(**values), origins=origins, unknown_variables=unknown)


def _convert(name: str, layer: _Layer) -> Any:
    """Return the value of field `name` as its type; the file or the environment gives text where a number is meant."""
    value = layer.values[name]
    kind = typing.get_type_hints(Settings, include_extras=True)[name]
    try:
        if kind in (Path, Path | None):  # msgspec knows no paths
            if not isinstance(value, str | Path) or not str(value):
                raise ValueError(f"Expected a path, got {value!r}")
            return (layer.base / Path(value).expanduser()).absolute()
        return msgspec.convert(value, kind, strict=False)
    except ValueError as error:  # msgspec.ValidationError is one
        raise StartError(f"the setting {name} does not fit", why=f"{error}{_allowed(kind, str(error))} (from {layer.origin})") from error


def _allowed(kind: Any, said: str) -> str:
    """What a wrong word could have been: msgspec says where it stands, not what is known."""
    found = re.search(r"Invalid enum value .*?(?: - at `\$.*?(\w+)`)?$", said)
    if found is None:
        return ""
    inner = kind if found[1] is None else typing.get_type_hints(ModelSettings, include_extras=True).get(found[1])
    words = [word for part in (inner, *typing.get_args(inner)) if typing.get_origin(part) is Literal for word in typing.get_args(part)]
    return f"; known: {', '.join(words)}" if words else ""
