#!/usr/bin/env python3
"""A real JupyterHub behind the gateway, which is its external proxy (docs/jupyterhub.md), in Chromium over https.

    tests/jupyterhub/run.py [--gateway PROGRAM]

Two users log in, start servers and run a cell each; the gateway is restarted; one is left alone with an open page and is culled, the
other works on and is not. What the browsers do is in jupyterhub.mjs. JupyterHub comes from PyPI and is kept in CDE_CI_CACHE, else in the
target folder. Screenshots and logs stay in target/jupyterhub. Loopback only; ends what it started.
"""

import argparse
import json
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.certificates import of_an_authority  # noqa: E402
from harness.places import CACHE, ROOT, TARGET, empty, resolved  # noqa: E402
from harness.ports import free_port, free_ports  # noqa: E402
from harness.programs import Programs, run, serves  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
BROWSER = ROOT / "tests" / "browser"
OUT = TARGET / "jupyterhub"
HOST = "hub.test"
# A server that nobody used for so many seconds is culled.
IDLE = 40
# What JupyterHub says where the routes are not those that it sent.
WRONG_ROUTES = re.compile(r"Adding missing|Updating route for|Deleting stale route|already deleted|api_request to (the )?proxy failed(?!.*retrying)|Traceback", re.IGNORECASE)

NOTEBOOK = """{"cells": [{"cell_type": "code", "execution_count": null, "id": "c1", "metadata": {}, "outputs": [], "source": ["print(6*7)"]}],
 "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}"""

CONFIGURATION = """
roles = ["gateway"]
state_dir = "{out}/state"
[gateway]
domains = ["gitspaces.test"]
listen = [{{ address = "127.0.0.1:{gateway}", protocol = "https" }}]
certificate = [{{ chain = "{out}/cert.pem", key = "{out}/key.pem" }}]
access_log.path = "{out}/access.log"
admin.address = "127.0.0.1:{admin}"
upstreams.allow = ["127.0.0.0/8"]
timeouts.drain = "2s"
[gateway.chp]
host = "{host}"
error_target = "http://127.0.0.1:{hub}/hub/error"
"""


def jupyterhub():
    """The folder of the programs, of the versions in requirements.txt."""
    folder, wanted = CACHE / "jupyterhub-programs", (HERE / "requirements.txt").read_text()
    mark = folder / "installed"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing JupyterHub into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        run(folder / "bin" / "pip", "install", "--quiet", "--requirement", HERE / "requirements.txt")
        # It would ask the network for news, and the person whether it may.
        run(folder / "bin" / "jupyter", "labextension", "disable", "@jupyterlab/apputils-extension:announcements")
        mark.write_text(wanted)
    return folder / "bin"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=resolved, default=TARGET / "debug" / "cde-gateway")
    gateway = parser.parse_args().gateway
    empty(OUT)
    run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=BROWSER)
    bin = jupyterhub()
    of_an_authority(OUT, HOST)
    home = OUT / "home"
    home.mkdir()
    run(BROWSER / "trust-ca.sh", home, OUT / "ca.pem")
    for user in ("ada", "bob@example.test"):
        (OUT / "homes" / user).mkdir(parents=True)
        (OUT / "homes" / user / "a.ipynb").write_text(NOTEBOOK)

    ports = free_ports(["gateway", "admin", "hub"])
    api = f"http://127.0.0.1:{ports['admin']}"
    token, password, failed = secrets.token_hex(24), secrets.token_hex(16), []
    (OUT / "state").mkdir(mode=0o700)
    (OUT / "state" / "chp.token").touch(mode=0o600)
    (OUT / "state" / "chp.token").write_text(token)
    (OUT / "gateway.toml").write_text(CONFIGURATION.format(out=OUT, host=HOST, **ports))

    def routes(method="GET", path="", body=None):
        request = urllib.request.Request(f"{api}/api/routes{path}", data=body and json.dumps(body).encode(), method=method, headers={"Authorization": f"token {token}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read() or b"null")

    def serve():
        return programs.start("gateway", [gateway, "run", "--config", OUT / "gateway.toml"], lambda: serves(f"{api}/healthz"))

    def check(name, good, words=""):
        print(f"test jupyterhub::{name} ... {'ok' if good else f'FAILED {words}'}", flush=True)
        failed.extend([] if good else [name])

    with Programs(OUT) as programs:
        server = serve()
        hub_is_up = lambda: serves(f"http://127.0.0.1:{ports['hub']}/hub/health")
        programs.start("hub", [bin / "jupyterhub", "--config", HERE / "jupyterhub_config.py"], hub_is_up, env={
            "OUT": str(OUT), "API": api, "CONFIGPROXY_AUTH_TOKEN": token, "PASSWORD": password, "IDLE": str(IDLE),
            "PUBLIC": f"https://{HOST}:{ports['gateway']}", "HUB": f"http://127.0.0.1:{ports['hub']}",
            "PATH": f"{bin}:{os.environ['PATH']}"})
        # Of nobody whom JupyterHub knows: it leaves it alone.
        routes("POST", "/dead", {"target": f"http://127.0.0.1:{free_port()}"})
        browsers = subprocess.Popen(["node", HERE / "jupyterhub.mjs", f"https://{HOST}:{ports['gateway']}/", str(IDLE), "--shots", OUT / "shots"], cwd=OUT,
                                    stdin=subprocess.DEVNULL, env={**os.environ, "HOME": str(home), "PASSWORD": password})
        programs.running[browsers] = "browsers"
        while browsers.poll() is None:
            time.sleep(0.1)
            if (OUT / "restart").exists():
                (OUT / "restart").unlink()
                before = routes()
                programs.stop(server)
                server = serve()
                after = routes()
                without = lambda listed: {path: {**data, "last_activity": None} for path, data in listed.items()}
                wanted = ["/", "/dead", "/user/ada", "/user/bob@example.test"]
                check("routes_are_kept_over_a_restart", without(before) == without(after) and sorted(after) == wanted, f"{before}\n{after}")
                (OUT / "restarted").touch()
        check("two_users_work_and_the_idle_one_is_culled", browsers.returncode == 0)
        left = sorted(routes())
        check("the_culled_servers_route_is_gone_and_the_others_are_there", left == ["/", "/dead", "/user/bob@example.test"], left)
        hub = (OUT / "hub.log").read_text()
        check("the_culler_culled_one", re.findall(r"Culling server (\S+)", hub) == ["ada"], re.findall(r"Culling server.*", hub))
        wrong = [line for line in hub.splitlines() if WRONG_ROUTES.search(line)]
        check("jupyterhub_finds_its_routes_right", not wrong, "\n".join(wrong[:10]))
        written = (OUT / "access.log").read_text() + (OUT / "gateway.log").read_text()
        check("no_secret_stands_in_a_log", token not in written and password not in written)
    print(f"screenshots and logs: {OUT}")
    if failed:
        sys.exit("failed: " + ", ".join(failed))
    print("everything passed")


if __name__ == "__main__":
    main()
