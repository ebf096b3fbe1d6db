"""Ask, and show all that is said meanwhile, knowing NATS only: python plain_listener.py URL TYPE ID METHOD COMMAND-ID ARGUMENTS."""

import asyncio
import json
import sys

import nats


async def main(url: str, type_name: str, key: str, method: str, command_id: str, arguments: str) -> None:
    client = await nats.connect(url)
    said = await client.subscribe(f"cue.chunk.{type_name}.{key}.{method}.{command_id}")
    await client.flush()
    reply = await client.request(f"cue.ask.{type_name}.{key}.{method}.{command_id}", arguments.encode(), timeout=30)
    chunks = [await said.next_msg(timeout=10)]
    while not json.loads(chunks[-1].data)["end"]:
        chunks.append(await said.next_msg(timeout=10))
    print(json.dumps({"chunks": [(each.subject, json.loads(each.data)) for each in chunks], "reply": json.loads(reply.data)}))
    await client.close()


asyncio.run(main(*sys.argv[1:]))
