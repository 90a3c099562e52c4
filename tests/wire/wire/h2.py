"""A raw HTTP/2 client: frames as they are told, no rule kept by itself (RFC 9113). Reads only what the cases look at."""

import select
import socket
import ssl
import struct
import time

from . import client

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITY_FLAG, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
STATIC_STATUS = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
# The digits of the Huffman code (RFC 7541 appendix B).
DIGITS = {"00000": "0", "00001": "1", "00010": "2", "011001": "3", "011010": "4", "011011": "5", "011100": "6", "011101": "7",
          "011110": "8", "011111": "9"}


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(value, bits, first=0):
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def literal(name, value):
    """A field without indexing, without Huffman: any bytes pass."""
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields):
    return b"".join(literal(name, value) for name, value in fields)


def get(host, path, method=b"GET", extra=(), scheme=b"https"):
    return [(b":method", method), (b":scheme", scheme), (b":authority", host), (b":path", path), *extra]


def status_of(payload):
    """The status of an answer's field block, which begins with it; the table size is 0, so nothing is dynamic."""
    while payload and payload[0] & 0xe0 == 0x20:
        payload = payload[1:]
    if not payload:
        return None
    if payload[0] & 0x80:
        return STATIC_STATUS.get(payload[0] & 0x7f)
    index = payload[0] & (0x3f if payload[0] & 0x40 else 0x0f)
    if not 8 <= index <= 14:
        return None
    length, huffman = payload[1] & 0x7f, payload[1] & 0x80
    raw = payload[2:2 + length]
    if not huffman:
        return int(raw)
    bits, text, digit = "".join(f"{byte:08b}" for byte in raw), "", ""
    for bit in bits:
        digit += bit
        if digit in DIGITS:
            text, digit = text + DIGITS[digit], ""
    return int(text) if text.isdigit() else None


class Stream:
    def __init__(self):
        self.status = self.reset = None
        self.interim = []
        self.body = b""
        self.ended = False


class H2:
    """One connection. `streams` holds what came of each."""

    def __init__(self, lane, settings=(), sni=None, timeout=5):
        self.host = lane.host.encode()
        self.socket = client.connect(lane.tls, client.context(["h2"]), sni or lane.host, timeout)
        if self.socket.selected_alpn_protocol() != "h2":
            raise RuntimeError("no h2 by ALPN")
        self.streams, self.goaway, self.closed = {}, None, False
        self.pings, self.settings_acks, self.frames = 0, 0, 0
        self.buffer = b""
        self.server_settings = None
        self.grant = True
        self.socket.setblocking(False)
        self.send(PREFACE + self.settings([(1, 0), *settings]))

    def settings(self, pairs):
        return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *pair) for pair in pairs))

    def send(self, data, limit=5.0):
        """Sends all of it, reading meanwhile; False if the other end is gone."""
        deadline = time.monotonic() + limit
        view = memoryview(data)
        while view and not self.closed:
            if time.monotonic() > deadline:
                return False
            _, writable, _ = select.select([], [self.socket], [], 0.02)
            try:
                if writable:
                    view = view[self.socket.send(view[:16384]):]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                pass
            except OSError:
                self.pump(0.1)
                self.closed = True
                return False
            self.read()
        return not self.closed

    def request(self, stream, fields, end=True):
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields))

    def read(self):
        try:
            while True:
                data = self.socket.recv(65536)
                if not data:
                    self.closed = True
                    break
                self.buffer += data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            pass
        except OSError:
            self.closed = True
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + length:
                break
            kind, flags = self.buffer[3], self.buffer[4]
            stream = int.from_bytes(self.buffer[5:9], "big") & 0x7fffffff
            payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
            self.take(kind, flags, stream, payload)

    def take(self, kind, flags, number, payload):
        self.frames += 1
        if kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
        elif kind == PING and flags & ACK:
            self.pings += 1
        elif kind == SETTINGS:
            if flags & ACK:
                self.settings_acks += 1
            else:
                self.server_settings = dict(struct.unpack(">HI", payload[at:at + 6]) for at in range(0, len(payload), 6))
                self.reply(frame(SETTINGS, ACK))
        elif number:
            stream = self.streams.setdefault(number, Stream())
            if kind == HEADERS:
                status = status_of(payload)
                if status and 100 <= status < 200:
                    stream.interim.append(status)
                elif stream.status is None:
                    stream.status = status
            elif kind == DATA:
                stream.body += payload
                if self.grant and payload:
                    amount = struct.pack(">I", len(payload))
                    self.reply(frame(WINDOW_UPDATE, 0, 0, amount) + frame(WINDOW_UPDATE, 0, number, amount))
            elif kind == RST_STREAM:
                stream.reset = int.from_bytes(payload, "big")
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                stream.ended = True

    def reply(self, data):
        try:
            self.socket.send(data)
        except OSError:
            pass

    def pump(self, seconds, until=None):
        deadline = time.monotonic() + seconds
        while not self.closed and time.monotonic() < deadline and not (until and until()):
            select.select([self.socket], [], [], 0.02)
            self.read()

    def of(self, number):
        return self.streams.get(number) or Stream()

    def done(self, number):
        stream = self.of(number)
        return stream.ended or stream.reset is not None

    def ask(self, number, path, limit=3.0):
        """A good request; its status."""
        self.send(self.request(number, get(self.host, path)))
        self.pump(limit, lambda: self.done(number) or self.goaway)
        return self.of(number).status

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass
