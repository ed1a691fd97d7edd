"""For scripts/bench: load that wrk cannot make. Prints JSON.

`python load.py paced PORT --rate R --seconds S`: requests at a fixed rate -> latencies in ms.
`python load.py streams PORT --count N --connections C`: whole streams -> events seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import uvloop

KEY = "bench-key-0123456789abcdef"
MESSAGES = b'[{"role":"system","content":"You are terse."},{"role":"user","content":"Say hello."}]'
BODY = b'{"model":"auto","messages":' + MESSAGES + b"%b}"


def request(*, stream: bool) -> bytes:
    body = BODY % (b',"stream":true,"stream_options":{"include_usage":true}' if stream else b"")
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return f"{head}authorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def read_answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(head.decode("latin-1"))
    await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))


async def paced(port: int, rate: float, seconds: float, connections: int) -> dict[str, float]:
    data = request(stream=False)
    total = int(rate * seconds)
    start = time.perf_counter() + 0.05
    latencies: list[float] = []

    async def worker(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for index in range(first, total, connections):
            await asyncio.sleep(start + index / rate - time.perf_counter())
            began = time.perf_counter()
            writer.write(data)
            await read_answer(reader)
            latencies.append(1000 * (time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(worker(first) for first in range(connections)))
    latencies.sort()
    return {"p50": latencies[len(latencies) // 2], "p99": latencies[int(len(latencies) * 0.99)], "count": total}


async def streams(port: int, count: int, connections: int) -> dict[str, float]:
    data = request(stream=True)
    events = 0

    async def worker(share: int) -> None:
        nonlocal events
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(share):
            writer.write(data)
            tail = b""
            while not tail.endswith(b"0\r\n\r\n"):
                piece = await reader.read(65536)
                if not piece:
                    raise RuntimeError("the stream was cut")
                events += piece.count(b"data: ")  # written one at a time; rarely split by the kernel
                tail = (tail + piece)[-16:]
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker(count // connections) for _ in range(connections)))
    return {"events": events, "seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["paced", "streams"])
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    if given.kind == "paced":
        run = paced(given.port, given.rate, given.seconds, given.connections)
    else:
        run = streams(given.port, given.count, given.connections)
    print(json.dumps(uvloop.run(run)))


if __name__ == "__main__":
    main()
