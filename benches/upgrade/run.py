#!/usr/bin/env python3
"""Ten upgrades under load, one after the other: whether anybody notices.

    benches/upgrade/run.py [--program PATH] [--upgrades 10] [--every 5]

All through one gateway over TLS, with the development certificate: WebSockets that send a message a second and want it back; kept
connections with 500 requests a second, which come again when an answer says `Connection: close`; 100 new connections a second with one
request each; an event stream; uploads that each last over three upgrades. The same over HTTP/2: connections with several streams at a time
that come again at a GOAWAY, an event stream, a WebSocket and an upload, each on a connection that others use too. Nothing is ever tried a second time:
whatever fails is an error. The exit code is 1 if there is one, if a WebSocket or an event stream ends, or if the newest process does not
list what the old ones still serve.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests"))
import http2  # noqa: E402
from harness import tokens  # noqa: E402
from harness.configuration import filled  # noqa: E402
from harness.places import TARGET, empty, resolved  # noqa: E402
from harness.ports import free_port  # noqa: E402
from harness.programs import Programs, listens  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SCRATCH = TARGET / "upgrade"
HOST = "load-k3x9q2.gitspaces.localhost"
KEPT_RATE, KEPT_CONNECTIONS, NEW_RATE = 500, 50, 100
H2_RATE, H2_CONNECTIONS, H2_STREAMS = 200, 10, 5
CHUNK = b"x" * 1024

CONFIG = """
roles = ["gateway"]
state_dir = "@SCRATCH@/state"

[gateway]
domains = ["gitspaces.localhost"]

[[gateway.listen]]
address = "127.0.0.1:0"
protocol = "https"

[gateway.admin]
address = "127.0.0.1:0"

[gateway.limits]
new_connections_per_network = 100000
requests_per_principal = 100000
new_streams_per_principal = 100000
new_streams_per_gitspace = 100000
requests_per_gitspace = 100000

[gateway.access_log]
path = "@SCRATCH@/access"

[[gateway.issuer]]
issuer = "https://issuer.test"
audience = "cde-gateway"

[[gateway.issuer.key]]
id = "load"
algorithm = "ES256"
public_key_file = "@SCRATCH@/issuer.pub"

[[route]]
gitspace = "load-k3x9q2"
upstream = "http://127.0.0.1:@UPSTREAM@"
owner = "alice"
"""


async def upstream(port):
    """Echoes unmasked what came masked on WebSockets, says something every second on an event stream, counts uploads, answers the rest."""
    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"GET /socket" in head:
                    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)[1]
                    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: %s\r\n\r\n" % accept)
                    while True:
                        frame = await reader.readexactly(6)
                        length = frame[1] & 0x7F
                        payload = bytes(byte ^ frame[2 + at % 4] for at, byte in enumerate(await reader.readexactly(length)))
                        writer.write(bytes([frame[0], length]) + payload)
                if b"GET /events" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                    while True:
                        writer.write(b"data: 1\n\n")
                        await writer.drain()
                        await asyncio.sleep(1)
                body = b"fine"
                if head.startswith(b"POST"):
                    fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
                    length = next(int(value) for name, _, value in fields if name == b"content-length")
                    left = length
                    while left:
                        left -= len(await reader.readexactly(min(left, len(CHUNK))))
                    body = str(length).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


class Load:
    def __init__(self, port, token, arguments):
        self.port, self.arguments, self.running = port, arguments, True
        self.tls = ssl.create_default_context(cafile=SCRATCH / "state/dev/ca.pem")
        self.fields = f"host: {HOST}\r\nx-gitspace-token: {token}\r\n"
        self.h2_fields = [(b"x-gitspace-token", token.encode())]
        kinds = ("kept", "new", "messages", "events", "uploads", "h2", "h2 messages", "h2 events", "h2 uploads")
        self.errors, self.counts, self.slowest, self.reconnects = [], dict.fromkeys(kinds, 0), {}, {"kept": 0, "h2": 0}

    async def open(self):
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=HOST)

    async def ask(self, reader, writer):
        """One request; its answer's head."""
        writer.write(f"GET / HTTP/1.1\r\n{self.fields}\r\n".encode())
        return await self.answer(reader, b"fine")

    async def answer(self, reader, wanted):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200 "):
            raise OSError(head.decode(errors="replace"))
        length = int(head.split(b"content-length:")[1].split()[0])
        body = await reader.readexactly(length)
        if body != wanted:
            raise OSError(repr(body))
        return head

    def note(self, kind, begun):
        self.counts[kind] += 1
        self.slowest[kind] = max(self.slowest.get(kind, 0), time.monotonic() - begun)

    async def guarded(self, kind, work):
        try:
            await work
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ssl.SSLError) as error:
            self.errors.append(f"{time.strftime('%T')} {kind}: {error!r}")

    async def kept(self, number):
        """One request every so often, on one connection as long as it holds."""
        await asyncio.sleep(number / KEPT_RATE)
        connection, due = None, time.monotonic()
        while self.running:
            begun = time.monotonic()
            connection = connection or await self.open()
            if b"connection: close" in await self.ask(*connection):
                connection[1].close()
                connection = None
                self.reconnects["kept"] += 1
            self.note("kept", begun)
            due += KEPT_CONNECTIONS / KEPT_RATE
            await asyncio.sleep(max(0, due - time.monotonic()))

    async def one(self):
        begun = time.monotonic()
        reader, writer = await self.open()
        await self.ask(reader, writer)
        writer.close()
        self.note("new", begun)

    async def new(self):
        due, pending = time.monotonic(), set()
        while self.running:
            task = asyncio.create_task(self.guarded("new", self.one()))
            pending.add(task)
            task.add_done_callback(pending.discard)
            due += 1 / NEW_RATE
            await asyncio.sleep(max(0, due - time.monotonic()))
        await asyncio.gather(*pending)

    async def socket(self, number):
        reader, writer = await self.open()
        upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        writer.write(f"GET /socket HTTP/1.1\r\n{self.fields}{upgrade}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise OSError(head.decode())
        await asyncio.sleep(number / self.arguments.sockets)
        count = 0
        while self.running:
            begun = time.monotonic()
            word = b"%06d" % count
            writer.write(b"\x81\x86\x00\x00\x00\x00" + word)
            back = await asyncio.wait_for(reader.readexactly(8), 10)
            if back != b"\x81\x06" + word:
                raise OSError(f"{back!r} came back for {word!r}")
            self.note("messages", begun)
            count += 1
            await asyncio.sleep(max(0, begun + 1 - time.monotonic()))
        writer.close()

    async def events(self):
        reader, writer = await self.open()
        writer.write(f"GET /events HTTP/1.1\r\n{self.fields}\r\n".encode())
        while self.running:
            begun = time.monotonic()
            await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), 10)
            self.note("events", begun)
        writer.close()

    async def uploads(self):
        while self.running:
            begun = time.monotonic()
            reader, writer = await self.open()
            chunks = int(3.3 * self.arguments.every / 0.2)
            writer.write(f"POST / HTTP/1.1\r\n{self.fields}content-length: {chunks * len(CHUNK)}\r\n\r\n".encode())
            for _ in range(chunks):
                writer.write(CHUNK)
                await writer.drain()
                await asyncio.sleep(0.2)
            await self.answer(reader, str(chunks * len(CHUNK)).encode())
            writer.close()
            self.note("uploads", begun)

    async def h2(self):
        """Requests of several at a time on one connection, until it goes."""
        place = {}
        one_at_a_time = asyncio.Lock()

        async def connection():
            async with one_at_a_time:
                if "is" not in place or place["is"].goes:
                    self.reconnects["h2"] += "is" in place
                    place["is"] = await http2.Connection.open(self.port, SCRATCH / "state/dev/ca.pem", HOST)
                return place["is"]

        async def ask(number):
            each = H2_CONNECTIONS * H2_STREAMS / H2_RATE
            await asyncio.sleep(number * each / H2_STREAMS)
            due = time.monotonic()
            while self.running:
                begun = time.monotonic()
                if (body := await (await connection()).ask(b"/", self.h2_fields)) != b"fine":
                    raise OSError(repr(body))
                self.note("h2", begun)
                due += each
                await asyncio.sleep(max(0, due - time.monotonic()))

        first = await connection()
        await asyncio.gather(*(ask(n) for n in range(H2_STREAMS)), self.h2_events(first), self.h2_socket(first), self.h2_uploads(connection))

    async def h2_socket(self, connection):
        """A WebSocket within the connection (RFC 8441), for all of the time; a message a second."""
        fields = [(b":protocol", b"websocket"), (b"sec-websocket-version", b"13"), *self.h2_fields]
        number, stream = connection.begin(b"/socket", fields, b"CONNECT", end=False)
        await stream.wait(lambda: stream.status)
        count = 0
        while self.running:
            begun, word = time.monotonic(), b"%06d" % count
            await connection.send(number, stream, b"\x81\x86\x00\x00\x00\x00" + word)
            await stream.wait(lambda: len(stream.data) >= 8 or stream.ended)
            if stream.data != b"\x81\x06" + word or stream.status != 200 or stream.ended:
                raise OSError(f"status {stream.status}: {stream.data!r} came back for {word!r}")
            stream.data = b""
            self.note("h2 messages", begun)
            count += 1
            await asyncio.sleep(max(0, begun + 1 - time.monotonic()))
        connection.done(number)

    async def h2_events(self, connection):
        """An event stream for all of the time, on the connection that others leave when it goes."""
        number, stream = connection.begin(b"/events", self.h2_fields)
        while self.running:
            await stream.wait(lambda: stream.data or stream.ended)
            if stream.ended or stream.status != 200:
                raise OSError(f"status {stream.status}, ended: {stream.ended}")
            self.counts["h2 events"] += stream.data.count(b"data: 1")
            stream.data = b""
        connection.done(number)

    async def h2_uploads(self, connection):
        while self.running:
            begun, chunks, here = time.monotonic(), int(3.3 * self.arguments.every / 0.2), await connection()
            fields = [*self.h2_fields, (b"content-length", str(chunks * len(CHUNK)).encode())]
            number, stream = here.begin(b"/", fields, b"POST", end=False)
            for chunk in range(chunks):
                await here.send(number, stream, CHUNK, end=chunk == chunks - 1)
                await asyncio.sleep(0.2)
            if (body := await here.answer(number, stream)) != str(chunks * len(CHUNK)).encode():
                raise OSError(repr(body))
            self.note("h2 uploads", begun)

    async def all(self):
        work = [("kept", self.kept(n)) for n in range(KEPT_CONNECTIONS)]
        work += [("h2", self.h2()) for _ in range(H2_CONNECTIONS)]
        work += [("socket", self.socket(n)) for n in range(self.arguments.sockets)]
        work += [("new", self.new()), ("events", self.events()), ("upload", self.uploads()), ("upload", self.uploads())]
        await asyncio.gather(*(self.guarded(kind, one) for kind, one in work))


def ports():
    """Of the gateway and its admin API, as soon as it tells them and can be upgraded."""
    for line in (SCRATCH / "gateway.log").read_text().splitlines():
        if '"gateway listens"' in line and list((SCRATCH / "state").glob("process-*.sock")):
            line = json.loads(line)
            return [int(line[name].rstrip("])").rpartition(":")[2]) for name in ("addresses", "admin")]
    return None


def streams(admin_port):
    token = (SCRATCH / "state/admin.token").read_text().strip()
    request = urllib.request.Request(f"http://127.0.0.1:{admin_port}/v1/streams", headers={"authorization": f"Bearer {token}"})
    listed = json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30))
    return sum(stream["protocol"] == "websocket" for stream in listed)


def memory(pid):
    fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


async def measure(arguments, port, admin_port, token, pids):
    load = Load(port, token, arguments)
    working = asyncio.create_task(load.all())
    deadline = time.monotonic() + 60
    sockets = arguments.sockets + H2_CONNECTIONS
    while await asyncio.to_thread(streams, admin_port) < sockets:
        if time.monotonic() > deadline or load.errors:
            sys.exit(f"not all WebSockets came: {load.errors[:3]}")
        await asyncio.sleep(0.2)
    problems, took, program = [], [], arguments.program
    for number in range(arguments.upgrades):
        await asyncio.sleep(arguments.every)
        begun = time.monotonic()
        upgrade = await asyncio.create_subprocess_exec(
            program, "upgrade", "--config", SCRATCH / "gateway.toml", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, words = await upgrade.communicate()
        took.append(time.monotonic() - begun)
        if upgrade.returncode:
            sys.exit(f"upgrade {number}: {words.decode()}")
        pids.append(int(out))
        print(f"{number + 1}: {took[-1]:.2f} s, {len(load.errors)} errors; {words.decode().strip()}", flush=True)
    await asyncio.sleep(arguments.every)
    listed = await asyncio.to_thread(streams, admin_port)
    if listed != sockets:
        problems.append(f"{listed} WebSockets are listed")
    alive = [pid for pid in pids if pathlib.Path(f"/proc/{pid}/cmdline").exists() and pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
    print(f"processes: {', '.join(f'{memory(pid):.0f} MiB' for pid in alive)}")
    load.running = False
    await asyncio.wait_for(working, 5 * arguments.every + 30)
    deadline = time.monotonic() + 90
    while len(list((SCRATCH / "state").glob("process-*.sock"))) > 1:
        if time.monotonic() > deadline:
            problems.append("old processes stay though nothing is left")
            break
        await asyncio.sleep(0.2)
    for kind, count in load.counts.items():
        slowest = load.slowest.get(kind, 0)
        print(f"{kind}: {count}" + (f", the slowest {slowest * 1000:.0f} ms" if kind in ("kept", "new", "messages", "h2", "h2 messages") else ""))
        if not count:
            problems.append(f"no {kind}")
    print(f"kept connections that came again: {load.reconnects['kept']} of HTTP/1.1, {load.reconnects['h2']} of HTTP/2")
    print(f"upgrades: {len(took)}, {min(took):.2f} to {max(took):.2f} s; {listed} WebSockets at the end; {len(load.errors)} errors")
    for error in load.errors[:20]:
        print(error)
    if load.errors or problems:
        sys.exit("; ".join(problems) or "errors")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=resolved, default=TARGET / "release" / "cde-gateway", help="the gateway, an optimized build")
    parser.add_argument("--upgrades", type=int, default=10)
    parser.add_argument("--every", type=float, default=5, help="seconds between two")
    parser.add_argument("--sockets", type=int, default=200)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.upstream:
        return asyncio.run(upstream(arguments.upstream))
    empty(SCRATCH)
    tokens.keys(SCRATCH)
    port = free_port()
    (SCRATCH / "gateway.toml").write_text(filled(CONFIG, SCRATCH=SCRATCH, UPSTREAM=port))
    token = tokens.mint(arguments.program, SCRATCH / "issuer.pem", "alice", "--kid", "load")
    command = [arguments.program, "--log-format", "json", "run", "--config", SCRATCH / "gateway.toml"]
    with Programs(SCRATCH) as programs:
        programs.start("upstream", [sys.executable, HERE / "run.py", "--upstream", port], lambda: listens(port))
        pids = [programs.start("gateway", command, ports).pid]
        try:
            asyncio.run(measure(arguments, *ports(), token, pids))
        finally:
            # Those of the upgrades are nobody's children.
            for pid in pids[1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    main()
