#!/usr/bin/env python3
"""User instructions per request of the gateway, counted by callgrind, against the budget in budget.json beside this file.

    benches/instructions/run.py [--program PATH] [--tool PATH] [--requests 1000] [--write]

The gateway runs once, with one data-path thread and every duty but the access log (the configuration of benches/load), and is
driven with N and then 2N requests per scenario; their difference, over N, has no start-up, handshake or first look at a token
in it. The counts are repeatable where time is not: nearly the same on a busy machine, and within about a percent from run to
run. They mean something only beside others of the same machine type, compiler and C library. valgrind's processor has fewer
extensions than a real one, so cryptography weighs more than it does in life.

Fails if a scenario is more than 2 % above its budget. --write takes the figures over as the budget.
"""

import argparse
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests"))
from harness.configuration import filled  # noqa: E402
from harness.places import ROOT, TARGET, empty, resolved  # noqa: E402
from harness.ports import free_ports  # noqa: E402
from harness.programs import Programs, listens, run  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SCRATCH = TARGET / "instructions"
BUDGET = HERE / "budget.json"
HOST = "load-k3x9q2.gitspaces.localhost"
ABOVE = 1.02
DEADLINE = 100  # seconds of one drive

# name → (what, driver options, over TLS)
SCENARIOS = {
    "h1": ("HTTP/1.1 in the clear", ["--scenario", "h1", "--connections", "4"], False),
    "h1_tls": ("HTTP/1.1 over TLS", ["--scenario", "h1", "--connections", "4"], True),
    "h2_tls": ("HTTP/2 over TLS, one stream at a time", ["--scenario", "h2", "--connections", "1", "--streams", "1"], True),
}


def configuration(values):
    target = SCRATCH / "gateway.toml"
    target.write_text(filled((ROOT / "benches" / "load" / "gateway.toml").read_text(), **values))
    return target


def counted(pid, number):
    """What has been executed since the last call."""
    subprocess.run(["callgrind_control", f"--dump={number}", str(pid)], check=True, capture_output=True, timeout=60)
    # One file per dump; each thread's events are summed up in it.
    path = SCRATCH / f"callgrind.{number}"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and (total := re.search(r"^(?:totals|summary): (\d+)", path.read_text(errors="replace"), re.MULTILINE)):
            return int(total[1])
        time.sleep(0.05)
    sys.exit("callgrind wrote no counts")


def drive(tool, scenario, requests, values, pid):
    """Sends requests and returns how many there were: the driver warms up with a tenth on top."""
    _, options, tls = SCENARIOS[scenario]
    port = values["GATEWAY_TLS" if tls else "GATEWAY_PLAIN"]
    ca = ["--ca", str(SCRATCH / "ca.pem")] if tls else []
    done = subprocess.run(
        [tool, "drive", f"127.0.0.1:{port}", "--host", HOST, "--token", str(SCRATCH / "token"), "--requests", str(requests),
         "--pid", str(pid), *options, *ca], capture_output=True, text=True, check=False, timeout=DEADLINE)
    if done.returncode != 0:
        sys.exit(f"{scenario} failed: {done.stderr.strip()}\nits log:\n{(SCRATCH / 'gateway.log').read_text()[-2000:]}")
    connections = int(options[options.index("--connections") + 1])
    each = requests // connections
    return connections * (each + -(-each // 10))


def measure(arguments):
    empty(SCRATCH)
    run(arguments.tool, "keys", SCRATCH, HOST)
    values = {"SCRATCH": SCRATCH, "STATE": "state", **free_ports(["UPSTREAM", "GATEWAY_ADMIN", "GATEWAY_TLS", "GATEWAY_PLAIN"])}
    figures = {}
    with Programs(SCRATCH, signal.SIGKILL) as programs:
        programs.start("upstream", [arguments.tool, "upstream", f"127.0.0.1:{values['UPSTREAM']}"], lambda: listens(values["UPSTREAM"]))
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={SCRATCH}/callgrind", arguments.program, "run", "--config", configuration(values)]
        gateway = programs.start("gateway", command, lambda: listens(values["GATEWAY_PLAIN"]))
        for number, scenario in enumerate(SCENARIOS):
            # The token is checked, the pool filled and the code paged in before anything is counted.
            drive(arguments.tool, scenario, 100, values, gateway.pid)
            counted(gateway.pid, 3 * number + 1)
            once = drive(arguments.tool, scenario, arguments.requests, values, gateway.pid)
            first = counted(gateway.pid, 3 * number + 2)
            twice = drive(arguments.tool, scenario, 2 * arguments.requests, values, gateway.pid)
            second = counted(gateway.pid, 3 * number + 3)
            figures[scenario] = round((second - first) / (twice - once))
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=resolved, default=TARGET / "release" / "cde-gateway", help="the gateway, a release build")
    parser.add_argument("--tool", type=resolved, default=TARGET / "debug" / "examples" / "load", help="the driver of benches/load, any build")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--write", action="store_true", help="take the figures over as the budget")
    arguments = parser.parse_args()
    begun = time.monotonic()
    figures = measure(arguments)
    budget = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    above = []
    for scenario, figure in figures.items():
        allowed = budget.get(scenario)
        beside = f"{figure / allowed:7.3f} of the budget {allowed}" if allowed else "no budget"
        print(f"{scenario:8} {figure:8} instructions per request  {beside}  ({SCENARIOS[scenario][0]})")
        if not arguments.write and (not allowed or figure > allowed * ABOVE):
            above.append(scenario)
    print(f"in {time.monotonic() - begun:.0f} s")
    if arguments.write:
        BUDGET.write_text(json.dumps(figures, indent=2) + "\n")
    if above:
        sys.exit(f"above the budget: {', '.join(above)}; make it cheaper, or say in the commit what it is for and run it with --write")


if __name__ == "__main__":
    main()
