#!/usr/bin/env python3
"""Real IDEs through the gateway, in Chromium over https: JupyterLab on a host of its own and on a path, code-server on a path.

    tests/ide/run.py [--gateway PROGRAM]

Before each IDE a relay writes down what reaches it (recorder.py); what the browser does, and what must be in that, is in the .mjs files.
JupyterLab comes from PyPI, code-server from npm; both are kept in CDE_CI_CACHE, else in the target folder. Screenshots and logs stay in
target/ide. Loopback only; ends what it started.
"""

import argparse
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from recorder import Recorder

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BROWSER = ROOT / "tests" / "browser"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
CACHE = pathlib.Path(os.environ.get("CDE_CI_CACHE") or TARGET).resolve()
OUT = TARGET / "ide"
WITHIN = 60

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
[[gateway.issuer]]
issuer = "https://issuer.test"
key = [{{ id = "1", algorithm = "ES256", public_key_file = "{out}/issuer.pub" }}]
[[route]]
gitspace = "lab-k3x9q2"
owner = "ada"
upstream = "http://127.0.0.1:{lab}"
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

running = []


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, **more)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def start(name, command, url=None, port=None, env=None):
    """Starts a program and waits until it answers."""
    with (OUT / f"{name}.log").open("w") as log:
        child = subprocess.Popen([str(word) for word in command], cwd=OUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})})
    running.append(child)
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline and child.poll() is None:
        try:
            if url:
                urllib.request.urlopen(url, timeout=2).close()
            else:
                socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{name} did not start; its log:\n{(OUT / f'{name}.log').read_text()[-3000:]}")


def jupyterlab():
    """The program, of the version in requirements.txt."""
    folder, wanted = CACHE / "jupyterlab", (HERE / "requirements.txt").read_text()
    mark = folder / "installed"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing JupyterLab into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        run(folder / "bin" / "pip", "install", "--quiet", "--requirement", HERE / "requirements.txt")
        # It would ask the network for news, and the person whether it may.
        run(folder / "bin" / "jupyter", "labextension", "disable", "@jupyterlab/apputils-extension:announcements")
        mark.write_text(wanted)
    return folder / "bin" / "jupyter"


def code_server():
    folder = CACHE / "code-server"
    if not (folder / "bin" / "code-server").exists():
        print(f"installing code-server into {folder}", flush=True)
        run(BROWSER / "install-code-server.sh", folder)
    return folder / "bin" / "code-server"


def certificates():
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("openssl", "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test CA",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign", cwd=OUT)
    run("openssl", "req", *key, "-keyout", "key.pem", "-out", "req.pem", "-subj", "/CN=gitspaces.test", cwd=OUT)
    (OUT / "names").write_text("subjectAltName=DNS:*.gitspaces.test,DNS:dev.test\nextendedKeyUsage=serverAuth\n")
    run("openssl", "x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", "cert.pem",
        "-extfile", "names", cwd=OUT)
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "issuer.pem", cwd=OUT)
    run("openssl", "pkey", "-in", "issuer.pem", "-pubout", "-out", "issuer.pub", cwd=OUT)


def lab(name, token, base):
    """A JupyterLab with a notebook and a token of its own. Gives the port of the recorder in front of it."""
    work, port = OUT / f"{name}-work", free_port()
    work.mkdir()
    (work / "a.ipynb").write_text(NOTEBOOK)
    start(name, [jupyterlab(), "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
                 f"--IdentityProvider.token={token}", f"--ServerApp.base_url={base}", f"--ServerApp.root_dir={work}",
                 # It would refuse every Host but localhost.
                 "--ServerApp.allow_remote_access=True"],
          url=f"http://127.0.0.1:{port}{base}login", env={"HOME": str(OUT / f"home-{name}")})
    return Recorder(port, OUT / f"{name}.received").port


def code(folder, password):
    data, port = OUT / "code-data", free_port()
    (data / "User").mkdir(parents=True)
    (data / "User" / "settings.json").write_text('{"telemetry.telemetryLevel": "off"}')
    folder.mkdir()
    (folder / "README.md").write_text("# A heading of the preview\n")
    start("code", [code_server(), "--auth", "password", "--bind-addr", f"127.0.0.1:{port}", "--user-data-dir", data, "--extensions-dir", data / "extensions",
                   "--config", data / "config.yaml", "--disable-telemetry", "--disable-update-check", "--disable-workspace-trust"],
          url=f"http://127.0.0.1:{port}/healthz", env={"PASSWORD": password})
    return Recorder(port, OUT / "code.received").port


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", default=str(TARGET / "debug" / "cde-gateway"))
    gateway = pathlib.Path(parser.parse_args().gateway).resolve()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=BROWSER)
    certificates()
    home = OUT / "home"
    home.mkdir()
    run(BROWSER / "trust-ca.sh", home, OUT / "ca.pem")

    def ticket(gitspace):
        return run(gateway, "token", "mint", "--key", OUT / "issuer.pem", "--algorithm", "ES256", "--issuer", "https://issuer.test", "--subject", "ada",
                   "--gitspace", gitspace, "--port", "ide", "--ticket")

    token, failed = secrets.token_hex(24), []
    try:
        ports = {"gateway": free_port(), "admin": free_port(), "lab": lab("lab", token, "/"), "path_lab": lab("path-lab", token, "/alice/lab/"),
                 "code": code(OUT / "code-work", token)}
        (OUT / "gateway.toml").write_text(CONFIGURATION.format(out=OUT, **ports))
        start("gateway", [gateway, "run", "--config", OUT / "gateway.toml"], port=ports["gateway"])
        own, dev = (f"https://{host}:{ports['gateway']}" for host in ("lab-k3x9q2.gitspaces.test", "dev.test"))
        for name, script, gitspace, url, more in [
            ("jupyterlab_on_a_host", "jupyterlab.mjs", "lab-k3x9q2", f"{own}/lab/tree/a.ipynb?token={token}", ["lab"]),
            ("jupyterlab_on_a_path", "jupyterlab.mjs", "alice-lab", f"{dev}/alice/lab/lab/tree/a.ipynb?token={token}", ["path-lab"]),
            ("code_server_on_a_path", "code-server.mjs", "alice-code", f"{dev}/alice/code?folder={OUT}/code-work", ["code", OUT / "code-work", token]),
        ]:
            print(f"== {name}", flush=True)
            shots = OUT / "shots" / name
            command = ["node", HERE / script, f"{url}&gitspace_token={ticket(gitspace)}", OUT / f"{more[0]}.received", *more[1:], "--shots", shots]
            good = subprocess.run([str(word) for word in command], env={**os.environ, "HOME": str(home)}, check=False).returncode == 0
            print(f"test ide::{name} ... {'ok' if good else 'FAILED'}", flush=True)
            failed += [] if good else [name]
        written = (OUT / "access.log").read_text() + (OUT / "gateway.log").read_text()
        if token in written:
            failed.append("the IDEs' token stands in a log")
    finally:
        for child in reversed(running):
            child.send_signal(signal.SIGTERM)
        for child in running:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
    print(f"screenshots and logs: {OUT}")
    if failed:
        sys.exit("failed: " + ", ".join(failed))
    print("everything passed")


if __name__ == "__main__":
    main()
