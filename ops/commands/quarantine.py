"""Streams that are put aside because they are damaged: which, why, and how one of them works again (I-20)."""

import msgspec

from ops.commands.access import log_folder
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit
from ops.output import print_rows, progress


def ls(*, common: Common = DEFAULTS) -> int:
    """List the streams that are put aside because they are damaged.

    Each refuses its commands and says where its damage is; all others go on.
    """
    from events.keeping.quarantine import Quarantine

    print_rows([msgspec.structs.asdict(each) for each in Quarantine(log_folder(common.load().settings)).all()], json=common.json)
    return int(Exit.OK)


def lift(stream: str, /, *, common: Common = DEFAULTS) -> int:
    """Let a stream work again that was put aside, once it is mended.

    Works on a running deployment. If it is still damaged, its next command
    puts it aside again.
    """
    from events.keeping.quarantine import Quarantine

    try:
        lifted = Quarantine(log_folder(common.load().settings)).lift(stream)
    except ValueError as error:
        raise CommandError(f"{stream} is no stream", why=str(error), next_step="cuebook quarantine ls", code=Exit.USAGE) from error
    if not lifted:
        raise CommandError(f"{stream} is not in quarantine", next_step="cuebook quarantine ls", code=Exit.NOT_FOUND)
    progress(f"{stream} works again at its next command; cuebook verify says whether it is sound")
    return int(Exit.OK)
