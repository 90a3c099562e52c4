"""The three products with equivalent configurations, each with test lanes of its own: listeners or hosts, and an upstream."""

import base64
import hashlib
import hmac
import json
import re
import shutil
import socket
import subprocess
import time

from harness.certificates import self_signed
from harness.ports import free_port
from harness.programs import Programs, listens

from . import scripts
from .upstream import Upstream

SECRET = b"0123456789abcdef0123456789abcdef"
DEADLINES = {"head": 3, "keep_alive": 4, "connect": 1, "response": 2, "body": 2}


class Lane:
    """A place for one case at a time: how clients reach it, and what it reaches."""

    def __init__(self, product, number):
        self.product, self.number = product, number
        self.host, self.private = f"lane{number}.wire.test", f"private{number}.wire.test"
        self.upstream = Upstream(scripts)
        self.plain = self.tls = None


def refusing():
    """A port where connecting is refused: bound so that nobody else gets it, and never listening. Gives the port and what holds it."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held.getsockname()[1], held


def hanging():
    """A port where connecting gets no answer: its backlog is full. Gives the port and what holds it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    held = [listener]
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        held.append(client)
    return listener.getsockname()[1], held


def token(**claims):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")
    body = {"iss": "https://issuer.test", "aud": "cde-gateway", "sub": "alice", "exp": int(time.time()) + 3600} | claims
    signed = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()) + b"." + part(json.dumps(body).encode())
    return signed + b"." + part(hmac.new(SECRET, signed, hashlib.sha256).digest())


def certificates(folder):
    """Two certificates: *.wire.test, and other.test for the client that asks for that."""
    for name, names in (("wire", ["*.wire.test", "wire.test"]), ("other", ["other.test"])):
        self_signed(folder, name, *names)
        (folder / f"{name}.both").write_text((folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text())


class Product:
    """A running product. `key` is its name on the command line."""

    key = title = ""

    def __init__(self, folder, lanes):
        self.folder, self.programs = folder, Programs(folder)
        folder.mkdir(parents=True)
        self.dead, self._bound = refusing()
        self.hang, self._held = hanging()
        self.lanes = [Lane(self, number) for number in range(lanes)]
        self.child = None

    def start(self):
        certificates(self.folder)
        command = self.configure()
        ports = {port for lane in self.lanes for port in (lane.plain, lane.tls)}
        self.child = self.programs.start(self.key, command, lambda: all(listens(port) for port in ports))

    def alive(self):
        return self.child.poll() is None

    def stop(self):
        self.programs.stop_all()


class Gateway(Product):
    key, title = "gateway", "cde-gateway"
    program = None

    def version(self):
        return subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]

    def configure(self):
        plain, tls, admin = free_port(), free_port(), free_port()
        (self.folder / "secret").write_bytes(SECRET)
        routes = [("dead.wire.test", self.dead, "public"), ("hang.wire.test", self.hang, "public"), ("other.test", self.dead, "public")]
        for lane in self.lanes:
            lane.plain, lane.tls = plain, tls
            routes += [(lane.host, lane.upstream.port, "public"), (lane.private, lane.upstream.port, "private")]
        text = f'''
roles = ["gateway"]
state_dir = "state"
[gateway]
domains = ["gitspaces.localhost"]
workers = 2
listen = [{{ address = "127.0.0.1:{plain}", protocol = "http" }}, {{ address = "127.0.0.1:{tls}", protocol = "https" }}]
[[gateway.certificate]]
chain = "wire.pem"
key = "wire.key"
[[gateway.certificate]]
chain = "other.pem"
key = "other.key"
[[gateway.issuer]]
issuer = "https://issuer.test"
[[gateway.issuer.key]]
algorithm = "HS256"
secret_file = "secret"
id = ""
[gateway.timeouts]
head = "{DEADLINES['head']}s"
keep_alive = "{DEADLINES['keep_alive']}s"
connect = "{DEADLINES['connect']}s"
response_head = "{DEADLINES['response']}s"
body_idle = "{DEADLINES['body']}s"
[gateway.limits]
connections_per_network = 10000
new_connections_per_network = 100000
failed_logins_per_network = 100000
requests_per_principal = 100000
streams_per_principal = 10000
streams_per_gitspace = 10000
[gateway.admin]
address = "127.0.0.1:{admin}"
[gateway.access_log]
path = "access.log"
'''
        for host, port, visibility in routes:
            text += f'[[route]]\nhost = "{host}"\nupstream = "http://127.0.0.1:{port}"\nowner = "alice"\nvisibility = "{visibility}"\n'
        (self.folder / "config.toml").write_text(text)
        return [self.program, "run", "--config", "config.toml"]


def tool(name):
    return shutil.which(name) or f"/usr/sbin/{name}"


class Nginx(Product):
    key, title = "nginx", "nginx"

    def version(self):
        said = subprocess.run([tool("nginx"), "-v"], capture_output=True, text=True, check=True).stderr
        return re.search(r"nginx/(\S+)", said).group(1)

    def configure(self):
        servers = ""
        for lane in self.lanes:
            lane.plain, lane.tls = free_port(), free_port()
            for names, port in ((lane.host, lane.upstream.port), ("dead.wire.test", self.dead), ("hang.wire.test", self.hang)):
                first = " default_server" if names == lane.host else ""
                servers += f'''
    upstream up{lane.number}_{port} {{ server 127.0.0.1:{port}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{lane.plain}{first};
        listen 127.0.0.1:{lane.tls} ssl http2{first};
        server_name {names};
        location / {{
            proxy_pass http://up{lane.number}_{port};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Request-Id $request_id;
        }}
    }}'''
        folder = self.folder
        (folder / "nginx.conf").write_text(f'''
daemon off;
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections 4096; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    large_client_header_buffers 8 64k;
    client_header_timeout {DEADLINES['head']}s;
    client_body_timeout {DEADLINES['body']}s;
    keepalive_timeout {DEADLINES['keep_alive']}s;
    send_timeout {DEADLINES['body']}s;
    proxy_connect_timeout {DEADLINES['connect']}s;
    proxy_read_timeout {DEADLINES['response']}s;
    proxy_send_timeout {DEADLINES['body']}s;
    proxy_request_buffering off;
    proxy_buffering off;
    ssl_certificate {folder}/wire.pem;
    ssl_certificate_key {folder}/wire.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
{servers}
}}
''')
        return [tool("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


class Haproxy(Product):
    key, title = "haproxy", "HAProxy"

    def version(self):
        said = subprocess.run([tool("haproxy"), "-v"], capture_output=True, text=True, check=True).stdout
        return re.search(r"version (\d+\.\d+\.\d+)", said).group(1)

    def configure(self):
        text = f'''
global
    nbthread 2
    maxconn 4096
    tune.bufsize 65536
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    timeout connect {DEADLINES['connect']}s
    timeout client {DEADLINES['body']}s
    timeout server {DEADLINES['response']}s
    timeout http-request {DEADLINES['head']}s
    timeout http-keep-alive {DEADLINES['keep_alive']}s
    timeout tunnel 1h
    http-reuse always
    retries 1
backend dead
    server s 127.0.0.1:{self.dead}
backend hang
    server s 127.0.0.1:{self.hang}
'''
        for lane in self.lanes:
            lane.plain, lane.tls = free_port(), free_port()
            text += f'''
frontend front{lane.number}
    bind 127.0.0.1:{lane.plain}
    bind 127.0.0.1:{lane.tls} ssl crt {self.folder}/wire.both crt {self.folder}/other.both alpn h2,http/1.1
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Request-Id %[uuid()]
    use_backend dead if {{ hdr(host) -i dead.wire.test }}
    use_backend hang if {{ hdr(host) -i hang.wire.test }}
    default_backend back{lane.number}
backend back{lane.number}
    server s 127.0.0.1:{lane.upstream.port}
'''
        (self.folder / "haproxy.cfg").write_text(text)
        return [tool("haproxy"), "-f", str(self.folder / "haproxy.cfg"), "-db"]


ALL = [Gateway, Nginx, Haproxy]
