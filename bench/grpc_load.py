"""A load of unary gRPC calls.

`python -m bench.grpc_load HOST:PORT FILE KEY CHANNELS FLIGHT SECONDS`

The official client, with FLIGHT calls at a time on each of CHANNELS connections.

Rules of this room: messages are bytes; the last line written is read by the bench.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TypeAlias

import grpc

from bench import payloads
from bench.samples import percentile

Method: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]


async def main(
    address: str, message: bytes, key: str, channels: int, flight: int, seconds: float
) -> str:
    """Run the load; returns the line of figures."""
    took: list[float] = []
    failed = 0
    metadata = (("authorization", f"Bearer {key}"),)
    opened = [grpc.aio.insecure_channel(address, _OPTIONS) for _ in range(channels)]
    await asyncio.gather(*(channel.channel_ready() for channel in opened))
    started = time.perf_counter()
    until = started + seconds

    async def client(channel: grpc.aio.Channel) -> None:
        nonlocal failed
        method: Method = channel.unary_unary(payloads.GRPC_METHOD)
        while (now := time.perf_counter()) < until:
            try:
                await method(message, metadata=metadata, timeout=10)
            except grpc.aio.AioRpcError:
                failed += 1
            else:
                took.append(time.perf_counter() - now)

    await asyncio.gather(*(client(channel) for channel in opened for _ in range(flight)))
    spent = time.perf_counter() - started
    for channel in opened:
        await channel.close()
    micro = [value * 1e6 for value in took]
    return (
        f"figures: requests={len(took)} microseconds={spent * 1e6:.0f} failed={failed} status=0"
        f" p50={percentile(micro, 50):.0f} p99={percentile(micro, 99):.0f}"
    )


if __name__ == "__main__":
    _, _address, _file, _key, _channels, _flight, _seconds = sys.argv
    _message = Path(_file).read_bytes()
    _run = main(_address, _message, _key, int(_channels), int(_flight), float(_seconds))
    sys.stdout.write(asyncio.run(_run) + "\n")
