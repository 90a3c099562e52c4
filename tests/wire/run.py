#!/usr/bin/env python3
"""Plays every case against cde-gateway, nginx and HAProxy beside each other; prints a table and writes docs/wire.md.

    tests/wire/run.py [--products gateway,nginx,haproxy] [--only REGEX] [--lanes 8] [--no-write] [--verbose] [--list]

Standard library only. The gateway is $CARGO_TARGET_DIR/debug/cde-gateway, or $CDE_GATEWAY. Loopback only.
The exit code is 1 if the gateway failed a case.
"""

import argparse
import os
import pathlib
import queue
import re
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases import everything  # noqa: E402
from harness.places import ROOT, TARGET, resolved  # noqa: E402
from wire import client, products, report  # noqa: E402
from wire.judge import Seen  # noqa: E402


def fill(case, lane):
    """The steps of a case for a lane: hosts, the case's own path, lengths of what follows."""
    steps = [case.send] if isinstance(case.send, bytes) else list(case.send)
    path = b"/c%d" % case.number

    def put(step):
        return (step.replace(b"{H}", lane.host.encode()).replace(b"{HUP}", lane.host.upper().encode())
                .replace(b"{PRIVATE}", lane.private.encode()).replace(b"{P}", path)
                .replace(b"{TOKEN}", products.token() if b"{TOKEN}" in step else b""))
    steps = [put(step) if isinstance(step, bytes) else step for step in steps]
    for at, step in enumerate(steps):
        if isinstance(step, bytes) and b"{LEN}" in step:
            rest = b"".join(s for s in steps[at + 1:] if isinstance(s, bytes))
            steps[at] = step.replace(b"{LEN}", b"%d" % len(rest))
        elif isinstance(step, bytes) and b"{CHUNK}" in step:
            inner = step.split(b"{CHUNK}\r\n", 1)[1].split(b"\r\n0\r\n\r\n")[0]
            steps[at] = step.replace(b"{CHUNK}", b"%x" % len(inner))
    # A head and its body go out together, unless the case waits between them.
    joined = []
    for step in steps:
        if isinstance(step, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += step
        else:
            joined.append(step)
    return joined


def play(case, lane):
    lane.upstream.begin()
    if case.run:
        return case.run(lane, case)
    tls = client.context(["http/1.1"]) if case.tls else None
    port = lane.tls if case.tls else lane.plain
    sock = client.connect(port, tls, lane.host if tls else None)
    heard = client.exchange(sock, fill(case, lane), case.methods, case.limit, case.quiet, case.want)
    time.sleep(0.02)
    seen = Seen(heard, lane.upstream.seen(), case)
    wrong = case.expect(seen)
    return wrong, seen.told()


def work(lane, waiting, outcomes, verbose):
    while True:
        try:
            case = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            wrong, told = play(case, lane)
        except Exception as error:  # noqa: BLE001: a case that cannot be played has failed
            wrong, told = f"{type(error).__name__}: {error}", ""
        if not lane.product.alive():
            wrong = "the product died"
        outcomes[lane.product.key, case.number] = (wrong, told)
        if wrong and (verbose or lane.product.key == "gateway"):
            print(f"{lane.product.key:8} FAILED {case.number} {case.group}: {case.name}: {wrong}\n         {told}", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--products", default="gateway,nginx,haproxy")
    arguments.add_argument("--only", default="")
    arguments.add_argument("--lanes", type=int, default=8)
    arguments.add_argument("--no-write", action="store_true")
    arguments.add_argument("--verbose", action="store_true")
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--keep", action="store_true", help="keep the folder with configurations and logs")
    options = arguments.parse_args()

    cases = list(everything())
    for number, case in enumerate(cases, 1):
        case.number = number
    cases = [case for case in cases if re.search(options.only, f"{case.group}: {case.name}", re.IGNORECASE)]
    if options.list:
        for case in cases:
            print(f"{case.number} {case.group}: {case.name} [{case.reference}]")
        return 0

    products.Gateway.program = resolved(os.environ.get("CDE_GATEWAY") or TARGET / "debug" / "cde-gateway")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wire-"))
    folder.chmod(0o755)
    chosen = [made for made in products.ALL if made.key in options.products.split(",")]
    running = [made(folder / made.key, options.lanes) for made in chosen]
    outcomes, start = {}, time.monotonic()
    try:
        threads = []
        for product in running:
            product.start()
            waiting = queue.Queue()
            for case in sorted(cases, key=lambda case: -case.limit):
                if not case.alone and (not case.only or product.key in case.only):
                    waiting.put(case)
            threads += [threading.Thread(target=work, args=(lane, waiting, outcomes, options.verbose), daemon=True) for lane in product.lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # What looks at times has the machine for itself.
        for case in cases:
            for product in running:
                if case.alone and (not case.only or product.key in case.only):
                    waiting = queue.Queue()
                    waiting.put(case)
                    work(product.lanes[0], waiting, outcomes, options.verbose)
    finally:
        for product in running:
            product.stop()
    seconds = time.monotonic() - start
    print(report.table(cases, running, outcomes, seconds))
    if not options.no_write and not options.only and len(running) == len(products.ALL):
        report.write(ROOT / "docs" / "wire.md", cases, running, outcomes)
    if options.keep:
        print(f"logs in {folder}")
    else:
        import shutil
        shutil.rmtree(folder)
    return int(any(wrong for (key, _), (wrong, _) in outcomes.items() if key == "gateway"))


if __name__ == "__main__":
    sys.exit(main())
