#!/usr/bin/env python3
"""Memory of the gateway per connection, by kind: VmRSS before and after so many connections, each after one answered request.

    benches/memory.py [--binary target/release/cde-gateway] [--kinds plain,tls,…] [--connections 1000] [--zero-windows 20]

Kinds: plain (HTTP/1.1 in the clear), tls (HTTP/1.1 over TLS 1.3), h2 (HTTP/2 over TLS), socket (a WebSocket over TLS that was used once,
with its connection to the app), beside (an HTTP/2 connection with ten such WebSockets in it), and zero (HTTP/2 with 100 streams that ask
for a large answer and open no window). One data-path thread; loopback only; standard library only.
"""

import argparse
import base64
import hashlib
import pathlib
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
from harness.places import TARGET, resolved  # noqa: E402
from harness.ports import free_ports  # noqa: E402
from harness.programs import Programs, listens  # noqa: E402

HOST = "idle-k3x9q2.gitspaces.localhost"
LARGE = 1024 * 1024
CONFIG = """
roles = ["gateway"]
state_dir = "{dir}/state"
[gateway]
workers = 1
[[gateway.listen]]
address = "127.0.0.1:{https}"
protocol = "https"
[[gateway.listen]]
address = "127.0.0.1:{http}"
protocol = "http"
[gateway.limits]
connections_per_network = 20000
new_connections_per_network = 1000000
streams_per_principal = 100000
streams_per_gitspace = 100000
requests_per_principal = 1000000
requests_per_anonymous = 1000000
requests_per_gitspace = 1000000
streams_per_anonymous = 100000
new_streams_per_anonymous = 1000000
new_streams_per_gitspace = 1000000
[gateway.upstreams]
max_connections = 50000
[gateway.timeouts]
keep_alive = "1h"
[gateway.admin]
address = "127.0.0.1:{admin}"
[gateway.access_log]
path = ""
[[route]]
gitspace = "idle-k3x9q2"
upstream = "http://127.0.0.1:{upstream}"
owner = "alice"
visibility = "public"
"""


def upstream(listener):
    """Answers every request with 2 bytes, and /large with a mebibyte as long as somebody takes it."""

    def serve(stream):
        try:
            buffer = b""
            while True:
                while b"\r\n\r\n" not in buffer:
                    chunk = stream.recv(65536)
                    if not chunk:
                        return
                    buffer += chunk
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                if b"\r\nupgrade: websocket" in head.lower():
                    key = head.lower().partition(b"sec-websocket-key: ")[2].partition(b"\r\n")[0]
                    key = head[head.lower().index(key):][:len(key)]
                    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                    stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: " + accept + b"\r\n\r\n")
                    while stream.recv(65536):
                        stream.sendall(b"\x81\x02hi")
                    return
                size = LARGE if b" /large " in head else 2
                stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        except OSError:
            pass

    while True:
        stream, _ = listener.accept()
        threading.Thread(target=serve, args=(stream,), daemon=True).start()


def connect(port, alpn=None):
    stream = socket.create_connection(("127.0.0.1", port))
    if alpn is None:
        return stream
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(stream, server_hostname=HOST)


def h1(stream):
    stream.sendall(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    assert stream.recv(65536).startswith(b"HTTP/1.1 200")
    return stream


def websocket(stream):
    stream.sendall(f"GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                   "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    assert stream.recv(65536).startswith(b"HTTP/1.1 101")
    stream.sendall(b"\x81\x82\0\0\0\0hi")
    assert stream.recv(65536) == b"\x81\x02hi"
    return stream


def beside(stream):
    fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":path", "/"), (":scheme", "https"), (":authority", HOST), ("sec-websocket-version", "13")]
    heads = b"".join(frame(1, 4, 2 * number + 1, literal(fields)) + frame(0, 0, 2 * number + 1, b"\x81\x82\0\0\0\0hi") for number in range(10))
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(4, 1, 0) + heads)
    got = b""
    while got.count(b"\x81\x02hi") < 10:
        chunk = stream.recv(65536)
        assert chunk, got
        got += chunk
    return stream


def frame(kind, flags, number, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, number) + payload


def block(path):
    fields = [(":method", "GET"), (":path", path), (":scheme", "https"), (":authority", HOST)]
    return literal(fields)


def literal(fields):
    return b"".join(b"\0" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in fields)


def h2(stream):
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(4, 1, 0) + frame(1, 5, 1, block("/")))
    got = b""
    while frame(0, 1, 1, b"xx") not in got and frame(0, 0, 1, b"xx") not in got:
        chunk = stream.recv(65536)
        assert chunk, got
        got += chunk
    return stream


def zero(stream):
    settings = struct.pack(">HI", 4, 0)
    heads = b"".join(frame(1, 5, 2 * number + 1, block("/large")) for number in range(100))
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, settings) + frame(4, 1, 0) + heads)
    return stream


def resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=resolved, default=TARGET / "release" / "cde-gateway")
    arguments.add_argument("--kinds", help="comma separated; all if it is not given")
    arguments.add_argument("--connections", type=int, default=1000)
    arguments.add_argument("--zero-windows", type=int, default=20)
    arguments = arguments.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=upstream, args=(listener,), daemon=True).start()
    kinds = {
        "plain": (arguments.connections, lambda ports: h1(connect(ports["http"]))),
        "tls": (arguments.connections, lambda ports: h1(connect(ports["https"], "http/1.1"))),
        "h2": (arguments.connections, lambda ports: h2(connect(ports["https"], "h2"))),
        "socket": (arguments.connections, lambda ports: websocket(connect(ports["https"], "http/1.1"))),
        "beside": (arguments.connections // 10, lambda ports: beside(connect(ports["https"], "h2"))),
        "zero": (arguments.zero_windows, lambda ports: zero(connect(ports["https"], "h2"))),
    }
    for kind in arguments.kinds.split(",") if arguments.kinds else kinds:
        count, opened = kinds[kind]
        measure(arguments.binary, listener.getsockname()[1], kind, count, opened)


def measure(binary, upstream_port, kind, count, opened):
    """One kind, in a process of its own: memory that was freed is used again and would not show."""
    ports = free_ports(["https", "http", "admin"])
    with tempfile.TemporaryDirectory() as folder, Programs(pathlib.Path(folder)) as programs:
        config = pathlib.Path(folder, "config.toml")
        config.write_text(CONFIG.format(dir=folder, upstream=upstream_port, **ports))
        gateway = programs.start("gateway", [binary, "run", "--config", config], lambda: listens(ports["http"]))
        kept = []
        try:
            kept += [opened(ports) for _ in range(min(100, count))]  # what is allocated once
            time.sleep(2)
            before = resident(gateway.pid)
            kept += [opened(ports) for _ in range(count)]
            time.sleep(2)
            after = resident(gateway.pid)
            print(f"{kind:6} {(after - before) / count:8.2f} KiB each of {count}", flush=True)
        finally:
            for stream in kept:
                stream.close()


if __name__ == "__main__":
    main()
