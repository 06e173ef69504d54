"""A SOCKS5 server whose connections to sp.mux.sing-box.arpa are sessions of sing-mux: sing_mux_server.py ADDRESS PORT.

smux and yamux, streams and datagrams, padding. Written from the documents, beside headgate's own client; sing-box and mihomo,
which are not in Debian, were tried by hand.
"""

import asyncio
import socket
import struct
import sys

WINDOW = 256 * 1024
PADDED = 16


class Wire:
    """The connection, with or without padding."""

    def __init__(self, reader, writer, padding):
        self.reader, self.writer = reader, writer
        self.sent = self.received = 0 if padding else PADDED
        self.data = b""

    async def read(self, count):
        while len(self.data) < count:
            if self.received < PADDED:
                self.received += 1
                length, padding = struct.unpack(">HH", await self.reader.readexactly(4))
                self.data += await self.reader.readexactly(length)
                await self.reader.readexactly(padding)
            else:
                self.data += await self.reader.readexactly(count - len(self.data))
        part, self.data = self.data[:count], self.data[count:]
        return part

    def write(self, data):
        if self.sent < PADDED:
            self.sent += 1
            data = struct.pack(">HH", len(data), 300) + data + bytes(300)
        self.writer.write(data)


class Session:
    def __init__(self, wire, yamux):
        self.wire, self.yamux, self.streams, self.tasks = wire, yamux, {}, set()

    def head(self, number, command, flags=0, length=0):
        return struct.pack(">BBHII", 0, command, flags, number, length) if self.yamux else struct.pack("<BBHI", 1, command, length, number)

    async def run(self):
        while True:
            if self.yamux:
                version, command, flags, number, length = struct.unpack(">BBHII", await self.wire.read(12))
                assert version == 0
                begins, data, ends = flags & 1, length if command == 0 else 0, flags & 12
                if command == 1 and number in self.streams:
                    self.streams[number].credit += length
                    self.streams[number].room.set()
            else:
                version, command, length, number = struct.unpack("<BBHI", await self.wire.read(8))
                assert version == 1
                begins, data, ends = command == 0, length, command == 1
            if begins:
                stream = self.streams[number] = Stream(self, number)
                task = asyncio.create_task(stream.run())
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            if data:
                payload = await self.wire.read(data)
                if number in self.streams:
                    self.streams[number].reader.feed_data(payload)
                    if self.yamux:
                        self.wire.write(self.head(number, 1, 0, data))
            if ends and number in self.streams:
                self.streams[number].reader.feed_eof()


class Stream:
    def __init__(self, session, number):
        self.session, self.number, self.reader = session, number, asyncio.StreamReader()
        self.credit, self.room = WINDOW, asyncio.Event()

    async def write(self, data):
        while data:
            while self.session.yamux and self.credit <= 0:
                self.room.clear()
                await self.room.wait()
            part, data = data[:min(16000, self.credit)], data[min(16000, self.credit):]
            if self.session.yamux:
                self.credit -= len(part)
            self.session.wire.write(self.session.head(self.number, 0 if self.session.yamux else 2, 0, len(part)) + part)
            await self.session.wire.writer.drain()

    def finish(self):
        self.session.wire.write(self.session.head(self.number, 1, 4 if self.session.yamux else 0))

    async def run(self):
        flags = int.from_bytes(await self.reader.readexactly(2), "big")
        to = await address(self.reader)
        if flags == 0:
            try:
                reader, writer = await asyncio.open_connection(*to)
            except OSError as error:
                text = str(error).encode()
                return await self.write(b"\x01" + bytes([len(text)]) + text)
            await self.write(b"\0")
            await asyncio.gather(self.up(writer), self.down(reader))
        else:
            assert flags == 3
            await self.datagrams()

    async def up(self, writer):
        while data := await self.reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def down(self, reader):
        while data := await reader.read(65536):
            await self.write(data)
        self.finish()

    async def datagrams(self):
        loop = asyncio.get_running_loop()
        answered = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        answered.setblocking(False)
        await self.write(b"\0")

        async def back():
            while True:
                data, (ip, port) = await loop.sock_recvfrom(answered, 65535)
                await self.write(b"\x01" + socket.inet_aton(ip) + struct.pack(">HH", port, len(data)) + data)

        task = asyncio.create_task(back())
        try:
            while True:
                to = await address(self.reader)
                length = int.from_bytes(await self.reader.readexactly(2), "big")
                await loop.sock_sendto(answered, await self.reader.readexactly(length), to)
        except asyncio.IncompleteReadError:
            task.cancel()
            answered.close()


async def address(reader):
    kind = (await reader.readexactly(1))[0]
    if kind == 1:
        host = socket.inet_ntoa(await reader.readexactly(4))
    elif kind == 4:
        host = socket.inet_ntop(socket.AF_INET6, await reader.readexactly(16))
    else:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    return host, int.from_bytes(await reader.readexactly(2), "big")


async def client(reader, writer):
    try:
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(b"\x05\0")
        await reader.readexactly(3)
        assert await address(reader) == ("sp.mux.sing-box.arpa", 444)
        writer.write(b"\x05\0\0\x01" + bytes(6))
        version, protocol = await reader.readexactly(2)
        padding = version == 1 and (await reader.readexactly(1))[0]
        if padding:
            await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        await Session(Wire(reader, writer, padding), protocol == 1).run()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(client, sys.argv[1], int(sys.argv[2]))
    await server.serve_forever()


asyncio.run(main())
