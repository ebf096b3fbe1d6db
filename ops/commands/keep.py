"""Verbs that look after the log itself."""

import sys
from typing import TYPE_CHECKING

import msgspec

from ops.commands.access import log_folder
from ops.commands.common import DEFAULTS, Common
from ops.exits import Exit
from ops.output import print_rows, progress

if TYPE_CHECKING:
    from events.store import Damage


def verify(*, common: Common = DEFAULTS) -> int:
    """Check hashes, versions and checksums of the whole log; exits 4 and names what is damaged.

    Reads the files, also while a deployment runs. `replay --verify` compares
    folded states instead.
    """
    from events.log_directory import read_identity
    from events.verify import verify as verify_log

    settings = common.load().settings
    folder = log_folder(settings)
    damages = verify_log(folder, _tell if sys.stderr.isatty() else None)
    print_rows([_row(damage) for damage in damages], json=common.json)
    shards = read_identity(folder).shards
    if damages:
        progress(f"{len(damages)} findings in {shards} shards of {folder}; restore a backup of what is damaged")
        return int(Exit.VERIFICATION_FAILED)
    progress(f"{shards} shards of {folder}: every event, hash and checksum is as it was written")
    return int(Exit.OK)


def _row(damage: "Damage") -> dict[str, object]:
    return msgspec.structs.asdict(damage)


def _tell(shard: int, position: int, end: int) -> None:
    # Called once per page of 1,000 events.
    if position % 100_000 < 1_000:
        progress(f"shard {shard}: {position:,} of {end:,}")
