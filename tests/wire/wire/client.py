"""A raw client: sends bytes as they are, reads answers strictly."""

import re
import select
import socket
import ssl
import time

STATUS_LINE = re.compile(rb"^HTTP/1\.[01] ([0-9]{3})(?: [^\r\n\0]*)?$")
FIELD = re.compile(rb"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*$")


class Answer:
    """One final answer."""

    def __init__(self, status, fields):
        self.status, self.fields = status, fields
        self.body = b""
        self.complete = False

    def all(self, name):
        name = name.lower().encode()
        return [value for own, value in self.fields if own.lower() == name]


class Heard:
    """What came back on one connection."""

    def __init__(self):
        self.raw = b""
        self.closed = False
        self.reset = False
        self.refused = False
        self.seconds = 0.0
        self.interim = []
        self.answers = []
        self.problems = []
        self.rest = b""


def context(alpn=None, low=None, high=None, ciphers=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if alpn:
        made.set_alpn_protocols(alpn)
    if ciphers:
        made.set_ciphers(ciphers)
    if low:
        made.minimum_version = low
    if high:
        made.maximum_version = high
    return made


def connect(port, tls=None, sni=None, timeout=5):
    sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        sock = tls.wrap_socket(sock, server_hostname=sni)
    return sock


def parse(heard, methods):
    """Reads `raw` as answers to requests with these methods; True if something is still to come of the last one."""
    heard.interim, heard.answers, heard.problems = [], [], []
    data, index = heard.raw, 0
    while data:
        if b"\r\n\r\n" not in data:
            heard.rest = data
            return True
        head, rest = data.split(b"\r\n\r\n", 1)
        lines = head.split(b"\r\n")
        found = STATUS_LINE.match(lines[0])
        if not found:
            heard.problems.append(f"status line {lines[0][:60]!r}")
            heard.rest = data
            return False
        fields = []
        for line in lines[1:]:
            field = FIELD.match(line)
            if field:
                fields.append((field.group(1), field.group(2)))
            else:
                heard.problems.append(f"field line {line[:60]!r}")
        answer = Answer(int(found.group(1)), fields)
        if 100 <= answer.status < 200 and answer.status != 101:
            heard.interim.append(answer)
            data = rest
            continue
        heard.answers.append(answer)
        method = methods[min(index, len(methods) - 1)]
        index += 1
        lengths, codings = answer.all("content-length"), answer.all("transfer-encoding")
        if lengths and codings or len(set(lengths)) > 1:
            heard.problems.append("two framings in an answer")
        if method == "HEAD" or answer.status in (204, 304):
            answer.complete = True
            data = rest
        elif answer.status == 101:
            answer.complete, answer.body = True, rest
            return False
        elif codings:
            data = _chunks(answer, rest, heard)
            if data is None:
                return True
        elif lengths:
            length = int(lengths[0])
            answer.body = rest[:length]
            answer.complete = len(rest) >= length
            data = rest[length:]
        else:
            answer.body, data = rest, b""
            answer.complete = heard.closed
        if not answer.complete:
            return True
    heard.rest = b""
    return False


def _chunks(answer, data, heard):
    while True:
        if b"\r\n" not in data:
            return None
        line, data = data.split(b"\r\n", 1)
        if not re.fullmatch(rb"[0-9A-Fa-f]+([ \t]*;[^\r\n]*)?", line):
            heard.problems.append(f"chunk {line[:40]!r}")
            return None
        size = int(line.split(b";")[0], 16)
        if size == 0:
            while True:
                if b"\r\n" not in data:
                    return None
                line, data = data.split(b"\r\n", 1)
                if not line:
                    answer.complete = True
                    return data
        if len(data) < size + 2:
            answer.body += data[:size]
            return None
        answer.body += data[:size]
        data = data[size + 2:]


def exchange(sock, steps, methods=("GET",), limit=3.0, quiet=0.3, want=1):
    """Sends the steps (bytes; seconds to wait; "fin"; "answer": wait for one) and listens until nothing more comes."""
    heard = Heard()
    start = time.monotonic()
    steps = [steps] if isinstance(steps, bytes) else list(steps)
    pending, last, wake, awaited = b"", start, 0.0, None
    sock.setblocking(False)
    tls = isinstance(sock, ssl.SSLSocket)
    while not heard.closed:
        now = time.monotonic()
        while not pending and steps and now >= wake and (awaited is None or len(heard.answers) + len(heard.interim) >= awaited):
            awaited = None
            step = steps.pop(0)
            if isinstance(step, bytes):
                pending = step
            elif step == "fin":
                try:
                    sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
            elif step == "answer":
                awaited = len(heard.answers) + len(heard.interim) + 1
            else:
                wake = now + step
        if now - start > limit:
            break
        partial = parse(heard, methods)
        done = not steps and not pending
        if done and len(heard.answers) >= want and not partial and now - last > quiet:
            break
        wait = min(0.05, max(0.001, wake - now)) if wake > now else 0.05
        try:
            readable, writable, _ = select.select([sock], [sock] if pending else [], [], wait)
        except (OSError, ValueError):
            break
        if writable and pending:
            try:
                sent = sock.send(pending[:65536])
                pending = pending[sent:]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            except OSError:
                # What was refused early still has its answer in the socket.
                pending, steps = b"", []
        if readable or (tls and sock.pending()):
            try:
                data = sock.recv(65536)
                last = time.monotonic()
                heard.closed = not data
                heard.raw += data
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except OSError:
                heard.closed = heard.reset = True
    parse(heard, methods)
    heard.seconds = time.monotonic() - start
    try:
        sock.close()
    except OSError:
        pass
    return heard
