"""The bank from a program that knows NATS only: python plain_client.py URL ACCOUNT. Prints what it saw as one JSON object."""

import asyncio
import json
import sys

import nats


async def main(url: str, account: str) -> None:
    client = await nats.connect(url)
    events = await client.subscribe(f"cue.event.account.{account}.>")
    ask, tell, body = f"cue.ask.account.{account}", f"cue.tell.account.{account}", b'{"cents": 500}'
    first = await client.request(f"{ask}.deposit", body, timeout=5)
    once = [json.loads((await client.request(f"{ask}.deposit.salary-1", body, timeout=5)).data) for _ in range(2)]
    ack = await client.jetstream().publish(f"{tell}.deposit.gift-1", b'{"cents": 7}')
    seen = [json.loads((await events.next_msg(timeout=5)).data) for _ in range(3)]
    info = json.loads((await client.request("$SRV.INFO.cuebook", b"", timeout=5)).data)
    balance = json.loads((await client.request(f"{ask}.balance", b"", timeout=5)).data)
    print(json.dumps({"first": json.loads(first.data), "once": once, "ack": ack.seq, "events": seen, "info": info, "balance": balance}))
    await client.close()


asyncio.run(main(*sys.argv[1:]))
