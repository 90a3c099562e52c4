"""The programs of run.py: their installation, what they work on, and their start.

Not here: how they are configured at the gateway, and what is done with them.
"""

import functools
import json
import pathlib
import shutil
import sys

from harness.places import CACHE, ROOT, TARGET
from harness.ports import free_port
from harness.programs import Programs, listens, run, serves
from recorder import Recorder

HERE = pathlib.Path(__file__).resolve().parent
BROWSER = ROOT / "tests" / "browser"
OUT = TARGET / "ide"

VITE = """const show = () => { document.querySelector('#app').textContent = word }
export const word = 'one'
show()
if (import.meta.hot) import.meta.hot.accept()
"""
WEBPACK = """document.querySelector('#app').textContent = 'one'
if (import.meta.webpackHot) import.meta.webpackHot.accept()
"""
NEXT = """import { revalidatePath } from 'next/cache'
let said = 'no'
async function say() { 'use server'; said = 'yes'; revalidatePath('/') }
export default () => <form action={say}><p id="app">one</p><button>{said}</button></form>
"""
LAYOUT = "export default ({ children }) => <html><body>{children}</body></html>\n"
PAGE = '<!doctype html><title>app</title><p id="app">nothing</p><script type="module" src="/main.js"></script>'

NOTEBOOK = """{"cells": [{"cell_type": "code", "execution_count": null, "id": "c1", "metadata": {}, "outputs": [], "source": ["print(6*7)"]}],
 "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}"""

LARGE = 100_000_000

running = Programs(OUT)


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


@functools.cache
def lab(name, token, base):
    """A JupyterLab with notebooks and a token of its own. Gives the port of the recorder in front of it, and its own."""
    work, port = OUT / f"{name}-work", free_port()
    work.mkdir()
    for name_of in ("a", "rest"):
        (work / f"{name_of}.ipynb").write_text(NOTEBOOK)
    running.start(name, [jupyterlab(), "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
                         f"--IdentityProvider.token={token}", f"--ServerApp.base_url={base}", f"--ServerApp.root_dir={work}",
                         # It would refuse every Host but localhost.
                         "--ServerApp.allow_remote_access=True"],
                  lambda: serves(f"http://127.0.0.1:{port}{base}login"), env={"HOME": str(OUT / f"home-{name}")})
    return Recorder(port, OUT / f"{name}.received").port, port


def large_notebook(name):
    """One of LARGE bytes in a JupyterLab, with an output that a page does not draw."""
    notebook = json.loads(NOTEBOOK)
    data = {"text/plain": "a large output", "application/octet-stream": "x" * LARGE}
    notebook["cells"][0]["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": data}]
    file = OUT / f"{name}-work" / "large.ipynb"
    file.write_text(json.dumps(notebook))
    return file


@functools.cache
def code(password):
    """A code-server, and a folder for each test. Gives the port of the recorder in front of it, and its own."""
    data, port = OUT / "code-data", free_port()
    (data / "User").mkdir(parents=True)
    # It would forward the ports of every program on this machine, and tell of each that comes and goes.
    settings = {"telemetry.telemetryLevel": "off", "git.openRepositoryInParentFolders": "never", "remote.autoForwardPorts": False}
    (data / "User" / "settings.json").write_text(json.dumps(settings))
    for name in ("code", "rest", "away", "gateways"):
        folder = OUT / f"{name}-work"
        folder.mkdir()
        (folder / "README.md").write_text("# A heading of the preview\n")
    running.start("code", [code_server(), "--auth", "password", "--bind-addr", f"127.0.0.1:{port}", "--user-data-dir", data,
                           "--extensions-dir", data / "extensions", "--config", data / "config.yaml", "--disable-telemetry", "--disable-update-check",
                           "--disable-workspace-trust"],
                  lambda: serves(f"http://127.0.0.1:{port}/healthz"), env={"PASSWORD": password})
    return Recorder(port, OUT / "code.received").port, port


def dev_servers():
    """The folder with their packages."""
    folder, lock = CACHE / "dev-servers", (HERE / "dev-servers" / "package-lock.json").read_text()
    mark = folder / "installed"
    if not mark.exists() or mark.read_text() != lock:
        print(f"installing development servers into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(HERE / "dev-servers", folder, ignore=shutil.ignore_patterns("node_modules"))
        run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=folder)
        mark.write_text(lock)
    return folder


def projects(folder, ports):
    """Projects without a configuration, and their servers. Gives of each the file that says what is shown."""
    bin = dev_servers() / "node_modules" / ".bin"

    def project(name, files, *command, **env):
        for path, text in files.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_text(text)
        running.start(name, [bin / command[0], *command[1:]], lambda: listens(ports[name]), cwd=folder / name, env=env)
        return folder / name / next(iter(files))

    return {
        "vite": project("vite", {"main.js": VITE, "index.html": PAGE}, "vite", "--host", "127.0.0.1", "--strictPort", "--port", ports["vite"]),
        # By itself it takes 8080, or the next one that is free, on every address; what it is told of either, it tells its page.
        "webpack": project("webpack", {"src/index.js": WEBPACK, "public/index.html": PAGE}, "webpack", "serve", WEBPACK_DEV_SERVER_BASE_PORT=str(ports["webpack"])),
        "next": project("next", {"app/page.js": NEXT, "app/layout.js": LAYOUT}, "next", "dev", "--hostname", "127.0.0.1", "--port", ports["next"],
                        NEXT_TELEMETRY_DISABLED="1"),
    }
