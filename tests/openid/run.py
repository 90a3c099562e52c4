#!/usr/bin/env python3
"""An OpenID provider as issuer: its tokens, its rotation of keys, and what happens while it is down.

    tests/openid/run.py [--gateway PROGRAM] [--down SECONDS]

Starts the provider (npm's oidc-provider), a gateway that knows nothing of it but the URL of its keys, and a page behind that. What
has to wait for the next scheduled fetch waits 2 s: `jwks_refresh` is that short here. --down 600 shows the ten minutes.
Loopback only; ends what it started.
"""

import argparse
import http.client
import pathlib
import shutil
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.places import CACHE, TARGET, resolved  # noqa: E402
from harness.ports import free_ports  # noqa: E402
from harness.programs import Programs, listens, run  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
HOST = "app-a1b2c3.gitspaces.localhost"
WITHIN = 20

CONFIGURATION = """
roles = ["gateway"]
state_dir = "{scratch}/state"
[gateway]
listen = [{{ address = "127.0.0.1:{gateway}", protocol = "http" }}]
access_log.path = "{scratch}/access.log"
admin.address = "127.0.0.1:{admin}"
[[gateway.issuer]]
issuer = "http://127.0.0.1:{provider}"
audience = "gitspaces"
jwks_url = "http://127.0.0.1:{provider}/jwks"
jwks_refresh = "2s"
[[route]]
gitspace = "app-a1b2c3"
owner = "ada"
upstream = "http://127.0.0.1:{upstream}"
"""

begun = time.monotonic()


def say(text):
    print(f"{time.monotonic() - begun:7.1f} s  {text}", flush=True)


def tools():
    """The provider's packages, from the lock file, in a folder that is kept."""
    folder = CACHE / "openid"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ["package.json", "package-lock.json", "provider.mjs", "sign-in.mjs"]:
        shutil.copy(HERE / name, folder / name)
    run("npm", "ci", "--no-audit", "--no-fund", "--silent", cwd=folder)
    return folder


def sign_in(folder, ports):
    return run("node", folder / "sign-in.mjs", f"http://127.0.0.1:{ports['provider']}", "ada", timeout=60)


def status(ports, token):
    connection = http.client.HTTPConnection("127.0.0.1", ports["gateway"], timeout=10)
    connection.request("GET", "/", headers={"Host": HOST, "Authorization": f"Bearer {token}"})
    found = connection.getresponse()
    body = found.read().decode(errors="replace")
    connection.close()
    return found.status, body


def expect(what, ports, token, wanted):
    found, body = status(ports, token)
    if found != wanted:
        sys.exit(f"{what}: {found}, not {wanted}\n{body}")
    say(f"{what}: {found}")


def becomes(what, ports, token, wanted):
    deadline = time.monotonic() + WITHIN
    while (found := status(ports, token)[0]) != wanted:
        if time.monotonic() > deadline:
            sys.exit(f"{what}: still {found}, not {wanted}, after {WITHIN} s")
        time.sleep(0.1)
    say(f"{what}: {found}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=resolved, default=TARGET / "debug" / "cde-gateway")
    parser.add_argument("--down", type=int, default=10, help="for how many seconds the provider is down")
    arguments = parser.parse_args()
    folder = tools()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="cde-gateway-openid-"))
    ports = free_ports(["provider", "gateway", "admin", "upstream"])
    (scratch / "gateway.toml").write_text(CONFIGURATION.format(scratch=scratch, **ports))
    provider_command = ["node", folder / "provider.mjs", ports["provider"], scratch / "provider.json"]
    gateway_command = [arguments.gateway, "run", "--config", scratch / "gateway.toml"]

    with Programs(scratch) as programs:
        def start(name, command):
            return programs.start(name, command, lambda: listens(ports[name]))

        start("upstream", [sys.executable, "-m", "http.server", "-b", "127.0.0.1", ports["upstream"]])
        provider = start("provider", provider_command)
        gateway = start("gateway", gateway_command)

        first = sign_in(folder, ports)
        becomes("a token of the provider", ports, first, 200)
        expect("the same, with another signature", ports, first[:-8] + ("AAAAAAAA" if first[-8:] != "AAAAAAAA" else "BBBBBBBB"), 401)

        provider.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + WITHIN
        while "key-2" not in (scratch / "provider.log").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        second = sign_in(folder, ports)
        expect("a token of its new key, at once", ports, second, 200)
        expect("a token of its old key, which is still published", ports, first, 200)
        provider.send_signal(signal.SIGUSR2)
        becomes("a token of its old key, which no longer is", ports, first, 401)
        expect("a token of its new key", ports, second, 200)

        programs.stop(provider)
        say(f"the provider is down for {arguments.down} s")
        end = time.monotonic() + arguments.down
        half = time.monotonic() + arguments.down / 2
        checks = restarts = 0
        while time.monotonic() < end:
            if status(ports, second)[0] != 200:
                sys.exit("a token was refused because its issuer is down")
            checks += 1
            if restarts == 0 and time.monotonic() > half:
                programs.stop(gateway)
                gateway = start("gateway", gateway_command)
                restarts = 1
            time.sleep(0.5)
        if restarts != 1:
            sys.exit("the gateway was not started again: --down is too short")
        say(f"its tokens were accepted {checks} times meanwhile, and after a restart of the gateway")
        start("provider", provider_command)
        third = sign_in(folder, ports)
        becomes("a token made after it came back", ports, third, 200)

        written = (scratch / "access.log").read_text() + (scratch / "gateway.log").read_text()
        for token in (first, second, third):
            if token in written or token.rsplit(".", 1)[1] in written:
                sys.exit("a token stands in a log")
        say("no token stands in a log")
    shutil.rmtree(scratch)
    print("everything passed")


if __name__ == "__main__":
    main()
