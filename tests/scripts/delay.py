#!/usr/bin/env python3
"""A slow network on one machine: forwards TCP with a delay and a bandwidth for each direction.

    delay.py RTT_SECONDS BYTES_PER_SECOND LISTEN:TO [LISTEN:TO ..]

It costs some tenths of a millisecond itself, so it stands for a wide network, not for a local one.
"""
import asyncio
import socket
import sys
import time


async def pump(reader, writer, rtt, bandwidth):
    queue = asyncio.Queue()

    async def deliver():
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not data:
                writer.close()
                return
            writer.write(data)

    delivering = asyncio.create_task(deliver())
    free = 0.0
    data = b"first"
    while data:
        data = await reader.read(65536)
        free = max(time.monotonic(), free) + len(data) / bandwidth
        await queue.put((free + rtt / 2, data))
    await delivering


async def forward(listen, to, rtt, bandwidth):
    async def connected(reader, writer):
        peer_reader, peer_writer = await asyncio.open_connection("127.0.0.1", to)
        for end in (writer, peer_writer):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = (pump(reader, peer_writer, rtt, bandwidth), pump(peer_reader, writer, rtt, bandwidth))
        await asyncio.gather(*ways, return_exceptions=True)

    return await asyncio.start_server(connected, "127.0.0.1", listen)


async def main():
    rtt, bandwidth = map(float, sys.argv[1:3])
    servers = [await forward(*map(int, pair.split(":")), rtt, bandwidth) for pair in sys.argv[3:]]
    await asyncio.gather(*(s.serve_forever() for s in servers))


if __name__ == "__main__":
    asyncio.run(main())
