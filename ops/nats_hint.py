"""One hint over NATS from the process that watches the workers: somebody died, look at the locks now (S4)."""

import nats
import nats.errors
import structlog

from events.codec import encode
from ops.nats_connection import Connection
from runtime.wire import Subjects

log = structlog.get_logger("cuebook.up")


async def hint_change(connection: Connection, namespace: str) -> None:
    """Tell the workers that ownership may have changed. Losing the hint costs half a second, so failing is only logged."""
    try:
        client = await nats.connect(**connection.nats_options(), connect_timeout=1, allow_reconnect=False)
        try:
            await client.publish(Subjects(namespace, 1).control, encode({"op": "changed"}))
            await client.flush(1)
        finally:
            await client.close()
    except (nats.errors.Error, OSError, TimeoutError) as error:
        log.info("hint_not_sent", error=repr(error))
