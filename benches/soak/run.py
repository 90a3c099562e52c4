#!/usr/bin/env python3
"""Whether anything is left behind by many short WebSockets: descriptors, tasks and memory of the gateway before and after.

    benches/soak/run.py [--program PATH] [--cycles 10000] [--warm 3000] [--at-once 40]

A cycle opens a WebSocket over TLS, has a message echoed, and ends it in one of four ways: closed in order by the client, by the app, cut off by the
client, cut off by the app. Between them come refusals: no token (401), a port that is closed (404), a gitspace that is stopped (503), an app that
refuses the upgrade (403). First some cycles are made so that what is kept on purpose is there; then it is measured, then the cycles are made, and
it is measured again. The exit code is 1 if more than 2 % is left, or a cycle went otherwise than it should.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import socket
import ssl
import struct
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests"))
from harness import tokens  # noqa: E402
from harness.configuration import filled  # noqa: E402
from harness.places import TARGET, empty, resolved  # noqa: E402
from harness.ports import free_ports  # noqa: E402
from harness.programs import Programs, serves  # noqa: E402

SCRATCH = TARGET / "soak"
HOST, STOPPED = "soak-k3x9q2.gitspaces.localhost", "rest-k3x9q2.gitspaces.localhost"
SLACK = 0.02
SETTLES = 60

CONFIG = """
roles = ["gateway"]
state_dir = "@SCRATCH@/state"
[gateway]
domains = ["gitspaces.localhost"]
[[gateway.listen]]
address = "127.0.0.1:@PORT@"
protocol = "https"
[gateway.admin]
address = "127.0.0.1:@ADMIN@"
[gateway.limits]
connections_per_network = 10000
new_connections_per_network = 1000000
requests_per_principal = 1000000
requests_per_anonymous = 1000000
requests_per_gitspace = 1000000
new_streams_per_principal = 1000000
new_streams_per_anonymous = 1000000
new_streams_per_gitspace = 1000000
failed_logins_per_network = 1000000
[gateway.access_log]
path = "@SCRATCH@/access"
[[gateway.issuer]]
issuer = "https://issuer.test"
audience = "cde-gateway"
[[gateway.issuer.key]]
id = "soak"
algorithm = "ES256"
public_key_file = "@SCRATCH@/issuer.pub"
[[route]]
gitspace = "soak-k3x9q2"
upstream = "http://127.0.0.1:@UPSTREAM@"
owner = "alice"
"""
RESTS = {"gitspace": "rest-k3x9q2", "generation": 1, "state": "stopped", "owner": "alice", "ide": {"port": 80}}


def cut(writer):
    """Without a goodbye."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def upstream(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" /no " in head:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        frame = await reader.readexactly(8)
        writer.write(b"\x81\x02" + bytes(byte ^ frame[2 + at] for at, byte in enumerate(frame[6:8])))
        if b" /app-closes " in head:
            writer.write(b"\x88\x02\x03\xe8")
        elif b" /app-cuts " in head:
            await writer.drain()
            return cut(writer)
        await reader.read(65536)
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        if not writer.is_closing():
            writer.close()


class Client:
    def __init__(self, port, token, tls):
        self.port, self.token, self.tls, self.outcomes = port, token, tls, collections.Counter()

    async def open(self, host, path, token=True):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=host)
        said = f"x-gitspace-token: {self.token}\r\n" if token else ""
        writer.write((f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{said}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                      "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n").encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1]), reader, writer

    async def cycle(self, number):
        how = ("closes", "cuts", "app-closes", "app-cuts")[number % 4]
        status, reader, writer = await self.open(HOST, f"/{how}")
        if status != 101:
            self.outcomes[f"a WebSocket was answered {status}"] += 1
            return writer.close()
        writer.write(b"\x81\x82\x01\x02\x03\x04" + bytes((ord("h") ^ 1, ord("i") ^ 2)))
        try:
            echo = await reader.readexactly(4)
            self.outcomes[how if echo == b"\x81\x02hi" else f"echo {echo}"] += 1
        except (asyncio.IncompleteReadError, OSError):
            self.outcomes["no echo"] += how != "app-cuts"
            self.outcomes["app-cuts"] += how == "app-cuts"
        if how == "closes":
            writer.write(b"\x88\x82\0\0\0\0\x03\xe8")
        if how == "cuts":
            return cut(writer)
        try:
            await reader.read(100)
            writer.close()
            await writer.wait_closed()
        except OSError:
            pass

    async def refusal(self, number):
        host, path, token, wanted = ((HOST, "/", False, 401), (HOST.replace("k3x9q2", "k3x9q2-9999"), "/", True, 404), (STOPPED, "/", True, 503), (HOST, "/no", True, 403))[number % 4]
        status, _, writer = await self.open(host, path, token)
        self.outcomes[status if status == wanted else f"{status} instead of {wanted}"] += 1
        writer.close()

    async def cycles(self, count, at_once):
        numbers = iter(range(count))

        async def work():
            for number in numbers:
                await asyncio.wait_for(self.cycle(number), 30)
                if number % 3 == 0:
                    await asyncio.wait_for(self.refusal(number // 3), 30)
        await asyncio.gather(*(work() for _ in range(at_once)))


class Gateway:
    def __init__(self, programs, program, admin):
        self.child = programs.start("gateway", [program, "run", "--config", SCRATCH / "config.toml"], lambda: serves(f"http://127.0.0.1:{admin}/readyz"))
        self.admin, self.token = admin, (SCRATCH / "state" / "admin.token").read_text().strip()

    def ask(self, path, method="GET", body=None):
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        asked = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method=method, headers=headers, data=body and json.dumps(body).encode())
        return urllib.request.urlopen(asked, timeout=5).read().decode()

    def metrics(self):
        return self.ask("/metrics")

    def put(self, path, body):
        self.ask(path, "PUT", body)

    def tasks(self):
        return int(next(line.split()[-1] for line in self.metrics().splitlines() if line.startswith("cde_gateway_tasks ")))

    def measured(self):
        """When all is closed: descriptors, tasks, KiB."""
        process = pathlib.Path(f"/proc/{self.child.pid}")
        deadline = time.monotonic() + SETTLES
        # What rests in the pool is closed after its time.
        last = None
        while time.monotonic() < deadline:
            now = (len(list((process / "fd").iterdir())), self.tasks())
            if now == last and self.tasks() <= LISTENERS:
                break
            last = now
            time.sleep(2)
        resident = int((process / "status").read_text().split("VmRSS:")[1].split()[0])
        return {"descriptors": last[0], "tasks": last[1], "KiB resident": resident}


LISTENERS = os.cpu_count() or 1


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", type=resolved, default=TARGET / "release" / "cde-gateway")
    arguments.add_argument("--cycles", type=int, default=10_000)
    arguments.add_argument("--warm", type=int, default=10_000)
    arguments.add_argument("--at-once", type=int, default=40)
    options = arguments.parse_args()
    program = options.program
    empty(SCRATCH)
    tokens.keys(SCRATCH)
    ports = free_ports(["PORT", "ADMIN"])
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(upstream, "127.0.0.1", 0, backlog=1024))
    (SCRATCH / "config.toml").write_text(filled(CONFIG, SCRATCH=SCRATCH, UPSTREAM=server.sockets[0].getsockname()[1], **ports))
    with Programs(SCRATCH) as programs:
        gateway = Gateway(programs, program, ports["ADMIN"])
        gateway.put("/v1/routes/rest-k3x9q2", RESTS)
        gitspaces = ["--gitspace", "soak-k3x9q2", "--gitspace", "rest-k3x9q2"]
        token = tokens.mint(program, SCRATCH / "issuer.pem", "alice", "--audience", "cde-gateway", *gitspaces, "--ttl", "1h")
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        client = Client(ports["PORT"], token, tls)
        loop.run_until_complete(client.cycles(options.warm, options.at_once))
        loop.run_until_complete(asyncio.sleep(1))
        before = gateway.measured()
        client.outcomes.clear()
        start = time.monotonic()
        loop.run_until_complete(client.cycles(options.cycles, options.at_once))
        seconds = time.monotonic() - start
        loop.run_until_complete(asyncio.sleep(1))
        after = gateway.measured()
    good = {"closes", "cuts", "app-closes", "app-cuts", 401, 403, 404, 503}
    wrong = {outcome: count for outcome, count in client.outcomes.items() if outcome not in good and count}
    print(f"{options.cycles} cycles in {seconds:.0f} s: " + ", ".join(f"{outcome} {count}" for outcome, count in sorted(client.outcomes.items(), key=str) if count))
    more = {what: after[what] / before[what] - 1 for what in before}
    for what, share in more.items():
        print(f"{what:14} {before[what]:8} before, {after[what]:8} after ({share:+.1%})")
    failed = [what for what, share in more.items() if share > SLACK]
    if wrong or failed:
        sys.exit(f"otherwise: {wrong}; left behind: {failed}")
    print("nothing is left behind")


if __name__ == "__main__":
    main()
