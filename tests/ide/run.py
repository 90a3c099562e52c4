#!/usr/bin/env python3
"""Real IDEs and development servers through the gateway, in Chromium over https: JupyterLab on a host of its own and on a path, code-server
on a path, Vite, webpack-dev-server and Next.js on ports, without a configuration of theirs.

    tests/ide/run.py [--gateway PROGRAM] [--only GROUP] [--idle SECONDS] [--away SECONDS] [--how cut|hold]

Before each IDE a relay writes down what reaches it (recorder.py); what the browser does, and what must be in that, is in the .mjs files. Beside them a
JupyterLab and a code-server are left alone for SECONDS, and must count as idle, then as used; and the machine of a code-server is gone for SECONDS. At last the
gateway is upgraded and killed under an open code-server.
JupyterLab comes from PyPI, the others from npm; all are kept in CDE_CI_CACHE, else in the target folder. Screenshots and logs stay in
target/ide. Loopback only, but for webpack-dev-server, which is not told so; ends what it started.
"""

import argparse
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import programs  # noqa: E402
from harness import tokens  # noqa: E402
from harness.certificates import of_an_authority  # noqa: E402
from harness.places import TARGET, empty, resolved  # noqa: E402
from harness.ports import free_ports  # noqa: E402
from harness.programs import listens, run  # noqa: E402
from programs import BROWSER, HERE, OUT  # noqa: E402

GROUPS = ["ides", "large", "dev-servers", "idle", "away", "gateways"]
# How long the gateway keeps connections at rest; the development servers are left alone for longer.
TTL = 3

CONFIGURATION = """
roles = ["gateway"]
state_dir = "{out}/state"
[gateway]
domains = ["gitspaces.test"]
listen = [{{ address = "127.0.0.1:{gateway}", protocol = "https" }}]
certificate = [{{ chain = "{out}/cert.pem", key = "{out}/key.pem" }}]
access_log.path = "{out}/access.log"
admin.address = "127.0.0.1:{admin}"
upstreams.ttl = "{ttl}s"
[[gateway.issuer]]
issuer = "https://issuer.test"
key = [{{ id = "1", algorithm = "ES256", public_key_file = "{out}/issuer.pub" }}]
[[route]]
gitspace = "lab-k3x9q2"
owner = "ada"
upstream = "http://127.0.0.1:{lab}"
[[route]]
gitspace = "large-k3x9q2"
owner = "ada"
upstream = "http://127.0.0.1:{rest_lab}"
[[route]]
gitspace = "dev-k3x9q2"
owner = "ada"
upstream = "http://127.0.0.1:{vite}"
[route.ports.5173]
upstream = "http://127.0.0.1:{vite}"
host_header = "localhost"
[route.ports.{webpack}]
upstream = "http://127.0.0.1:{webpack}"
host_header = "localhost"
[route.ports.3000]
upstream = "http://127.0.0.1:{next}"
host_header = "localhost"
[[route]]
gitspace = "rest-k3x9q2"
owner = "ada"
upstream = "http://127.0.0.1:{rest_lab}"
[[route]]
gitspace = "rest-code"
host = "rest.test"
owner = "ada"
upstream = "http://127.0.0.1:{rest_code}"
[[route]]
gitspace = "away-code"
host = "away.test"
owner = "ada"
upstream = "http://127.0.0.1:{away}"
[[route]]
gitspace = "alice-code"
host = "dev.test"
path = "/alice/code"
owner = "ada"
upstream = "http://127.0.0.1:{code}"
[[route]]
gitspace = "alice-lab"
host = "dev.test"
path = "/alice/lab"
prefix = "keep"
owner = "ada"
upstream = "http://127.0.0.1:{path_lab}"
"""


class Browser:
    """Runs scripts in Chromium, and keeps what failed."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.home = OUT / "home"
        self.home.mkdir()
        self.failed = []
        run(BROWSER / "trust-ca.sh", self.home, OUT / "ca.pem")

    def begin(self, name, script, url, place, *more):
        """`place`: a gitspace and its port, for which there is a ticket in the URL."""
        gitspace, port = place if isinstance(place, tuple) else (place, "ide")
        ticket = tokens.mint(self.gateway, OUT / "issuer.pem", "ada", "--gitspace", gitspace, "--port", port, "--ticket")
        command = ["node", HERE / script, f"{url}gitspace_token={ticket}", *more, "--shots", OUT / "shots" / name]
        with (OUT / f"{name}.out").open("w") as out:
            return subprocess.Popen([str(word) for word in command], env={**os.environ, "HOME": str(self.home)}, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def finish(self, name, child):
        good = child.wait() == 0
        print(f"== {name}\n{(OUT / f'{name}.out').read_text()}test ide::{name} ... {'ok' if good else 'FAILED'}", flush=True)
        if not good:
            self.failed.append(name)


class Setup:
    """Where everything is. A test is a name, a script and its arguments."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.token = secrets.token_hex(24)
        names = ["gateway", "admin", "lab", "path_lab", "code", "rest_lab", "rest_code", "away", "vite", "webpack", "next"]
        self.ports = free_ports(names)
        self.projects = None

    def at(self, host):
        return f"https://{host}:{self.ports['gateway']}"

    def notebook(self, host, name, base="/"):
        # In a workspace of its own, or it opens what others have open too.
        return f"{self.at(host)}{base}lab/workspaces/{name}/tree/{name}.ipynb?token={self.token}&"

    def lab(self):
        self.ports["lab"], self.ports["rest_lab"] = programs.lab("lab", self.token, "/")

    def code(self):
        self.ports["code"], self.ports["rest_code"] = programs.code(self.token)

    def ides(self):
        self.lab()
        self.code()
        self.ports["path_lab"], _ = programs.lab("path-lab", self.token, "/alice/lab/")
        work = OUT / "code-work"
        return [
            ("jupyterlab_on_a_host", "jupyterlab.mjs", self.notebook("lab-k3x9q2.gitspaces.test", "a"), "lab-k3x9q2", OUT / "lab.received"),
            ("jupyterlab_on_a_path", "jupyterlab.mjs", self.notebook("dev.test", "a", "/alice/lab/"), "alice-lab", OUT / "path-lab.received"),
            ("code_server_on_a_path", "code-server.mjs", f"{self.at('dev.test')}/alice/code?folder={work}&", "alice-code", OUT / "code.received", work, self.token),
        ]

    def large(self):
        self.lab()
        file = programs.large_notebook("lab")
        return [("notebook_of_100_mb", "large.mjs", self.notebook("large-k3x9q2.gitspaces.test", file.stem), "large-k3x9q2", file, programs.LARGE)]

    def dev_servers(self):
        # Beside the packages: Next.js takes none from elsewhere.
        self.projects = tempfile.TemporaryDirectory(dir=programs.dev_servers())
        files = programs.projects(pathlib.Path(self.projects.name), self.ports)
        # Where the page looks for its server: that of webpack is told the port that it listens on.
        places = {"vite": (5173, "gateway"), "webpack": (self.ports["webpack"], "webpack"), "next": (3000, "gateway")}
        return [
            (f"{name}_shows_an_edit", "dev-server.mjs", f"{self.at(f'dev-k3x9q2-{number}.gitspaces.test')}/?", ("dev-k3x9q2", str(number)), files[name],
             self.ports[socket], 3 * TTL)
            for name, (number, socket) in places.items()
        ]

    def idle(self):
        self.lab()
        self.code()
        work = OUT / "rest-work"
        admin = [f"http://127.0.0.1:{self.ports['admin']}", OUT / "state" / "admin.token"]
        rest = [*admin, self.arguments.idle, self.token, work]
        return [
            ("jupyterlab_left_alone", "idle.mjs", self.notebook("rest-k3x9q2.gitspaces.test", "rest"), "rest-k3x9q2", "lab", "rest-k3x9q2", *rest),
            ("code_server_left_alone", "idle.mjs", f"{self.at('rest.test')}/?folder={work}&", "rest-code", "code", "rest-code", *rest),
        ]

    def away(self):
        self.code()
        work, how = OUT / "away-work", [self.arguments.how, self.arguments.away]
        return [("code_server_whose_machine_is_gone", "away.mjs", f"{self.at('away.test')}/?folder={work}&", "away-code", work,
                 f"http://127.0.0.1:{self.ports['rest_code']}", self.ports["away"], *how, self.token)]

    def gateways(self):
        """It asks for what is to happen to the gateway."""
        self.code()
        work, asked = OUT / "gateways-work", OUT / "asked"
        return ("code_server_whose_gateway_is_upgraded_and_killed", "gateways.mjs", f"{self.at('rest.test')}/?folder={work}&", "rest-code", work, asked, self.token)

    def start(self):
        command = [self.arguments.gateway, "run", "--config", OUT / "gateway.toml"]
        self.gateway = programs.running.start("gateway", command, lambda: listens(self.ports["gateway"]))


def upgrade_and_kill(setup, browser, test):
    asked, pids = OUT / "asked", [setup.gateway.pid]
    asked.mkdir()
    child = browser.begin(*test)
    try:
        if is_asked(asked / "upgrade", child):
            for _ in range(10):
                pids.append(int(run(setup.arguments.gateway, "upgrade", "--config", OUT / "gateway.toml").split()[-1]))
            (asked / "upgrade").unlink()
        is_asked(asked / "kill", child)
    finally:
        # The old ones have the streams, the last one the sockets.
        for pid in pids:
            kill(pid)
    # What is killed is not gone at once, and has its sockets and its state until then.
    while listens(setup.ports["gateway"]):
        time.sleep(0.01)
    setup.start()
    (asked / "kill").unlink(missing_ok=True)
    browser.finish(test[0], child)


def is_asked(path, child):
    """Whether it is asked for before the child ends."""
    while not path.exists() and child.poll() is None:
        time.sleep(0.05)
    return path.exists()


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def tests(setup, browser):
    wanted = lambda group: setup.arguments.only in (None, group)
    beside = [test for group, make in [("idle", setup.idle), ("away", setup.away)] if wanted(group) for test in make()]
    turns = [test for group, make in [("ides", setup.ides), ("large", setup.large), ("dev-servers", setup.dev_servers)] if wanted(group) for test in make()]
    last = setup.gateways() if wanted("gateways") else None
    (OUT / "gateway.toml").write_text(CONFIGURATION.format(out=OUT, ttl=TTL, **setup.ports))
    setup.start()
    begun = [(test[0], browser.begin(*test)) for test in beside]
    for test in turns:
        browser.finish(test[0], browser.begin(*test))
    for name, child in begun:
        browser.finish(name, child)
    if last:
        upgrade_and_kill(setup, browser, last)
    if setup.token in (OUT / "access.log").read_text() + (OUT / "gateway.log").read_text():
        browser.failed.append("the IDEs' token stands in a log")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=resolved, default=TARGET / "debug" / "cde-gateway")
    parser.add_argument("--only", choices=GROUPS)
    parser.add_argument("--idle", type=int, default=10, metavar="SECONDS")
    parser.add_argument("--away", type=int, default=20, metavar="SECONDS")
    parser.add_argument("--how", choices=["cut", "hold"], default="cut")
    arguments = parser.parse_args()
    empty(OUT)
    run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=BROWSER)
    of_an_authority(OUT, "*.gitspaces.test", "dev.test", "rest.test", "away.test")
    tokens.keys(OUT)
    browser, setup = Browser(arguments.gateway), Setup(arguments)
    with programs.running:
        tests(setup, browser)
    print(f"screenshots and logs: {OUT}")
    if browser.failed:
        sys.exit("failed: " + ", ".join(browser.failed))
    print("everything passed")


if __name__ == "__main__":
    main()
