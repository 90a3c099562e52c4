#!/usr/bin/env python3
"""Three equal gateways behind a TCP balancer, of which one is killed now and then; or their control plane is gone for a time.

    tests/balancers/replicas.py [PROGRAM] [--kills 3] [--every 20] [--away SECONDS] [--sockets 60] [--events 30] [--requests 20]

Starts a control plane, three gateways with one file of keys, an app, and HAProxy in TCP mode with the PROXY protocol in front. Clients with one
session cookie hold WebSockets and event streams open and send requests over kept connections. Every so often one gateway is killed with
SIGKILL and started again 5 s later: only what was on it may end, and comes back elsewhere with the same session. With --away the control plane is
killed instead, in the middle of that time a gateway too, and afterwards a new gitspace must reach all gateways. The exit code
is 1 if anything else fails. Needs haproxy, openssl. Loopback only; nothing is left behind but the folder `replicas` in the target folder.
"""

import argparse
import asyncio
import collections
import json
import pathlib
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.certificates import self_signed  # noqa: E402
from harness.configuration import filled  # noqa: E402
from harness.places import TARGET, empty, resolved  # noqa: E402
from harness.ports import free_port  # noqa: E402
from harness.programs import Programs, listens, serves  # noqa: E402

SCRATCH = TARGET / "replicas"
GATEWAYS = 3
# What ends within so many seconds after a kill may have ended by it.
BY_THE_KILL = 2.0
NEWS = 60

CONTROL_PLANE = """
roles = ["control-plane"]
state_dir = "@SCRATCH@/control-plane"
[control_plane]
address = "127.0.0.1:@CONTROL@"
public_url = "https://control.test"
gateway_url = "https://gitspaces.localhost:@FRONT@"
"""

GATEWAY = """
roles = ["gateway"]
state_dir = "@SCRATCH@/gateway-@N@"
[gateway]
domains = ["gitspaces.localhost"]
upstreams = { allow = ["127.0.0.0/8"] }
admin = { address = "127.0.0.1:@ADMIN@" }
access_log = { path = "@SCRATCH@/access-@N@" }
keys = { file = "@SCRATCH@/gateway.keys" }
# So that the app can tell by which of them a request came.
headers = { gitspace = "X-Gateway-@N@" }
[gateway.control_plane]
url = "http://127.0.0.1:@CONTROL@"
token_file = "@SCRATCH@/control-plane/gateway.token"
[gateway.limits]
connections_per_network = 50000
new_connections_per_network = 100000
requests_per_principal = 100000
new_streams_per_principal = 100000
streams_per_principal = 50000
new_streams_per_gitspace = 100000
requests_per_gitspace = 100000
[[gateway.listen]]
address = "127.0.0.1:@PORT@"
protocol = "https"
proxy_protocol_from = ["127.0.0.0/8"]
[[gateway.certificate]]
chain = "@SCRATCH@/cert.pem"
key = "@SCRATCH@/cert.key"
"""

BALANCER = """
defaults
  mode tcp
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  retries 3
  option redispatch 1
listen gateways
  bind 127.0.0.1:@FRONT@
  balance leastconn
  option httpchk GET /readyz
  default-server check inter 200ms fall 2 rise 2 send-proxy-v2 on-marked-down shutdown-sessions
"""


def call(port, path, token, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
    request.add_header("authorization", f"Bearer {token}")
    if data is not None:
        request.add_header("content-type", "application/json")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=40) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def wait_for(what, seconds, probe):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if (found := probe()) is not None:
                return found
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.05)
    sys.exit(f"not within {seconds} s: {what}; see {SCRATCH}")


class App:
    """What the gitspace serves: an echo on WebSockets, two events a second, a short answer. It tells by which gateway it was asked."""

    async def start(self):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                by = head.split(b"\r\nx-gateway-")[1][:1]
                if b"get /socket" in head:
                    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nx-served-by: " + by + b"\r\n\r\n")
                    while True:
                        frame = await reader.readexactly(8)
                        if frame[0] != 0x81:
                            return
                        writer.write(b"\x81\x02" + bytes(byte ^ frame[2 + at] for at, byte in enumerate(frame[6:])))
                if b"get /events" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-served-by: " + by + b"\r\n\r\n")
                    while True:
                        writer.write(b"data: 1\n\n")
                        await writer.drain()
                        await asyncio.sleep(0.5)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-served-by: " + by + b"\r\n\r\nok")
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()


class Site:
    """The processes."""

    def __init__(self, program, app):
        self.program, self.app_port = program, app
        self.programs, self.children = Programs(SCRATCH, signal.SIGKILL), {}
        self.front, self.control = free_port(), free_port()
        self.ports, self.admins = [free_port() for _ in range(GATEWAYS)], [free_port() for _ in range(GATEWAYS)]
        self.killed = collections.defaultdict(list)
        empty(SCRATCH)
        self_signed(SCRATCH, "cert", "*.gitspaces.localhost", "gitspaces.localhost")

    def write(self, name, text, **more):
        path = SCRATCH / name
        path.write_text(filled(text, SCRATCH=SCRATCH, FRONT=self.front, CONTROL=self.control, **more))
        return path

    def start(self, name, config, url):
        self.children[name] = self.programs.start(name, [self.program, "run", "--config", config], lambda: serves(url))

    def kill(self, name):
        self.programs.stop(self.children[name])

    def start_control(self):
        config = self.write("control-plane.toml", CONTROL_PLANE)
        self.start("control-plane", config, f"http://127.0.0.1:{self.control}/healthz")

    def start_gateway(self, n):
        config = self.write(f"gateway-{n}.toml", GATEWAY, N=n, ADMIN=self.admins[n], PORT=self.ports[n])
        self.start(f"gateway-{n}", config, f"http://127.0.0.1:{self.admins[n]}/readyz")

    def kill_gateway(self, n):
        self.killed[n].append(time.monotonic())
        self.kill(f"gateway-{n}")

    def start_balancer(self):
        text = BALANCER
        for n in range(GATEWAYS):
            text += f"  server gateway-{n} 127.0.0.1:{self.ports[n]} port {self.admins[n]}\n"
        self.programs.start("haproxy", ["haproxy", "-db", "-f", self.write("haproxy.cfg", text)], lambda: listens(self.front))

    def token(self, name):
        return (SCRATCH / "control-plane" / name).read_text().strip()

    def gitspace(self, name):
        """Makes one that leads to the app, as its delegate would."""
        user, delegate = self.token("user.token"), self.token("delegate.token")
        made = call(self.control, "/v1/gitspaces", user, {"name": name, "repository": "https://git.test/a/b.git"})
        registered = call(self.control, "/v1/delegates", delegate, {"name": "d", "capacity": 4, "runner": "r"})
        for _ in range(2):
            task = call(self.control, f"/v1/delegates/{registered['id']}/acquire?wait=10", delegate, method="POST")
            done = {"outcome": "done", "lease": task["lease"], "address": "127.0.0.1", "ide_port": self.app_port, "ports": {}}
            call(self.control, f"/v1/tasks/{task['id']}/result", delegate, done)
        return made["id"]

    def running(self, n):
        token = (SCRATCH / f"gateway-{n}" / "admin.token").read_text().strip()
        return {route["gitspace"] for route in call(self.admins[n], "/v1/routes", token) if route["state"] == "running"}

    def by_a_kill(self, n, since):
        """Whether a gateway (None: any) was killed just now, after the connection began."""
        now, kills = time.monotonic(), self.killed[n] if n is not None else [at for all in self.killed.values() for at in all]
        return any(now - at < BY_THE_KILL and at >= since - BY_THE_KILL for at in kills)


class Clients:
    def __init__(self, site, host, cookie):
        self.site, self.host, self.cookie = site, host, cookie
        self.tls = ssl.create_default_context(cafile=SCRATCH / "cert.pem")
        self.going, self.on = True, collections.Counter()
        self.done, self.in_flight, self.failed = collections.Counter(), collections.Counter(), collections.Counter()
        self.ended, self.apart, self.served, self.problems = collections.Counter(), [], collections.Counter(), []

    async def open(self):
        return await asyncio.open_connection("127.0.0.1", self.site.front, ssl=self.tls, server_hostname=self.host)

    def head(self, path, more=""):
        return f"GET {path} HTTP/1.1\r\nhost: {self.host}\r\ncookie: {self.cookie}\r\n{more}\r\n".encode()

    async def answer(self, reader, wanted):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if f" {wanted} " not in head.split("\r\n")[0]:
            raise ValueError(head.split("\r\n")[0])
        return int(head.split("\r\nx-served-by: ")[1][0])

    def lost(self, kind, gateway, since, error):
        """A connection ended: by a kill, or it should not have."""
        if self.site.by_a_kill(gateway, since) and not isinstance(error, (ValueError, TimeoutError)):
            self.in_flight[kind] += 1
        else:
            self.failed[kind] += 1
            self.problems.append(f"{kind} at gateway {gateway}: {error!r}")

    async def stream(self, kind):
        """Holds one stream open, and opens another where it ends."""
        lost_at = None
        while self.going:
            gateway, since, writer = None, time.monotonic(), None
            try:
                reader, writer = await self.open()
                upgrade = f"connection: Upgrade\r\nupgrade: websocket\r\norigin: https://{self.host}:{self.site.front}\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                writer.write(self.head("/socket", upgrade) if kind == "socket" else self.head("/events"))
                gateway = await asyncio.wait_for(self.answer(reader, 101 if kind == "socket" else 200), 10)
                if lost_at is not None:
                    self.apart.append(time.monotonic() - lost_at)
                    lost_at = None
                self.on[kind, gateway] += 1
                while self.going:
                    if kind == "socket":
                        writer.write(b"\x81\x82\x00\x00\x00\x00hi")
                        if await asyncio.wait_for(reader.readexactly(4), 10) != b"\x81\x02hi":
                            raise ValueError("not what was sent")
                        await asyncio.sleep(0.5)
                        if reader.at_eof():
                            raise ConnectionResetError
                    elif await asyncio.wait_for(reader.readline(), 10) == b"":
                        raise ConnectionResetError
                    self.done[kind] += 1
            except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError) as error:
                if not self.going:
                    break
                lost_at = lost_at or time.monotonic()
                if gateway is None:
                    self.lost(f"opening a {kind}", None, since, error)
                else:
                    self.ended[gateway] += 1
                    self.lost(kind, gateway, since, error)
            finally:
                if gateway is not None:
                    self.on[kind, gateway] -= 1
                if writer:
                    writer.close()

    async def request(self):
        """Sends requests one after the other, fifty over a connection."""
        while self.going:
            gateway, since, writer = None, time.monotonic(), None
            try:
                reader, writer = await self.open()
                for _ in range(50):
                    if not self.going or reader.at_eof():
                        break
                    writer.write(self.head("/"))
                    gateway = await asyncio.wait_for(self.answer(reader, 200), 10)
                    await asyncio.wait_for(reader.readexactly(2), 10)
                    self.done["request"] += 1
                    self.served[gateway] += 1
                    await asyncio.sleep(0.05)
            except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError) as error:
                if self.going:
                    self.lost("request", gateway, since, error)
            finally:
                if writer:
                    writer.close()

    def open_now(self, gateway=None):
        return sum(count for (_, at), count in self.on.items() if gateway in (None, at))


async def session(site, gitspace):
    """A ticket of the control plane, exchanged at whichever gateway the balancer takes."""
    ticket = await asyncio.to_thread(call, site.control, f"/v1/gitspaces/{gitspace}/ticket", site.token("user.token"), None, "POST")
    _, _, rest = ticket["url"].partition("://")
    host = rest.split("/")[0].split(":")[0]
    path = "/" + rest.partition("/")[2]
    clients = Clients(site, host, "none=1")
    for _ in range(50):
        reader, writer = await clients.open()
        writer.write(clients.head(path, "sec-fetch-mode: navigate\r\n"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
        if " 303 " in head.split("\r\n")[0]:
            clients.cookie = head.split("__Host-gitspace=")[1].split(";")[0]
            clients.cookie = f"__Host-gitspace={clients.cookie}"
            return clients
        await asyncio.sleep(0.1)
    sys.exit(f"no session: {head}")


async def settle(clients, streams, ended=lambda: True, seconds=20):
    """Until what was to end has ended, and all are open again."""
    deadline = time.monotonic() + seconds
    while not ended() or clients.open_now() < streams:
        if time.monotonic() > deadline:
            clients.problems.append(f"{clients.open_now()} of {streams} streams are open {seconds} s later")
            return
        await asyncio.sleep(0.05)


async def kills(site, clients, arguments, streams):
    for round in range(arguments.kills):
        begun, n = time.monotonic(), round % GATEWAYS
        had, ended, others = clients.open_now(n), clients.ended[n], sum(clients.ended.values()) - clients.ended[n]
        clients.apart.clear()
        site.kill_gateway(n)
        await settle(clients, streams, lambda: clients.ended[n] - ended >= had)
        apart = max(clients.apart, default=0)
        ended, others = clients.ended[n] - ended, sum(clients.ended.values()) - clients.ended[n] - others
        print(f"gateway {n} killed: {ended} of its {had} streams ended and were back elsewhere within {apart:.2f} s; of the other {streams - had}, {others} ended", flush=True)
        if ended != had or others:
            clients.problems.append("other streams ended than those of the killed one")
        await asyncio.sleep(max(0, begun + 5 - time.monotonic()))
        await asyncio.to_thread(site.start_gateway, n)
        if round + 1 < arguments.kills:
            await asyncio.sleep(max(0, begun + arguments.every - time.monotonic()))
    await asyncio.sleep(3)


async def away(site, clients, arguments, streams):
    begun = time.monotonic()
    await asyncio.to_thread(site.kill, "control-plane")
    await asyncio.sleep(arguments.away / 2)
    steady = dict(clients.done)
    print(f"control plane gone for {time.monotonic() - begun:.0f} s: {steady}, {sum(clients.ended.values())} streams ended", flush=True)
    if clients.ended:
        clients.problems.append("streams ended though nobody was killed")
    had = clients.open_now(1)
    site.kill_gateway(1)
    await settle(clients, streams, lambda: clients.ended[1] >= had)
    await asyncio.to_thread(site.start_gateway, 1)
    before = clients.served[1]
    await asyncio.sleep(max(5, begun + arguments.away - time.monotonic()))
    print(f"gateway 1 killed and started again from its disk: {clients.ended[1]} of its {had} streams ended; it has answered {clients.served[1] - before} requests since", flush=True)
    if clients.served[1] == before or clients.ended[1] != had:
        clients.problems.append("the gateway that started again does not serve")
    print(f"control plane back after {time.monotonic() - begun:.0f} s", flush=True)
    back = time.monotonic()
    await asyncio.to_thread(site.start_control)
    made = await asyncio.to_thread(site.gitspace, "second")
    for n in range(GATEWAYS):
        await asyncio.to_thread(wait_for, f"the new gitspace at gateway {n}", NEWS, lambda n=n: True if made in site.running(n) else None)
    print(f"a new gitspace is at all gateways {time.monotonic() - back:.1f} s after the control plane was started", flush=True)


async def show(arguments):
    app = App()
    await app.start()
    site = Site(arguments.program, app.port)
    with site.programs:
        await asyncio.to_thread(site.start_control)
        for n in range(GATEWAYS):
            await asyncio.to_thread(site.start_gateway, n)
        gitspace = await asyncio.to_thread(site.gitspace, "first")
        for n in range(GATEWAYS):
            await asyncio.to_thread(wait_for, f"the route at gateway {n}", 30, lambda n=n: True if gitspace in site.running(n) else None)
        await asyncio.to_thread(site.start_balancer)
        await asyncio.sleep(1)
        clients = await session(site, gitspace)
        streams = arguments.sockets + arguments.events
        tasks = [asyncio.create_task(clients.stream("socket")) for _ in range(arguments.sockets)]
        tasks += [asyncio.create_task(clients.stream("events")) for _ in range(arguments.events)]
        tasks += [asyncio.create_task(clients.request()) for _ in range(arguments.requests)]
        await settle(clients, streams)
        print(f"{streams} streams are open, at the gateways {[clients.open_now(n) for n in range(GATEWAYS)]}; requests over {arguments.requests} connections", flush=True)
        await asyncio.sleep(2)
        await (away if arguments.away else kills)(site, clients, arguments, streams)
        if clients.open_now() != streams:
            clients.problems.append(f"{clients.open_now()} of {streams} streams are open at the end")
        clients.going = False
        await asyncio.wait(tasks, timeout=15)
    print(f"messages, events, requests: {clients.done['socket']}, {clients.done['events']}, {clients.done['request']}")
    print(f"lost in flight at a gateway that was killed: {dict(clients.in_flight)}")
    print(f"failed otherwise: {sum(clients.failed.values())}")
    return clients.problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="?", type=resolved, default=TARGET / "debug" / "cde-gateway")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--every", type=float, default=20, help="seconds between two kills")
    parser.add_argument("--away", type=float, default=0, help="kill the control plane for so many seconds instead")
    parser.add_argument("--sockets", type=int, default=60)
    parser.add_argument("--events", type=int, default=30)
    parser.add_argument("--requests", type=int, default=20, help="connections over which requests are sent")
    arguments = parser.parse_args()
    if problems := asyncio.run(show(arguments)):
        sys.exit("; ".join(problems[:20]))


if __name__ == "__main__":
    main()
