"""Frames between the parent and a worker."""

import asyncio
import socket

from gateway.server.control import METRICS, READY, SESSION, Control


def test_frames_arrive_in_order_whole_and_end_with_the_other_side() -> None:
    async def story() -> list[tuple[bytes, bytes]]:
        ours, theirs = socket.socketpair()
        parent, worker = await Control.over(ours), await Control.over(theirs)
        worker.send(READY)
        worker.send(METRICS, b"x" * 300_000)
        worker.send(METRICS)
        closing = asyncio.create_task(worker.close())
        frames = [frame async for frame in parent.frames()]
        await closing
        await parent.close()
        return frames

    assert asyncio.run(story()) == [(READY, b""), (METRICS, b"x" * 300_000), (METRICS, b"")]


def test_a_frame_cut_short_ends_the_stream_without_a_half_frame() -> None:
    async def story() -> list[tuple[bytes, bytes]]:
        ours, theirs = socket.socketpair()
        parent = await Control.over(ours)
        theirs.sendall(b"r\0\0\0\0" + b"m\0\0\0\x05abc")
        theirs.close()
        frames = [frame async for frame in parent.frames()]
        await parent.close()
        return frames

    assert asyncio.run(story()) == [(READY, b"")]


def test_offers_are_dropped_while_the_other_side_does_not_read() -> None:
    async def story() -> list[tuple[bytes, bytes]]:
        ours, theirs = socket.socketpair()
        worker = await Control.over(theirs)
        for _ in range(100):
            worker.offer(SESSION, b"x" * 100_000)
        worker.send(READY)
        parent = await Control.over(ours)
        closing = asyncio.create_task(worker.close())
        frames = [frame async for frame in parent.frames()]
        await closing
        await parent.close()
        return frames

    frames = asyncio.run(story())
    assert 1 <= len(frames) - 1 <= 20
    assert frames[-1] == (READY, b"")
