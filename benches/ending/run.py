#!/usr/bin/env python3
"""How long it takes until half of what is open has ended, once it is revoked, and whether the other half notices.

    benches/ending/run.py [--program PATH] [--sockets 5000] [--others 100]

Opens WebSockets, and as many server-sent event streams and uploads as are wanted, through one gateway: half with one user's token, half with
another's. Then it revokes the first user by the admin API, and waits for the end of all that hangs on it: a close frame with 1008, a cut
answer, 403. What the other user has must go on, and after a restart (kill -9) the revoked one must be refused. The exit code is 1
if anything is otherwise, or later than two seconds.
"""

import argparse
import asyncio
import json
import pathlib
import signal
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests"))
from harness import tokens  # noqa: E402
from harness.configuration import filled  # noqa: E402
from harness.places import TARGET, empty, resolved  # noqa: E402
from harness.ports import free_port  # noqa: E402
from harness.programs import Programs, listens  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SCRATCH = TARGET / "ending"
HOST = "load-k3x9q2.gitspaces.localhost"
WITHIN = 2.0

CONFIG = """
roles = ["gateway"]
state_dir = "@SCRATCH@/state"

[gateway]
domains = ["gitspaces.localhost"]

[[gateway.listen]]
address = "127.0.0.1:@PORT@"
protocol = "http"

[gateway.admin]
address = "127.0.0.1:@ADMIN@"

[gateway.upstreams]
max_connections = 50000

[gateway.limits]
connections = 50000
connections_per_network = 50000
new_connections_per_network = 100000
requests_per_principal = 100000
new_streams_per_principal = 100000
streams_per_principal = 50000
new_streams_per_gitspace = 100000
requests_per_gitspace = 100000
streams_per_gitspace = 50000

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
allow = ["goes", "stays"]
"""


async def upstream(port):
    """Echoes unmasked what came masked on WebSockets, begins an event stream that never ends, takes uploads without an answer."""
    async def serve(reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/socket" in head:
                # The accept value is of no matter to this client.
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
                while True:
                    frame = await reader.readexactly(6)
                    length = frame[1] & 0x7F
                    payload = bytes(byte ^ frame[2 + at % 4] for at, byte in enumerate(await reader.readexactly(length)))
                    writer.write(bytes([frame[0], length]) + payload)
            if b"/events" in head:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
            while await reader.read(65536):
                pass
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


class Stream:
    def __init__(self, kind, goes):
        self.kind, self.goes, self.ended, self.how = kind, goes, None, None

    async def open(self, port, token):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"host: {HOST}\r\nx-gitspace-token: {token}\r\n"
        if self.kind == "socket":
            head = f"GET /socket HTTP/1.1\r\n{head}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        elif self.kind == "events":
            head = f"GET /events HTTP/1.1\r\n{head}\r\n"
        else:
            head = f"POST /upload HTTP/1.1\r\n{head}content-length: 1000\r\n\r\nbegin"
        self.writer.write(head.encode())
        if self.kind != "upload":
            answer = await self.reader.readuntil(b"\r\n\r\n")
            wanted = b" 101 " if self.kind == "socket" else b" 200 "
            if wanted not in answer.split(b"\r\n")[0]:
                sys.exit(f"{self.kind}: {answer.decode()}")

    async def wait(self):
        """Until it ends."""
        try:
            if self.kind == "socket":
                frame = await self.reader.readexactly(2)
                word = await self.reader.readexactly(frame[1])
                self.how = int.from_bytes(word[:2]) if frame[0] == 0x88 else frame
            else:
                rest = await self.reader.read(-1)
                self.how = int(rest.split()[1]) if rest.startswith(b"HTTP/") else "cut" if not rest.endswith(b"0\r\n\r\n") else "ended as if whole"
        except (asyncio.IncompleteReadError, OSError) as error:
            self.how = repr(error)
        self.ended = time.monotonic()

    async def lives(self):
        if self.kind == "socket":
            self.writer.write(b"\x81\x82\x00\x00\x00\x00hi")
            return await asyncio.wait_for(self.reader.readexactly(4), 10) == b"\x81\x02hi"
        self.writer.write(b"more" if self.kind == "upload" else b"")
        return not self.reader.at_eof()


def admin(port, path, body=None):
    token = (SCRATCH / "state/admin.token").read_text().strip()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode() if body else None, headers)
    return json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30))


async def status(port, token):
    stream = Stream("events", False)
    stream.reader, stream.writer = await asyncio.open_connection("127.0.0.1", port)
    stream.writer.write(f"GET /events HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\n\r\n".encode())
    return int((await stream.reader.readuntil(b"\r\n")).split()[1])


async def measure(arguments, port, admin_port, issued, restart):
    streams = [Stream("socket", n % 2 == 0) for n in range(arguments.sockets)]
    streams += [Stream(kind, n % 2 == 0) for kind in ("events", "upload") for n in range(arguments.others)]
    for batch in range(0, len(streams), 100):
        await asyncio.gather(*(one.open(port, issued[0 if one.goes else 1]) for one in streams[batch:batch + 100]))
    deadline = time.monotonic() + 30
    while len(await asyncio.to_thread(admin, admin_port, "/v1/streams")) < len(streams):
        if time.monotonic() > deadline:
            sys.exit("not all are listed")
        await asyncio.sleep(0.1)
    going = [one for one in streams if one.goes]
    waits = [asyncio.create_task(one.wait()) for one in going]
    begun = time.monotonic()
    await asyncio.to_thread(admin, admin_port, "/v1/revocations", {"kind": "sub", "id": "goes", "by": "root", "reason": "left"})
    acknowledged = time.monotonic() - begun
    await asyncio.wait(waits, timeout=20)
    problems = []
    for kind, how in (("socket", 1008), ("events", "cut"), ("upload", 403)):
        of_kind = [one for one in going if one.kind == kind]
        took = sorted(one.ended - begun for one in of_kind if one.ended)
        otherwise = {str(one.how) for one in of_kind if one.how != how}
        print(f"{kind}: {len(took)} of {len(of_kind)} ended; the first after {took[0]:.2f} s, the median {took[len(took) // 2]:.2f} s, the last {took[-1]:.2f} s")
        if otherwise or len(took) < len(of_kind) or took[-1] > WITHIN:
            problems.append(f"{kind}: {otherwise or 'late'}")
    lives = await asyncio.gather(*(one.lives() for one in streams if not one.goes), return_exceptions=True)
    print(f"acknowledged after {acknowledged * 1000:.0f} ms; of the other {len(lives)}, {lives.count(True)} go on")
    if lives.count(True) < len(lives):
        problems.append("others noticed")
    restart()
    after = [await status(port, token) for token in issued]
    print(f"after a restart: {after[0]} for the revoked user, {after[1]} for the other")
    if after != [401, 200]:
        problems.append("after the restart")
    if problems:
        sys.exit("; ".join(problems))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=resolved, default=TARGET / "release" / "cde-gateway", help="the gateway, an optimized build")
    parser.add_argument("--sockets", type=int, default=5000)
    parser.add_argument("--others", type=int, default=100, help="event streams, and so many uploads")
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.upstream:
        return asyncio.run(upstream(arguments.upstream))
    empty(SCRATCH)
    tokens.keys(SCRATCH)
    port, admin_port, behind = (free_port() for _ in range(3))
    (SCRATCH / "gateway.toml").write_text(filled(CONFIG, SCRATCH=SCRATCH, PORT=port, ADMIN=admin_port, UPSTREAM=behind))
    issued = [tokens.mint(arguments.program, SCRATCH / "issuer.pem", user, "--kid", "load") for user in ("goes", "stays")]
    with Programs(SCRATCH, signal.SIGKILL) as programs:
        programs.start("upstream", [sys.executable, HERE / "run.py", "--upstream", behind], lambda: listens(behind))
        start = lambda: programs.start("gateway", [arguments.program, "run", "--config", SCRATCH / "gateway.toml"], lambda: listens(port))
        gateway = start()

        def restart():
            programs.stop(gateway)
            start()

        asyncio.run(measure(arguments, port, admin_port, issued, restart))


if __name__ == "__main__":
    main()
