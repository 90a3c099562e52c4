#!/usr/bin/env python3
"""Whether a refusal tells by its text or its cost what it hides: requests that must look alike, beside each other.

    benches/refusals/run.py [--program PATH] [--cpu] [--requests 200] [--rounds 3]

A group holds requests that differ in what is there and not in what the sender may know: a gitspace that does not exist beside one that is
private, with many ports and many who may use it. Within a group every answer must be the same, but for its date, its request's number and
its login's state, and the cost must be within one percent of the first one's.

The cost is user instructions of the gateway, counted by callgrind, which a busy machine does not change. With --cpu it is CPU time of the
process, in short rounds that alternate between the kinds; that is only shown, since the noise of a busy machine is larger than what is looked
for: how large, the first group tells, which holds a request against itself. Medians of the rounds' ratios.
"""

import argparse
import json
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests"))
from harness import tokens  # noqa: E402
from harness.configuration import filled  # noqa: E402
from harness.places import TARGET, empty, resolved  # noqa: E402
from harness.ports import free_port  # noqa: E402
from harness.programs import Programs, listens  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SCRATCH = TARGET / "refusals"
ALIKE = 0.01
DOMAIN = "gitspaces.localhost"
UNKNOWN, PRIVATE = "none-k3x9q2", "load-k3x9q2"

ISSUER = """
[[gateway.issuer]]
issuer = "https://issuer.test"
audience = "cde-gateway"

[[gateway.issuer.key]]
id = "load"
algorithm = "ES256"
public_key_file = "@SCRATCH@/issuer.pub"
"""

CONFIG = """
roles = ["gateway"]
state_dir = "@SCRATCH@/state"

[gateway]
domains = ["gitspaces.localhost"]
workers = 1
admin.address = "127.0.0.1:@ADMIN@"

[[gateway.listen]]
address = "127.0.0.1:@PORT@"
protocol = "http"

[gateway.auth]
login_url = "https://login.test/start"

[gateway.limits]
new_connections_per_network = 1000000
requests_per_principal = 1000000
failed_logins_per_network = 1000000

[gateway.access_log]
path = "@SCRATCH@/access"
""" + ISSUER + """
[[route]]
gitspace = "load-k3x9q2"
upstream = "http://127.0.0.1:9"
owner = "alice"
org = "acme"
allow = [@ALLOWED@]
@PORTS@
"""

PAGE = "sec-fetch-mode: navigate\r\naccept: text/html\r\n"
FETCH = "sec-fetch-mode: cors\r\naccept: application/json\r\n"
SOCKET = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
PREFLIGHT = "origin: https://evil.test\r\naccess-control-request-method: PUT\r\n"


def request(gitspace, port, fields, path="/", method="GET"):
    label = f"{gitspace}-{port}" if port else gitspace
    return f"{method} {path} HTTP/1.1\r\nhost: {label}.{DOMAIN}\r\n{fields}\r\n".encode()


def groups(stranger, restricted, forged):
    """Group → kind → request. The first kind is what the others are held against."""
    holder = f"x-gitspace-token: {stranger}\r\n"
    long = f"x-gitspace-token: {restricted}\r\n"
    guess = f"x-gitspace-token: {forged}\r\n"
    kinds = {"no gitspace": (UNKNOWN, 0), "private": (PRIVATE, 0)}
    ports = {"no gitspace": (UNKNOWN, 3000), "private": (PRIVATE, 3000), "of the organization": (PRIVATE, 5000), "not forwarded": (PRIVATE, 6000)}
    every = lambda kinds, *rest: {name: request(*place, *rest) for name, place in kinds.items()}
    return {
        "a request and itself": {name: request(UNKNOWN, 0, FETCH) for name in ("once", "again")},
        "nobody fetches": every(kinds, FETCH),
        "nobody fetches from a port": every(ports, FETCH),
        "nobody opens a page (goes to the login)": every(kinds, PAGE),
        "nobody opens a WebSocket": every(kinds, SOCKET),
        "nobody posts": every(kinds, FETCH + "content-length: 0\r\n", "/", "POST"),
        "a preflight of a stranger": every(ports, PREFLIGHT, "/", "OPTIONS"),
        "who may not fetches": every(kinds, FETCH + holder),
        "who may not fetches from a port": every({name: ports[name] for name in ("no gitspace", "private", "not forwarded")}, FETCH + holder),
        "who may not opens a page": every(kinds, PAGE + holder),
        "who may not asks for the state": every(kinds, FETCH + holder, "/_gitspace/status"),
        "who may not, with a token for 200 gitspaces": every(kinds, FETCH + long),
        "the same for the state": every(kinds, FETCH + long, "/_gitspace/status"),
        "a forged token": every(ports, FETCH + guess),
    }


class Client:
    def __init__(self, port):
        self.socket, self.buffer = socket.create_connection(("127.0.0.1", port), 10), b""
        self.socket.settimeout(60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, text):
        self.socket.sendall(text)
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self.more()
        length = re.search(rb"\r\ncontent-length: (\d+)", self.buffer[:end])
        end += 4 + int(length[1] if length else 0)
        while len(self.buffer) < end:
            self.more()
        answer, self.buffer = self.buffer[:end], self.buffer[end:]
        return answer

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            sys.exit("the gateway closed the connection")
        self.buffer += data


def same(answer):
    """An answer without what differs each time."""
    for varying in [rb"\r\ndate: [^\r]*", rb"[0-9a-f]{16}-[0-9a-f]+", rb"&state=[\w-]+", rb"__Host-gitspace-login=[\w.-]+", rb"(none|load)-k3x9q2(-\d+)?"]:
        answer = re.sub(varying, b"~", answer)
    return answer


def setup(program):
    empty(SCRATCH)
    for name in ("issuer", "other"):
        tokens.keys(SCRATCH, name)
    port, admin = free_port(), free_port()
    origins = ", ".join(f'"https://a{number:03}.test"' for number in range(50))
    visibility = {3000: "private", 5000: "organization"}
    ports = "".join(f'[route.ports.{number}]\nupstream = "http://127.0.0.1:9"\nvisibility = "{visibility.get(number, "private")}"\ncors = [{origins}]\n'
                    for number in [3000, 5000, *range(8001, 8021)])
    allowed = ", ".join(f'"user-{number:04}"' for number in range(200))
    (SCRATCH / "gateway.toml").write_text(filled(CONFIG, SCRATCH=SCRATCH, PORT=port, ADMIN=admin, PORTS=ports, ALLOWED=allowed))

    def token(key, *more):
        return tokens.mint(program, SCRATCH / f"{key}.pem", "user-mall", "--kid", "load", *more)

    others = [word for number in range(200) for word in ("--gitspace", f"user-{number:06}")]
    return port, token("issuer"), token("issuer", *others), token("other")


class Instructions:
    """What has been executed, by callgrind."""
    unit = "instructions"

    def __init__(self):
        self.number = 0

    def command(self):
        return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={SCRATCH}/callgrind"]

    def since(self, pid):
        self.number += 1
        subprocess.run(["callgrind_control", f"--dump={self.number}", str(pid)], check=True, capture_output=True, timeout=60)
        path = SCRATCH / f"callgrind.{self.number}"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if path.exists() and (total := re.search(r"^(?:totals|summary): (\d+)", path.read_text(errors="replace"), re.MULTILINE)):
                path.unlink()
                return int(total[1])
            time.sleep(0.02)
        sys.exit("callgrind wrote no counts")


class Time:
    """Nanoseconds on a CPU, of all threads."""
    unit = "ns of CPU"

    def __init__(self):
        self.last = 0

    def command(self):
        return []

    def since(self, pid):
        now = sum(int((task / "schedstat").read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").iterdir())
        spent, self.last = now - self.last, now
        return spent


def measure(arguments):
    """Group → kind → cost of a request in each round; and the groups whose answers differ."""
    port, *issued = setup(arguments.program)
    meter = Time() if arguments.cpu else Instructions()
    asked = groups(*issued)
    costs = {group: {kind: [] for kind in kinds} for group, kinds in asked.items()}
    texts = {}
    command = [*meter.command(), arguments.program, "run", "--config", SCRATCH / "gateway.toml"]
    with Programs(SCRATCH, signal.SIGKILL) as programs:
        gateway = programs.start("gateway", command, lambda: listens(port))
        client = Client(port)
        for round_ in range(arguments.rounds + 1):
            for group, kinds in asked.items():
                order = list(kinds.items())
                # The first round pages everything in; the others alternate in their order too.
                for kind, text in order if round_ % 2 else reversed(order):
                    texts[group, kind] = same(client.ask(text))
                    meter.since(gateway.pid)
                    for _ in range(arguments.requests):
                        client.ask(text)
                    spent = meter.since(gateway.pid)
                    if round_:
                        costs[group][kind].append(spent / arguments.requests)
    differ = [group for group, kinds in asked.items() if len({texts[group, kind] for kind in kinds}) > 1]
    return meter.unit, costs, texts, differ


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=resolved, default=TARGET / "release" / "cde-gateway", help="the gateway, an optimized build")
    parser.add_argument("--cpu", action="store_true", help="CPU time instead of instructions")
    parser.add_argument("--requests", type=int, default=0, help="per kind and round")
    parser.add_argument("--rounds", type=int, default=0)
    arguments = parser.parse_args()
    arguments.requests = arguments.requests or (20 if arguments.cpu else 200)
    arguments.rounds = arguments.rounds or (1000 if arguments.cpu else 3)
    begun = time.monotonic()
    unit, costs, texts, differ = measure(arguments)
    tells = []
    print(f"| request | {unit} | beside the first |\n|---|---:|---:|")
    for group, kinds in costs.items():
        first = None
        for kind, rounds in kinds.items():
            first = first or rounds
            # Round by round: what the machine did meanwhile is in both.
            ratio = statistics.median(cost / base for cost, base in zip(rounds, first)) - 1
            status = texts[group, kind].split(b" ", 2)[1].decode()
            print(f"| {group}: {kind} ({status}) | {statistics.median(rounds):,.0f} | {ratio:+.2%} |")
            if abs(ratio) >= ALIKE and not arguments.cpu:
                tells.append(f"{group}: {kind}")
    print(f"in {time.monotonic() - begun:.0f} s")
    for group in differ:
        print(f"the answers differ: {group}", file=sys.stderr)
        print(json.dumps({kind: texts[group, kind].decode() for kind in costs[group]}, indent=2), file=sys.stderr)
    if tells or differ:
        sys.exit(f"a refusal tells: {', '.join(tells or differ)}")


if __name__ == "__main__":
    main()
