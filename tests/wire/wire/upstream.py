"""A raw upstream: records exactly the bytes that arrive, reads them strictly, answers by script.

The target chooses the script: /c17/f/NAME answers as `scripts.NAME` says, anything else gets 200. Reading is stricter than
any real server's: whatever two servers could frame differently is written down as a problem of the request.
"""

import re
import socket
import threading
import time

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"^(" + TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])$")
FIELD = re.compile(rb"^(" + TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*$")
CHUNK = re.compile(rb"^([0-9A-Fa-f]{1,15})([ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?$")
MAX_HEAD = 1 << 20


class Request:
    """One request as it arrived."""

    def __init__(self, connection):
        self.connection = connection
        self.raw = b""
        self.method = self.target = b""
        self.minor = None
        self.fields = []
        self.body = b""
        self.trailers = []
        self.extensions = 0
        self.complete = False
        self.problems = []

    def all(self, name):
        name = name.lower().encode()
        return [value for own, value in self.fields if own.lower() == name]

    def script(self):
        found = re.search(rb"/f/([a-z0-9_-]+)", self.target)
        return found.group(1).decode() if found else None


class Gone(Exception):
    """The other end closed."""


class Connection:
    """One connection to the upstream; `raw` is everything that came."""

    def __init__(self, sock, number):
        self.socket, self.number = sock, number
        self.raw = bytearray()
        self.buffer = b""
        self.at = time.monotonic()
        self.ended = None

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise Gone
        self.raw += data
        self.buffer += data

    def until(self, mark, limit=MAX_HEAD):
        while mark not in self.buffer:
            if len(self.buffer) > limit:
                raise Gone
            self.more()
        found, self.buffer = self.buffer.split(mark, 1)
        return found

    def exactly(self, count):
        while len(self.buffer) < count:
            self.more()
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def send(self, data):
        self.socket.sendall(data)


class Upstream:
    """Listens on a loopback port; each test lane of each product has one of its own."""

    def __init__(self, scripts):
        self.scripts = scripts
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.requests, self.connections = [], []
        threading.Thread(target=self._accept, daemon=True).start()

    def begin(self):
        """Forgets what came so far."""
        with self.lock:
            self.requests = []
            self.connections = [c for c in self.connections if c.ended is None]

    def seen(self):
        with self.lock:
            return list(self.requests)

    def _accept(self):
        number = 0
        while True:
            sock, _ = self.listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number += 1
            connection = Connection(sock, number)
            with self.lock:
                self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            while True:
                request = self._request(connection)
                if not self._answer(connection, request):
                    break
        except (Gone, OSError):
            pass
        finally:
            connection.ended = time.monotonic()
            connection.socket.close()

    def _request(self, connection):
        while not connection.buffer:
            connection.more()
        request = Request(connection)
        with self.lock:
            self.requests.append(request)
        head = connection.until(b"\r\n\r\n")
        request.raw = head
        length, chunked = read_head(request, head)
        early = self.scripts.early(request)
        if early is None:
            if request.all("expect") == [b"100-continue"] and not connection.buffer:
                connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            if chunked:
                read_chunks(connection, request)
            elif length:
                request.body = connection.exactly(length)
            request.complete = True
        return request

    def _answer(self, connection, request):
        answered = self.scripts.answer(connection, request)
        return answered and not request.problems


def read_head(request, head):
    """Fills in the head; returns (length, chunked) and notes every problem."""
    problems = request.problems
    lines = head.split(b"\r\n")
    found = REQUEST_LINE.match(lines[0])
    if not found:
        problems.append(f"request line {lines[0][:60]!r}")
        return 0, False
    request.method, request.target, request.minor = found.group(1), found.group(2), found.group(3)
    for line in lines[1:]:
        found = FIELD.match(line)
        if not found:
            problems.append(f"field line {line[:60]!r}")
            continue
        request.fields.append((found.group(1), found.group(2)))
        squeezed = re.sub(rb"[^a-z]", b"", found.group(1).lower())
        if squeezed in (b"transferencoding", b"contentlength") and b"-" not in found.group(1):
            problems.append(f"framing field by another spelling {found.group(1)!r}")
    lengths, codings = request.all("content-length"), request.all("transfer-encoding")
    if lengths and codings:
        problems.append("Content-Length beside Transfer-Encoding")
    if len(lengths) > 1 or any(not re.fullmatch(rb"[0-9]{1,18}", value) for value in lengths):
        problems.append(f"Content-Length {lengths!r}")
    if codings and [value.lower() for value in codings] != [b"chunked"]:
        problems.append(f"Transfer-Encoding {codings!r}")
    if codings and request.minor == b"0":
        problems.append("Transfer-Encoding in HTTP/1.0")
    if len(request.all("host")) != 1:
        problems.append(f"Host {request.all('host')!r}")
    if problems:
        return 0, False
    return int(lengths[0]) if lengths else 0, bool(codings)


def read_chunks(connection, request):
    while True:
        line = connection.until(b"\r\n")
        found = CHUNK.match(line)
        if not found:
            request.problems.append(f"chunk {line[:40]!r}")
            return
        if found.group(2):
            request.extensions += 1
        size = int(found.group(1), 16)
        if size == 0:
            break
        request.body += connection.exactly(size)
        if connection.exactly(2) != b"\r\n":
            request.problems.append("no line end after a chunk")
            return
    while line := connection.until(b"\r\n"):
        found = FIELD.match(line)
        if not found:
            request.problems.append(f"trailer {line[:40]!r}")
            return
        request.trailers.append((found.group(1), found.group(2)))
