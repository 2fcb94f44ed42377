"""Clients in a process of their own, each connection one line of history.

    python load.py PORT LOG SEED CLIENTS

until it gets SIGTERM. A line has the client's port, the times (CLOCK_MONOTONIC) at which it
began to connect (`began`), was connected (`up`) and had its last byte or its end (`over`);
how many requests were sent whole (`sent`) and answered whole (`answers`: id asked for, id
answered, version); and what went wrong, if anything did (`error`, and `where`: connect, send,
answer).
"""

import asyncio
import contextlib
import json
import random
import signal
import sys
import time

ANSWER_WITHIN = 40.0
CONNECT_WITHIN = 40.0


async def ask(reader, writer, line, number, wait, pause):
    line["where"] = "send"
    request = f"GET /{number}/{wait} HTTP/1.1\r\nHost: chaos\r\n\r\n".encode()
    half = len(request) // 2
    writer.write(request[:half])
    if pause:  # a request that comes in two pieces
        await writer.drain()
        await asyncio.sleep(pause)
    writer.write(request[half:])
    await writer.drain()
    line["sent"] += 1
    line["where"] = "answer"
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    facts = json.loads(await reader.readexactly(length))
    line["answers"].append([number, facts["id"], facts["version"]])


async def connection(port, chance, numbers, out):
    line = {"began": time.monotonic(), "up": None, "sent": 0, "answers": [], "where": "connect"}
    writer = None
    try:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", port), CONNECT_WITHIN
        )
        line["up"] = time.monotonic()
        line["port"] = writer.get_extra_info("sockname")[1]
        if chance.random() < 0.2:  # accepted, and silent for a while
            await asyncio.sleep(chance.random() * 0.3)
        wait = chance.choice([0, 0, 0, 0, 20, 200])
        pause = chance.choice([0, 0, 0, 0.05])
        await asyncio.wait_for(ask(reader, writer, line, next(numbers), wait, pause), ANSWER_WITHIN)
        line["where"] = None
    except asyncio.IncompleteReadError as error:
        line["error"] = f"end of file after {error.partial!r}"
    except (OSError, asyncio.TimeoutError) as error:
        line["error"] = repr(error)
    finally:
        line["over"] = time.monotonic()
        out.write(json.dumps(line) + "\n")
        if writer:
            writer.close()


async def client(port, chance, numbers, out, over):
    while not over.is_set():
        await connection(port, chance, numbers, out)
        await asyncio.sleep(chance.random() * 0.02)


def count():
    number = 0
    while True:
        number += 1
        yield number


async def main(port, path, seed, clients):
    over, numbers = asyncio.Event(), count()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    with open(path, "w", buffering=1) as out:
        chances = [random.Random(f"{seed}-{index}") for index in range(clients)]
        tasks = [client(port, chance, numbers, out, over) for chance in chances]
        print("begins", flush=True)
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
