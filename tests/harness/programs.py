"""Running programs: to their end, or beside a script until its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

WITHIN = 60
STOPS = 20
# What stands in the environment about proxies is not for loopback.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run(*command, **more):
    """To its end, which must be a good one. Gives what it printed."""
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, **more)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def serves(url):
    """Whether it is answered, and well."""
    try:
        DIRECT.open(url, timeout=2).close()
        return True
    except OSError:
        return False


class Programs:
    """Those of one script, each with a log of its own in the folder. Those that are left at the end of a `with` are stopped, the last one first; the script
    fails there if one had to be killed."""

    def __init__(self, folder, how=signal.SIGTERM):
        self.folder, self.how, self.running, self.killed = folder, how, {}, []

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        self.stop_all()
        if self.killed and failure is None:
            sys.exit(f"did not stop within {STOPS} s and were killed: {', '.join(self.killed)}")

    def start(self, name, command, is_up, env=None, cwd=None):
        """Starts it in the folder, with more in its environment, and waits until it is up."""
        log = self.folder / f"{name}.log"
        with log.open("a") as out:
            child = subprocess.Popen([str(word) for word in command], cwd=cwd or self.folder, env={**os.environ, **(env or {})},
                                     stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.running[child] = name
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline and child.poll() is None:
            if is_up():
                return child
            time.sleep(0.05)
        sys.exit(f"{name} did not start; its log:\n{log.read_text(errors='replace')[-3000:]}")

    def stop(self, child):
        name = self.running.pop(child)
        if child.poll() is None:
            child.send_signal(self.how)
        try:
            child.wait(STOPS)
        except subprocess.TimeoutExpired:
            self.killed.append(name)
            child.kill()
            child.wait()

    def stop_all(self):
        while self.running:
            self.stop(next(reversed(self.running)))
