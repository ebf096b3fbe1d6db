"""Verbs about settings."""

from typing import Annotated

import msgspec
from cyclopts import Parameter

from ops.cache_connection import without_password
from ops.commands.common import DEFAULTS, Common
from ops.nats_connection import Connection
from ops.output import print_rows


def show(
    *,
    origin: Annotated[bool, Parameter(help="Also show where each value comes from.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Show the settings and, with --origin, where each comes from.

    Strongest first: command line, environment, --config, the deployment's
    own file, ./cuebook.toml, defaults. A password in a URL is not shown.
    """
    loaded = common.load()
    values = msgspec.structs.asdict(loaded.settings)
    values["nats_url"] = Connection(url=values["nats_url"]).public_url if values["nats_url"] else None
    values["redis_url"] = without_password(values["redis_url"]) if values["redis_url"] else None
    rows: list[dict[str, object]] = [{"setting": name, "value": value} for name, value in values.items()]
    if origin:
        rows = [{**row, "origin": loaded.origins[str(row["setting"])]} for row in rows]
    print_rows(rows, json=common.json)
