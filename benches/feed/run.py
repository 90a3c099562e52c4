#!/usr/bin/env python3
"""How long a change of the control plane takes until it counts at a gateway: the first after a quiet time, and many at once.

    benches/feed/run.py [PROGRAM] [--quiet 20] [--rate 500] [--seconds 10] [--gateways 2]

Starts a control plane and gateways that follow it. First gitspaces are made one by one with a quiet time between them, then at a rate. It counts from the moment
at which the control plane has answered (the change is on its disk) until a gateway's metrics, which are asked for every few milliseconds, say that it has so many routes. Loopback only, bounded in count and time; standard library only.
"""

import argparse
import contextlib
import http.client
import json
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests"))
from harness.places import TARGET, empty, resolved  # noqa: E402
from harness.ports import free_port  # noqa: E402
from harness.programs import Programs, serves  # noqa: E402

SCRATCH = TARGET / "feed"
# A gateway is asked so often whether it knows.
EVERY = 0.004
MAKERS = 6

CONTROL_PLANE = """
roles = ["control-plane"]
state_dir = "{scratch}/control-plane"
[control_plane]
address = "127.0.0.1:{control}"
public_url = "https://control.test"
gateway_url = "https://gitspaces.localhost:8443"
"""
GATEWAY = """
roles = ["gateway"]
state_dir = "{scratch}/gateway-{n}"
[gateway]
listen = [{{ address = "127.0.0.1:0", protocol = "https" }}]
admin = {{ address = "127.0.0.1:{admin}" }}
access_log = {{ path = "" }}
[gateway.control_plane]
url = "http://127.0.0.1:{control}"
token_file = "{scratch}/control-plane/gateway.token"
"""


class Api:
    """One kept connection."""

    def __init__(self, port, token_file):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = {"authorization": f"Bearer {token_file.read_text().strip()}", "content-type": "application/json"}

    def call(self, method, path, body=None):
        self.connection.request(method, path, None if body is None else json.dumps(body), self.headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def make(self, name):
        status, text = self.call("POST", "/v1/gitspaces", {"name": name, "repository": "https://git.test/a/b.git"})
        if status not in (201, 202):
            sys.exit(f"the control plane answered {status}: {text[:300]}")
        return json.loads(text)["id"], time.monotonic()


class Watch(threading.Thread):
    """When a gateway had how many routes, as its metrics tell."""

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.gateway, self.seen = gateway, []
        self.start()

    def run(self):
        with contextlib.suppress(OSError, http.client.HTTPException):  # the gateway ends last
            self.follow()

    def follow(self):
        while True:
            text = self.gateway.call("GET", "/metrics")[1]
            count = int(float(text.split(b"\ncde_gateway_routes ")[1].split()[0]))
            if not self.seen or self.seen[-1][1] != count:
                self.seen.append((time.monotonic(), count))
            time.sleep(EVERY)

    def had(self, count):
        """Waits until it has so many, and tells when it had."""
        deadline = time.monotonic() + 30
        while not self.seen or self.seen[-1][1] < count:
            if time.monotonic() > deadline:
                sys.exit(f"a gateway has not {count} routes after 30 s; see {SCRATCH}")
            time.sleep(EVERY)
        return next(at for at, routes in self.seen if routes >= count)


def told(what, times):
    times = sorted(times)
    at = lambda part: 1000 * times[min(len(times) - 1, int(part * len(times)))]
    print(f"{what}: median {at(0.5):.0f} ms, 99 % {at(0.99):.0f} ms, longest {1000 * times[-1]:.0f} ms of {len(times)}")


def quiet(control, watched, count):
    times = []
    for number in range(count):
        time.sleep(1)
        _, made = control.make(f"quiet{number}")
        times += [gateway.had(number + 1) - made for gateway in watched]
    told("the first change after a quiet time", times)


def at_rate(control, watched, rate, seconds, before):
    """Makers share the numbers; each waits for the moment of its own."""
    start, total = time.monotonic() + 0.5, rate * seconds
    numbers, answered = iter(range(total)), []

    def maker():
        api = control()
        for number in numbers:
            time.sleep(max(0, start + number / rate - time.monotonic()))
            answered.append(api.make(f"rate{number}")[1])

    makers = [threading.Thread(target=maker) for _ in range(MAKERS)]
    for thread in makers:
        thread.start()
    for thread in makers:
        thread.join()
    took = time.monotonic() - start
    # Whatever was answered as the k-th was committed among the first k and those that the other makers had under way.
    due = [(before + min(number + MAKERS, total), at) for number, at in enumerate(sorted(answered), 1)]
    times = [gateway.had(count) - at for count, at in due for gateway in watched]
    told(f"{total} changes in {took:.1f} s ({total / took:.0f} a second)", times)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("program", nargs="?", type=resolved, default=TARGET / "release" / "cde-gateway")
    arguments.add_argument("--quiet", type=int, default=20)
    arguments.add_argument("--rate", type=int, default=500)
    arguments.add_argument("--seconds", type=int, default=10)
    arguments.add_argument("--gateways", type=int, default=2)
    arguments = arguments.parse_args()
    empty(SCRATCH)
    control, admins = free_port(), [free_port() for _ in range(arguments.gateways)]
    with Programs(SCRATCH) as programs:
        def start(name, text, url):
            config = SCRATCH / f"{name}.toml"
            config.write_text(text)
            programs.start(name, [arguments.program, "run", "--config", config], lambda: serves(url))

        start("control-plane", CONTROL_PLANE.format(scratch=SCRATCH, control=control), f"http://127.0.0.1:{control}/healthz")
        plane = lambda: Api(control, SCRATCH / "control-plane" / "user.token")
        watched = []
        for number, admin in enumerate(admins):
            name = f"gateway-{number}"
            start(name, GATEWAY.format(scratch=SCRATCH, control=control, admin=admin, n=number), f"http://127.0.0.1:{admin}/readyz")
            watched.append(Watch(Api(admin, SCRATCH / name / "admin.token")))
        quiet(plane(), watched, arguments.quiet)
        at_rate(plane, watched, arguments.rate, arguments.seconds, arguments.quiet)


if __name__ == "__main__":
    main()
