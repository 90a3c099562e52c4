#!/usr/bin/env python3
"""What becomes of WebSockets when something behind or before the gateway fails without a word: real processes, a network that is pulled out.

    sudo tests/faults/run.py [--gateway PROGRAM]

- A client, and a gitspace, in a network of their own whose cable is pulled: no byte, no reset. Both streams must end within 60 s, by the defaults.
- A gitspace that is frozen (SIGSTOP): its WebSocket stays, a request is answered 504 in time, and all goes on when it is let go.
- A gitspace that is killed (SIGKILL): its WebSocket ends at once, and says whose fault it was.
- A client that reads nothing: the gateway's memory stays bounded, and others are served.

It needs root, for a network namespace; nothing else of the machine is touched. Standard library only. The exit code is 1 if anything is otherwise.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.configuration import filled  # noqa: E402
from harness.places import TARGET, empty, resolved  # noqa: E402
from harness.ports import free_port  # noqa: E402

HERE = pathlib.Path(__file__).resolve()
SCRATCH = TARGET / "faults"
SPACE, NEAR, FAR = "cde-faults", "10.213.77.1", "10.213.77.2"
WITHIN = 60

CONFIG = """
roles = ["gateway"]
state_dir = "@SCRATCH@/state"
[gateway]
domains = ["gitspaces.localhost"]
[[gateway.listen]]
address = "127.0.0.1:@PORT@"
protocol = "http"
[[gateway.listen]]
address = "@NEAR@:@PORT@"
protocol = "http"
[gateway.admin]
address = "127.0.0.1:@ADMIN@"
[gateway.timeouts]
response_head = "2s"
[gateway.access_log]
path = "@SCRATCH@/access"
[[route]]
gitspace = "here-k3x9q2"
upstream = "http://127.0.0.1:@APP@"
owner = "alice"
visibility = "public"
[[route]]
gitspace = "away-k3x9q2"
upstream = "http://@FAR@:@APP@"
owner = "alice"
visibility = "public"
"""


def app(address, port):
    """Switches whoever wants a WebSocket, floods those that ask for it, and answers others with 200. A process of its own, so that it can be frozen."""
    listener = socket.create_server((address, int(port)), backlog=64)
    kept = []
    while True:
        stream, _ = listener.accept()
        if os.fork():
            stream.close()
            continue
        head = b""
        while b"\r\n\r\n" not in head:
            head += stream.recv(65536) or sys.exit()
        if b"pgrade: websocket" not in head:
            stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            sys.exit()
        stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        kept.append(stream)
        frame = b"\x82\x7e\xff\xff" + bytes(65535)
        try:
            while b"/flood" in head:
                stream.sendall(frame)
            while data := stream.recv(65536):
                stream.sendall(b"\x81\x02" + bytes(byte ^ data[2 + at] for at, byte in enumerate(data[6:8])))
        except OSError:
            pass
        sys.exit()


def opened(address, port, host, path="/"):
    stream = socket.create_connection((address, int(port)), 5)
    stream.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}.gitspaces.localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                   "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    answer = stream.recv(65536) if path == "/" else stream.recv(200)
    if b" 101 " not in answer:
        sys.exit(f"{host}: {answer[:200]}")
    return stream


def echoes(stream):
    stream.settimeout(5)
    stream.sendall(b"\x81\x82\x01\x02\x03\x04" + bytes((ord("h") ^ 1, ord("i") ^ 2)))
    return stream.recv(4) == b"\x81\x02hi"


def ip(*words, check=True):
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"ip {' '.join(words)}: {done.stderr.strip()}; it needs root and the right to make network namespaces")


def network():
    ip("netns", "add", SPACE)
    ip("link", "add", "cdef0", "type", "veth", "peer", "name", "cdef1", "netns", SPACE)
    ip("addr", "add", f"{NEAR}/30", "dev", "cdef0")
    ip("link", "set", "cdef0", "up")
    for words in (["addr", "add", f"{FAR}/30", "dev", "cdef1"], ["link", "set", "cdef1", "up"], ["link", "set", "lo", "up"]):
        ip("-n", SPACE, *words)


class Run:
    def __init__(self):
        self.children, self.failed = [], []
        self.port, self.admin, self.app = (free_port() for _ in range(3))

    def begin(self, program):
        self.here = self.start([sys.executable, HERE, "--app", "127.0.0.1", self.app])
        self.start(["ip", "netns", "exec", SPACE, sys.executable, HERE, "--app", FAR, self.app])
        text = filled(CONFIG, SCRATCH=SCRATCH, PORT=self.port, ADMIN=self.admin, APP=self.app, NEAR=NEAR, FAR=FAR)
        (SCRATCH / "config.toml").write_text(text)
        self.gateway = self.start([program, "run", "--config", SCRATCH / "config.toml"])
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline and all(child.poll() is None for child in self.children):
            try:
                if all(self.get(gitspace) == 200 for gitspace in ("here-k3x9q2", "away-k3x9q2")):
                    return
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit(f"the gateway, or an app, did not start; their log:\n{(SCRATCH / 'log').read_text()[-2000:]}")

    def start(self, command):
        with (SCRATCH / "log").open("a") as log:
            child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=SCRATCH, start_new_session=True)
        self.children.append(child)
        return child

    def get(self, host):
        stream = socket.create_connection(("127.0.0.1", self.port), 5)
        stream.settimeout(10)
        stream.sendall(f"GET / HTTP/1.1\r\nhost: {host}.gitspaces.localhost\r\nconnection: close\r\n\r\n".encode())
        return int(stream.recv(65536).split()[1])

    def streams(self):
        token = (SCRATCH / "state" / "admin.token").read_text().strip()
        asked = urllib.request.Request(f"http://127.0.0.1:{self.admin}/v1/streams", headers={"authorization": f"Bearer {token}"})
        return json.load(urllib.request.urlopen(asked, timeout=5))

    def account(self, **wanted):
        """The line of the access log that has these members, when it is there."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for line in (SCRATCH / "access").read_text().splitlines():
                line = json.loads(line)
                if all(line.get(name) == value for name, value in wanted.items()):
                    return line
            time.sleep(0.05)
        return None

    def check(self, words, good):
        print(f"{'ok    ' if good else 'FAILED'} {words}", flush=True)
        self.failed += [] if good else [words]

    def pulled(self):
        client = subprocess.Popen(["ip", "netns", "exec", SPACE, sys.executable, HERE, "--client", NEAR, str(self.port)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.children.append(client)
        client.stdout.readline()
        ours = opened("127.0.0.1", self.port, "away-k3x9q2")
        self.check("a client and a gitspace of the other network are connected", echoes(ours) and len(self.streams()) == 2)
        ip("-n", SPACE, "link", "set", "cdef1", "down")
        start, ended = time.monotonic(), {}
        while len(ended) < 2 and time.monotonic() < start + 2 * WITHIN:
            alive = {stream["gitspace"] for stream in self.streams()}
            for gitspace in ("here-k3x9q2", "away-k3x9q2"):
                if gitspace not in alive:
                    ended.setdefault(gitspace, time.monotonic() - start)
            time.sleep(0.1)
        for gitspace, whose, by in (("here-k3x9q2", "client", "client"), ("away-k3x9q2", "gitspace", "gitspace")):
            took = ended.get(gitspace, float("inf"))
            line = self.account(gitspace=gitspace, ended_by=by, status=101)
            self.check(f"the stream of the {whose} that vanished ended after {took:.1f} s, by the {by}", took <= WITHIN and line is not None)
        ours.settimeout(2)
        self.check("whoever was connected to that gitspace was told", ours.recv(4096) == b"")
        ip("-n", SPACE, "link", "set", "cdef1", "up")

    def frozen(self):
        stream = opened("127.0.0.1", self.port, "here-k3x9q2")
        self.check("a WebSocket echoes", echoes(stream))
        os.killpg(self.here.pid, signal.SIGSTOP)
        start = time.monotonic()
        status = self.get("here-k3x9q2")
        self.check(f"a request to a frozen gitspace is answered {status} after {time.monotonic() - start:.1f} s", status == 504)
        self.check("its WebSocket is still there", len(self.streams()) == 1)
        os.killpg(self.here.pid, signal.SIGCONT)
        self.check("and goes on when it is let go", echoes(stream))
        stream.close()

    def slow(self):
        stream = opened("127.0.0.1", self.port, "here-k3x9q2", "/flood")
        resident = lambda: int(pathlib.Path(f"/proc/{self.gateway.pid}/status").read_text().split("VmRSS:")[1].split()[0])
        before = resident()
        time.sleep(3)
        more = resident() - before
        self.check(f"a client that reads nothing of a flood costs {more} KiB in 3 s", more < 1024)
        self.check("others are served", self.get("here-k3x9q2") == 200)
        stream.close()

    def killed(self):
        stream = opened("127.0.0.1", self.port, "here-k3x9q2")
        self.check("a WebSocket echoes", echoes(stream))
        start = time.monotonic()
        os.killpg(self.here.pid, signal.SIGKILL)
        stream.settimeout(5)
        try:
            rest = stream.recv(4096)
        except ConnectionResetError:
            rest = b""
        self.check(f"the WebSocket of a gitspace that was killed ends after {time.monotonic() - start:.2f} s", rest == b"")

    def stop(self):
        for child in self.children:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                child.kill()
        ip("netns", "del", SPACE, check=False)


def client(address, port):
    stream = opened(address, port, "here-k3x9q2")
    print("echoes" if echoes(stream) else "does not echo", flush=True)
    signal.pause()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--gateway", type=resolved, default=TARGET / "debug" / "cde-gateway")
    arguments.add_argument("--app", nargs=2, help=argparse.SUPPRESS)
    arguments.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.app:
        return app(*options.app)
    if options.client:
        return client(*options.client)
    empty(SCRATCH)
    run = Run()
    try:
        network()
        run.begin(options.gateway)
        run.pulled()
        run.frozen()
        run.slow()
        run.killed()
    finally:
        run.stop()
    if run.failed:
        sys.exit(f"{len(run.failed)} failed")
    print("everything ended as it should")


if __name__ == "__main__":
    main()
