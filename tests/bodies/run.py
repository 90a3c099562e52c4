#!/usr/bin/env python3
"""Large bodies at constant memory, the delay of a server-sent event, and how soon an upstream learns that its client has gone.

    tests/bodies/run.py --gateway target/release/cde-gateway [--gigabytes 10] [--events 200] [--gone 20]

Starts the gateway with one public route to an upstream of this script, and sends so many gigabytes down and up, chunked over
HTTP/1.1 and over HTTP/2 (by curl), over TLS. After each it prints the gateway's resident memory before, at most and after, and fails
if the most is beyond --limit MiB over what it was before. Then events are sent one by one over both protocols; the delay from the
upstream's write to the client's read is printed, and none may take more than 100 ms. Last, clients go away before the answer, within
it and within their upload; the time until the upstream's connection ends is printed, and must not be more than a second. Loopback
only. Standard library and curl only.
"""

import argparse
import pathlib
import queue
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.places import resolved  # noqa: E402
from harness.ports import free_ports  # noqa: E402
from harness.programs import Programs, listens  # noqa: E402

HOST = "bodies-k3x9q2.gitspaces.localhost"
PIECE = 1 << 18
CHUNK = b"%x\r\n" % PIECE + b"x" * PIECE + b"\r\n"

CONFIG = """
roles = ["gateway"]
state_dir = "{folder}/state"
[gateway]
domains = ["gitspaces.localhost"]
workers = 1
[[gateway.listen]]
address = "127.0.0.1:{tls}"
protocol = "https"
[gateway.admin]
address = "127.0.0.1:{admin}"
[gateway.access_log]
path = "{folder}/access.log"
[[route]]
gitspace = "bodies-k3x9q2"
upstream = "http://127.0.0.1:{upstream}"
owner = "alice"
visibility = "public"
"""


class Upstream:
    """Sends on GET, swallows and counts on POST, tells events on /events, waits for the end on /gone."""

    def __init__(self, total):
        self.total = total
        self.streams = queue.Queue()
        self.seen = queue.Queue()
        self.ended = queue.Queue()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            stream, _ = self.listener.accept()
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        try:
            while head := read_head(stream):
                first, rest = head
                if b"/gone" in first.split(b"\r\n")[0]:
                    self.watch(stream, b"/gone-within" in first)
                    break
                if first.startswith(b"POST"):
                    self.swallow(stream, rest)
                elif b"/events" in first.split(b"\r\n")[0]:
                    self.tell(stream)
                else:
                    self.give(stream)
        except OSError:
            pass
        stream.close()

    def give(self, stream):
        stream.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(self.total // PIECE):
            stream.sendall(CHUNK)
        stream.sendall(b"0\r\n\r\n")

    def swallow(self, stream, rest):
        """Counts the bytes of a chunked body without looking at all of them."""
        count = chunked(stream, rest)
        text = b"%d" % count
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))

    def tell(self, stream):
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        self.streams.put(stream)
        # Whoever took it says when.
        while stream.fileno() >= 0:
            time.sleep(0.1)


    def watch(self, stream, answer):
        """Tells when a request has come, and when its connection has ended."""
        if answer:
            stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")
        self.seen.put(True)
        try:
            while stream.recv(65536):
                pass
        except OSError:
            pass
        self.ended.put(time.perf_counter())


def read_head(stream):
    head = b""
    while b"\r\n\r\n" not in head:
        piece = stream.recv(65536)
        if not piece:
            return None
        head += piece
    head, _, rest = head.partition(b"\r\n\r\n")
    return head, rest


def chunked(stream, buffer):
    """The size of a chunked body that begins in `buffer`; its chunks are skipped, not kept."""
    count = 0
    scratch = bytearray(1 << 20)
    while True:
        while b"\r\n" not in buffer:
            piece = stream.recv(65536)
            if not piece:
                raise OSError("cut")
            buffer += piece
        line, _, buffer = buffer.partition(b"\r\n")
        size = int(line, 16)
        count += size
        left = size + 2 - len(buffer)
        if left <= 0:
            buffer = buffer[size + 2:]
        else:
            buffer = b""
            while left > 0:
                came = stream.recv_into(scratch, min(left, len(scratch)))
                if not came:
                    raise OSError("cut")
                left -= came
        if size == 0:
            return count


def connect(port):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname=HOST)


def down_h1(port, total):
    with connect(port) as stream:
        stream.sendall(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        _, rest = read_head(stream)
        return chunked(stream, rest)


def up_h1(port, total):
    with connect(port) as stream:
        stream.sendall(f"POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for _ in range(total // PIECE):
            stream.sendall(CHUNK)
        stream.sendall(b"0\r\n\r\n")
        _, rest = read_head(stream)
        return int(rest or stream.recv(100))


def curl(port, *more):
    return ["curl", "-sS", "--fail", "--insecure", "--http2", "--resolve", f"{HOST}:{port}:127.0.0.1", *more, f"https://{HOST}:{port}/"]


def down_h2(port, total):
    done = subprocess.run(curl(port, "-o", "/dev/null", "-w", "%{http_version} %{size_download}"), capture_output=True, check=True)
    version, count = done.stdout.split()
    assert version == b"2", version
    return int(count)


def up_h2(port, total):
    zeros = subprocess.Popen(["head", "-c", str(total), "/dev/zero"], stdout=subprocess.PIPE)
    done = subprocess.run(curl(port, "-X", "POST", "-T", "-"), stdin=zeros.stdout, capture_output=True, check=True)
    zeros.wait()
    return int(done.stdout)


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def transfer(name, pid, port, total, run, limit):
    before, most, over = resident(pid), [0], threading.Event()

    def sample():
        while not over.wait(0.02):
            most[0] = max(most[0], resident(pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    start, used = time.monotonic(), cpu(pid)
    count = run(port, total)
    seconds, used = time.monotonic() - start, cpu(pid) - used
    over.set()
    sampler.join()
    after = resident(pid)
    rate = total / seconds / 1e6
    print(f"{name:16} {count / 1e9:6.2f} GB {seconds:7.1f} s {rate:6.0f} MB/s, CPU {used:6.1f} s, "
          f"resident MiB: before {before / 1024:.1f}, most {most[0] / 1024:.1f}, after {after / 1024:.1f}", flush=True)
    if count != total:
        sys.exit(f"{name}: {count} of {total} bytes arrived")
    if most[0] - before > limit * 1024:
        sys.exit(f"{name}: memory grew by {(most[0] - before) / 1024:.1f} MiB, more than {limit}")


def events(name, upstream, count, read):
    delays = []
    stream = upstream.streams.get(timeout=20)
    for _ in range(count):
        start = time.perf_counter()
        stream.sendall(b"data: x\n\n")
        read()
        delays.append((time.perf_counter() - start) * 1000)
        time.sleep(0.005)
    stream.close()
    delays.sort()
    print(f"events {name}: first and all {count} arrived; delay ms: median {statistics.median(delays):.2f}, "
          f"p99 {delays[int(count * 0.99)]:.2f}, most {delays[-1]:.2f}", flush=True)
    if delays[-1] > 100:
        sys.exit("an event takes more than 100 ms")


def events_h1(port, upstream, count):
    with connect(port) as stream:
        stream.sendall(f"GET /events HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        read_head(stream)
        events("HTTP/1.1", upstream, count, lambda: stream.recv(4096))


def events_h2(port, upstream, count):
    command = curl(port, "-N")
    command[-1] += "events"
    child = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    try:
        events("HTTP/2", upstream, count, lambda: child.stdout.read(4096))
    finally:
        child.terminate()
        child.wait()


def leave_h1(port, point, upstream):
    with connect(port) as stream:
        body = "content-length: 100\r\n" if point == "upload" else ""
        method = "POST" if body else "GET"
        stream.sendall(f"{method} /gone-{point} HTTP/1.1\r\nhost: {HOST}\r\n{body}\r\n".encode())
        if point == "within":
            read_head(stream)
        upstream.seen.get(timeout=20)
        return time.perf_counter()


def leave_h2(port, point, upstream):
    command = curl(port, "-N", *(["-X", "POST", "-T", "-"] if point == "upload" else []))
    command[-1] += f"gone-{point}"
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
    upstream.seen.get(timeout=20)
    if point == "within":
        child.stdout.read(4)
    left = time.perf_counter()
    child.kill()
    child.wait()
    return left


def gone(port, upstream, count):
    for name, leave in [("HTTP/1.1", leave_h1), ("HTTP/2", leave_h2)]:
        for point in ["before", "within", "upload"]:
            delays = []
            for _ in range(count):
                left = leave(port, point, upstream)
                delays.append((upstream.ended.get(timeout=20) - left) * 1000)
            print(f"client gone, {name}, {point}: the upstream's connection ended after ms: median {statistics.median(delays):.1f}, "
                  f"most {max(delays):.1f} of {count}", flush=True)
            if max(delays) > 1000:
                sys.exit("the upstream of a client that has gone works on for more than a second")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", required=True, type=resolved, help="the program")
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--gone", type=int, default=20, help="clients that go away, at each point")
    parser.add_argument("--limit", type=float, default=16, help="MiB that a transfer may add")
    arguments = parser.parse_args()
    total = int(arguments.gigabytes * 1e9) // PIECE * PIECE
    with tempfile.TemporaryDirectory() as folder, Programs(pathlib.Path(folder)) as programs:
        ports = free_ports(["tls", "admin"])
        upstream = Upstream(total)
        config = pathlib.Path(folder) / "config.toml"
        config.write_text(CONFIG.format(folder=folder, upstream=upstream.port, **ports))
        gateway = programs.start("gateway", [arguments.gateway, "run", "--config", config], lambda: listens(ports["tls"]))
        transfer("warm-up", gateway.pid, ports["tls"], total, lambda port, total: down_h1(port, total) and total, 64)
        for name, run in [("down, HTTP/1.1", down_h1), ("up, HTTP/1.1", up_h1), ("down, HTTP/2", down_h2), ("up, HTTP/2", up_h2)]:
            transfer(name, gateway.pid, ports["tls"], total, run, arguments.limit)
        events_h1(ports["tls"], upstream, arguments.events)
        events_h2(ports["tls"], upstream, arguments.events)
        gone(ports["tls"], upstream, arguments.gone)


if __name__ == "__main__":
    main()
