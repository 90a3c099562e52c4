"""HTTP/2 as a careful client speaks it: many streams on a connection, no new ones once the server said that it goes (GOAWAY), and whatever
was sent before that must be answered. A stream that is not is an OSError; nothing is tried a second time. Frames: tests/wire/wire/h2.py.
"""

import asyncio
import pathlib
import ssl
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/wire"))
from wire.h2 import (  # noqa: E402
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, status_of)

NO_TABLE, INITIAL_WINDOW = 1, 4
FRAME_MAX = 16 * 1024


class Stream:
    def __init__(self, window):
        self.window, self.status, self.data, self.ended, self.error = window, None, b"", False, None
        self.news = asyncio.Event()

    async def wait(self, until):
        while not until():
            if self.error:
                raise self.error
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 30)


class Connection:
    def __init__(self, reader, writer, host):
        self.reader, self.writer, self.host = reader, writer, host
        self.streams, self.next, self.window, self.first_window = {}, 1, 65535, 65535
        self.goes = False
        writer.write(PREFACE + frame(SETTINGS, payload=struct.pack(">HI", NO_TABLE, 0)))
        self.reading = asyncio.create_task(self.read())

    @classmethod
    async def open(cls, port, authority, host):
        tls = ssl.create_default_context(cafile=authority)
        tls.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=host)
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            raise OSError("no h2 by ALPN")
        return cls(reader, writer, host)

    def begin(self, path, fields, method=b"GET", end=True):
        number, stream = self.next, Stream(self.first_window)
        self.next += 2
        self.streams[number] = stream
        fields = block(get(self.host.encode(), path, method, fields))
        self.writer.write(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), number, fields))
        return number, stream

    async def ask(self, path, fields):
        number, stream = self.begin(path, fields)
        return await self.answer(number, stream)

    async def answer(self, number, stream):
        """All of it, if it is a good one."""
        await stream.wait(lambda: stream.ended)
        self.done(number)
        if stream.status != 200:
            raise OSError(f"status {stream.status}: {stream.data!r}")
        return stream.data

    def done(self, number):
        del self.streams[number]
        if self.goes and not self.streams:
            self.writer.close()

    async def send(self, number, stream, data, end=False):
        while min(self.window, stream.window) < len(data):
            await stream.wait(lambda: min(self.window, stream.window) >= len(data))
        self.window -= len(data)
        stream.window -= len(data)
        self.writer.write(frame(DATA, END_STREAM if end else 0, number, data))
        await self.writer.drain()

    async def read(self):
        error = OSError("the connection ended")
        try:
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                self.take(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7fffffff, payload)
        except (OSError, asyncio.IncompleteReadError) as ended:
            error = OSError(f"the connection ended: {ended!r}")
        finally:
            self.goes = True
            for stream in self.streams.values():
                self.fail(stream, error)
            self.writer.close()

    def fail(self, stream, error):
        if not stream.ended:
            stream.error = error
            stream.news.set()

    def take(self, kind, flags, number, payload):
        stream = self.streams.get(number)
        if kind == PING and not flags & ACK:
            self.writer.write(frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            self.settings(payload)
        elif kind == GOAWAY:
            self.goes = True
            last, code = struct.unpack(">II", payload[:8])
            for number, late in self.streams.items():
                if code or number > last & 0x7fffffff:
                    self.fail(late, OSError(f"GOAWAY {code}: stream {number} is behind {last}"))
            if not self.streams:
                self.writer.close()
        elif kind == WINDOW_UPDATE:
            amount = int.from_bytes(payload, "big")
            if number == 0:
                self.window += amount
            elif stream:
                stream.window += amount
            for each in self.streams.values():
                each.news.set()
        elif stream and kind == RST_STREAM:
            self.fail(stream, OSError(f"the stream was reset: {int.from_bytes(payload, 'big')}"))
        elif stream and kind in (HEADERS, DATA):
            if kind == DATA:
                stream.data += payload
                grant = struct.pack(">I", len(payload))
                if payload:
                    self.writer.write(frame(WINDOW_UPDATE, 0, 0, grant) + frame(WINDOW_UPDATE, 0, number, grant))
            elif stream.status is None:
                stream.status = status_of(payload)
            stream.ended = bool(flags & END_STREAM)
            stream.news.set()

    def settings(self, payload):
        for at in range(0, len(payload), 6):
            name, value = struct.unpack(">HI", payload[at:at + 6])
            if name == INITIAL_WINDOW:
                for stream in self.streams.values():
                    stream.window += value - self.first_window
                self.first_window = value
        self.writer.write(frame(SETTINGS, ACK))
