"""The version verb."""

from ops.commands.common import DEFAULTS, Common
from ops.output import print_record
from ops.versions import versions


def version(*, common: Common = DEFAULTS) -> None:
    """Show the versions of Cuebook and of the parts it runs on."""
    print_record(versions(), json=common.json)
