"""HTTP/2: what must not survive the way down to HTTP/1.1, and the rules of frames (RFC 9113)."""

import struct
import time

from wire.h2 import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, PADDED, PING, PRIORITY, PRIORITY_FLAG, PUSH_PROMISE,
                     RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, integer)
from wire.judge import SMUGGLED, Case


def path(case):
    return b"/c%d" % case.number


def upstream_wrong(lane, case, most):
    requests = lane.upstream.seen()
    for request in requests:
        if SMUGGLED in request.target or any(SMUGGLED in value or b"evil" in value for _, value in request.fields):
            return f"smuggled: {request.raw[:120]!r}"
        if request.problems:
            return f"ambiguous or malformed to the upstream: {request.problems[0]}"
    if len(requests) > most:
        return f"{len(requests)} requests reached the upstream"
    return None


def told(connection, number=1):
    stream = connection.of(number)
    return f"status {stream.status}, reset {stream.reset}, goaway {connection.goaway}, closed {connection.closed}"


def fields_case(change, body=None, mode="refused", trailers=None):
    """A request whose fields `change` makes of good ones."""
    def run(lane, case):
        connection = H2(lane)
        fields = change(connection.host, path(case))
        end = body is None and trailers is None
        data = connection.request(1, fields, end)
        if body is not None:
            data += frame(DATA, 0 if trailers is not None else END_STREAM, 1, body)
        if trailers is not None:
            data += frame(HEADERS, END_HEADERS | END_STREAM, 1, block(trailers))
        connection.send(data)
        connection.pump(2.5, lambda: connection.done(1) or connection.goaway is not None)
        time.sleep(0.03)
        return judge(connection, lane, case, mode), told(connection)
    return run


def judge(connection, lane, case, mode, number=1):
    stream = connection.of(number)
    refused = stream.reset not in (None, 0) or connection.goaway not in (None, 0) or (stream.status or 0) in range(400, 500) or stream.status == 501
    refused = refused or connection.closed and stream.status is None
    wrong = upstream_wrong(lane, case, 1 if mode in ("passes", "safe", "cut") else 0)
    whole = [request for request in lane.upstream.seen() if request.complete]
    connection.close()
    if wrong:
        return wrong
    if mode == "refused" and not refused:
        return f"not refused: {stream.status}"
    if mode == "cut" and (whole or not refused and stream.status != 502):
        return f"the upstream got a whole request; status {stream.status}" if whole else f"not refused: {stream.status}"
    if mode == "passes" and (stream.status != 200 or len(whole) != 1):
        return f"status {stream.status}, {len(whole)} reached the upstream"
    if mode == "safe" and not refused and stream.status is None:
        return "no answer"
    return None


def plus(*extra, method=b"GET", at=None):
    def change(host, target):
        fields = get(host, target, method)
        return fields[:at] + list(extra) + fields[at:] if at is not None else fields + list(extra)
    return change


def without(name, *extra):
    return lambda host, target: [field for field in get(host, target) if field[0] != name] + list(extra)


def set_to(name, value):
    return lambda host, target: [(own, value.replace(b"{P}", target).replace(b"{H}", host) if own == name else old) for own, old in get(host, target)]


INJECTED = b"a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"


def downgrade():
    reference = "HTTP/2 → HTTP/1.1 injection; RFC 9113 §8.2.1, §10.3"
    cases = {
        "CR LF in a value": plus((b"x-a", b"b\r\nx-evil: 1")),
        "a request in a value": plus((b"x-a", INJECTED)),
        "LF in a value": plus((b"x-a", b"b\nx-evil: 1")),
        "CR in a value": plus((b"x-a", b"b\rx-evil: 1")),
        "NUL in a value": plus((b"x-a", b"b\0c")),
        "CR LF in a name": plus((b"x-a: b\r\nx-evil", b"1")),
        "colon in a name": plus((b"x-a: b", b"1")),
        "transfer-encoding in a name": plus((b"transfer-encoding: chunked\r\nx", b"1")),
        "space in a name": plus((b"x a", b"1")),
        "space behind a name": plus((b"transfer-encoding ", b"chunked")),
        "NUL in a name": plus((b"x\0a", b"1")),
        "8 bit in a name": plus((b"x\xe4", b"1")),
        "DEL in a name": plus((b"x\x7f", b"1")),
        "empty name": plus((b"", b"1")),
        "upper case in a name": plus((b"X-A", b"1")),
        "CR LF in :path": set_to(b":path", b"{P} HTTP/1.1\r\nHost: evil\r\n\r\nGET /smuggled"),
        "space in :path": set_to(b":path", b"{P} x"),
        "HTTP/1.1 in :path": set_to(b":path", b"{P}/smuggled HTTP/1.1"),
        "NUL in :path": set_to(b":path", b"{P}\0"),
        "tab in :path": set_to(b":path", b"{P}\tx"),
        "fragment in :path": set_to(b":path", b"{P}#x"),
        "absolute :path": set_to(b":path", b"http://evil{P}"),
        ":path without slash": set_to(b":path", b"x{P}"),
        "empty :path": set_to(b":path", b""),
        "asterisk with GET": set_to(b":path", b"*"),
        "CR LF in :method": set_to(b":method", b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\nGET"),
        "space in :method": set_to(b":method", b"GET /smuggled"),
        "empty :method": set_to(b":method", b""),
        "CR LF in :authority": set_to(b":authority", b"{H}\r\nx-evil: 1"),
        "space in :authority": set_to(b":authority", b"{H} evil"),
        "path in :authority": set_to(b":authority", b"{H}/evil"),
        "user information in :authority": set_to(b":authority", b"evil@{H}"),
        "empty :authority": set_to(b":authority", b""),
        "two ports in :authority": set_to(b":authority", b"{H}:80:90"),
        "CR LF in :scheme": set_to(b":scheme", b"https\r\nx-evil: 1"),
        "a request in :scheme": set_to(b":scheme", b"http://evil/smuggled?"),
        "unknown :scheme": set_to(b":scheme", b"ftp"),
        "TRACE": set_to(b":method", b"TRACE"),
    }
    for name, change in cases.items():
        yield Case("h2 downgrade", name, reference, b"", None, run=fields_case(change, mode="refused" if name not in ("unknown :scheme", "TRACE") else "safe"))
    for name, value in (("space before a value", b" b"), ("space behind a value", b"b "), ("tab before a value", b"\tb")):
        yield Case("h2 downgrade", name, "RFC 9113 §8.2.1", b"", None, run=fields_case(plus((b"x-a", value)), mode="safe"))
    for name, value in (("control in a value", b"a\x01b"), ("DEL in a value", b"a\x7fb")):
        yield Case("h2 downgrade", name, "RFC 9110 §5.5", b"", None, run=fields_case(plus((b"x-a", value)), mode="safe"))
    for name, value in (("connection", b"close"), ("connection", b"x-a"), ("keep-alive", b"timeout=5"), ("proxy-connection", b"close"),
                        ("transfer-encoding", b"chunked"), ("transfer-encoding", b"identity"), ("upgrade", b"h2c"), ("te", b"gzip"), ("te", b"trailers, gzip")):
        yield Case("h2 connection fields", f"{name}: {value.decode()}", "RFC 9113 §8.2.2", b"", None, run=fields_case(plus((name.encode(), value))))
        if name == "transfer-encoding":
            smuggle = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"
            yield Case("h2 connection fields", f"{name}: {value.decode()} with a body", "H2.TE; RFC 9113 §8.2.2", b"", None,
                       run=fields_case(plus((name.encode(), value), method=b"POST"), smuggle))
    yield Case("h2 connection fields", "te: trailers", "RFC 9113 §8.2.2", b"", None, run=fields_case(plus((b"te", b"trailers")), mode="passes"))


def pseudo():
    reference = "RFC 9113 §8.3"
    cases = {
        "none at all": lambda host, target: [(b"x-a", b"1")], "no :method": without(b":method"), "no :path": without(b":path"), "no :scheme": without(b":scheme"),
        "two :method": plus((b":method", b"POST"), at=0), "two :path": plus((b":path", b"/smuggled"), at=0), "two :authority": plus((b":authority", b"evil"), at=0),
        "two :scheme": plus((b":scheme", b"http"), at=0), ":status": plus((b":status", b"200"), at=0), "unknown": plus((b":evil", b"1"), at=0),
        "empty name": plus((b":", b"1"), at=0), "behind a field": lambda host, target: [(b"x-a", b"1"), *get(host, target)],
        ":authority behind a field": lambda host, target: [*without(b":authority")(host, target), (b"x-a", b"1"), (b":authority", host)],
        ":protocol without CONNECT": plus((b":protocol", b"websocket"), at=0), "upper case": plus((b":Method", b"GET"), at=0),
        "CONNECT with :path": set_to(b":method", b"CONNECT"),
        "CONNECT": lambda host, target: [(b":method", b"CONNECT"), (b":authority", host + b":443")],
        "no :authority, no host": without(b":authority"),
        "host differs from :authority": plus((b"host", b"evil.test")),
        "two hosts": plus((b"host", b"{H}"), (b"host", b"evil.test")),
    }
    for name, change in cases.items():
        yield Case("h2 pseudo-headers", name, reference, b"", None, run=fields_case(change))
    yield Case("h2 pseudo-headers", "host equal to :authority", reference, b"", None, run=fields_case(lambda host, target: [*get(host, target), (b"host", host)], mode="safe"))
    yield Case("h2 pseudo-headers", "host alone", "RFC 9113 §8.3.1", b"", None, run=fields_case(lambda host, target: [*without(b":authority")(host, target), (b"host", host)], mode="safe"))
    for name, trailers in (("a pseudo-header", [(b":path", b"/smuggled")]), ("CR LF", [(b"x-t", b"a\r\nx-evil: 1")]), ("upper case", [(b"X-T", b"1")]),
                           ("connection", [(b"connection", b"close")]), ("transfer-encoding", [(b"transfer-encoding", b"chunked")])):
        yield Case("h2 trailers", name, "RFC 9113 §8.1", b"", None, run=fields_case(plus(method=b"POST"), b"hello", "cut", trailers))
    for name, trailers in (("one", [(b"x-t", b"1")]), ("x-forwarded-for", [(b"x-forwarded-for", b"evil")]), ("x-gitspace-user", [(b"x-gitspace-user", b"evil")]),
                           ("host", [(b"host", b"evil")]), ("content-length", [(b"content-length", b"5")]), ("cookie", [(b"cookie", b"evil")])):
        def run(lane, case, trailers=trailers, name=name):
            wrong, said = fields_case(plus((b"trailer", trailers[0][0]), method=b"POST"), b"hello", "safe", trailers)(lane, case)
            for request in lane.upstream.seen():
                if name != "one" and request.trailers:
                    return f"the trailer {request.trailers!r} reached the upstream", said
            return wrong, said
        yield Case("h2 trailers", name, "RFC 9110 §6.5.1", b"", None, run=run)


def lengths():
    reference = "H2.CL; RFC 9113 §8.1.1"
    for name, value, body, mode in (("right", b"5", b"hello", "passes"), ("too small", b"2", b"hello", "cut"), ("too large", b"9", b"hello", "cut"),
                                    ("zero with a body", b"0", b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n", "cut"), ("plus", b"+5", b"hello", "refused"),
                                    ("minus", b"-5", b"hello", "refused"), ("list", b"5, 5", b"hello", "cut"), ("list that differs", b"5, 6", b"hello", "refused"),
                                    ("hexadecimal", b"0x5", b"hello", "refused"), ("empty", b"", b"hello", "refused"), ("huge", b"9" * 30, b"hello", "refused"),
                                    ("space", b"5 5", b"hello", "refused"), ("letters", b"five", b"hello", "refused")):
        if name == "list":
            mode = "safe"
        yield Case("h2 content-length", name, reference, b"", None, run=fields_case(plus((b"content-length", value), method=b"POST"), body, mode))
    yield Case("h2 content-length", "two that differ", reference, b"", None,
               run=fields_case(plus((b"content-length", b"5"), (b"content-length", b"6"), method=b"POST"), b"hello"))
    yield Case("h2 content-length", "without a body", reference, b"", None, run=fields_case(plus((b"content-length", b"5"), method=b"POST"), None, "cut"))
    yield Case("h2 content-length", "GET with a length and no body", reference, b"", None, run=fields_case(plus((b"content-length", b"5")), None, "cut"))
    yield Case("h2 content-length", "body without a length", "RFC 9113 §8.1", b"", None, run=fields_case(plus(method=b"POST"), b"hello", "passes"))
    yield Case("h2 content-length", "GET with a body", "RFC 9110 §9.3.1", b"", None, run=fields_case(plus(), b"GET /x HTTP/1.1\r\n\r\n", "safe"))


def raw_case(data, check="connection error", most=1):
    """Frames behind the preface; then either the connection is ended with an error, or it still serves."""
    def run(lane, case):
        connection = H2(lane)
        sent = data(connection, path(case)) if callable(data) else data
        connection.send(sent)
        if check == "connection error":
            connection.pump(2.5, lambda: connection.closed or connection.goaway not in (None, 0))
            wrong = None if connection.closed or connection.goaway not in (None, 0) else "no connection error"
        elif check == "stream error":
            connection.pump(2.5, lambda: connection.done(1) or connection.goaway is not None or connection.closed)
            wrong = None if connection.of(1).reset or connection.goaway or connection.closed or (connection.of(1).status or 0) // 100 == 4 else "no error"
        else:
            status = connection.ask(101, path(case) + b"/after")
            wrong = None if status == 200 else f"a good request behind it got {status}"
        wrong = wrong or upstream_wrong(lane, case, most)
        connection.close()
        return wrong, told(connection)
    return run


def protocol():
    ok = get(b"{H}", b"/x")
    good = lambda connection, target: connection.request(1, get(connection.host, target))  # noqa: E731
    cases = {
        "DATA on stream 0": (frame(DATA, 0, 0, b"x"), "connection error"),
        "HEADERS on stream 0": (lambda c, p: frame(HEADERS, 5, 0, block(get(c.host, p))), "connection error"),
        "even stream": (lambda c, p: frame(HEADERS, 5, 2, block(get(c.host, p))), "connection error"),
        "DATA on an idle stream": (frame(DATA, 0, 1, b"x"), "connection error"),
        "RST_STREAM on an idle stream": (frame(RST_STREAM, 0, 1, b"\0\0\0\0"), "connection error"),
        "WINDOW_UPDATE on an idle stream": (frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), "connection error"),
        "stream numbers that fall": (lambda c, p: c.request(5, get(c.host, p)) + c.request(3, get(c.host, p)), "connection error"),
        "CONTINUATION alone": (frame(CONTINUATION, 4, 1, b""), "connection error"),
        "a frame within a field block": (lambda c, p: frame(HEADERS, 1, 1, block(get(c.host, p))) + frame(PING, 0, 0, b"x" * 8), "connection error"),
        "CONTINUATION of another stream": (lambda c, p: frame(HEADERS, 1, 1, block(get(c.host, p))) + frame(CONTINUATION, 4, 3, b""), "connection error"),
        "PUSH_PROMISE": (frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2" + block(ok)), "connection error"),
        "PING of 7 bytes": (frame(PING, 0, 0, b"x" * 7), "connection error"),
        "PING on a stream": (frame(PING, 0, 1, b"x" * 8), "connection error"),
        "SETTINGS of 5 bytes": (frame(SETTINGS, 0, 0, b"x" * 5), "connection error"),
        "SETTINGS on a stream": (frame(SETTINGS, 0, 1, b""), "connection error"),
        "SETTINGS ACK with a payload": (frame(SETTINGS, ACK, 0, b"\0\1\0\0\0\0"), "connection error"),
        "window of 2^31": (frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31)), "connection error"),
        "frame size of 100": (frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 100)), "connection error"),
        "ENABLE_PUSH of 2": (frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 2)), "connection error"),
        "WINDOW_UPDATE of 0": (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), "connection error"),
        "window overflow": (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), "connection error"),
        "GOAWAY on a stream": (frame(GOAWAY, 0, 1, b"\0" * 8), "connection error"),
        "too large a frame": (struct.pack(">I", 20000)[1:] + bytes([DATA, 0]) + struct.pack(">I", 1) + b"x" * 20000, "connection error"),
        "padding longer than the frame": (lambda c, p: c.request(1, get(c.host, p, b"POST"), False) + frame(DATA, PADDED, 1, b"\xffx"), "connection error"),
        "HPACK index 0": (frame(HEADERS, 5, 1, b"\x80"), "connection error"),
        "HPACK index beyond the table": (frame(HEADERS, 5, 1, integer(200, 7, 0x80)), "connection error"),
        "HPACK integer without end": (frame(HEADERS, 5, 1, b"\xff" + b"\xff" * 20), "connection error"),
        "HPACK string beyond the block": (frame(HEADERS, 5, 1, b"\0\x7f\xffx"), "connection error"),
        "HPACK bad Huffman": (frame(HEADERS, 5, 1, b"\0\x84\xff\xff\xff\xff\x01x"), "connection error"),
        "HPACK table beyond the limit": (frame(HEADERS, 5, 1, integer(1 << 20, 5, 0x20)), "connection error"),
        "stream depends on itself": (lambda c, p: frame(HEADERS, 5 | PRIORITY_FLAG, 1, b"\0\0\0\1\x10" + block(get(c.host, p))), "any"),
        "DATA behind the end": (lambda c, p: good(c, p) + frame(DATA, 1, 1, b"GET /smuggled HTTP/1.1\r\n\r\n"), "stream error"),
        "HEADERS behind the end": (lambda c, p: good(c, p) + good(c, p), "stream error"),
        "unknown frame": (frame(0x42, 0, 0, b"x" * 100), "serves"),
        "unknown setting": (frame(SETTINGS, 0, 0, struct.pack(">HI", 0x4242, 1)), "serves"),
        "PRIORITY": (frame(PRIORITY, 0, 3, b"\0\0\0\0\x10"), "serves"),
        "PING": (frame(PING, 0, 0, b"12345678"), "serves"),
        "padded": (lambda c, p: frame(HEADERS, 5 | PADDED, 1, b"\x05" + block(get(c.host, p)) + b"\0" * 5), "serves"),
        "field block in pieces": (lambda c, p: in_pieces(block(get(c.host, p))), "serves"),
    }
    for name, (data, check) in cases.items():
        if check == "any":
            yield Case("h2 protocol", name, "RFC 9113 §5.3", b"", None, run=raw_case(data, "stream error", 1))
        else:
            yield Case("h2 protocol", name, "RFC 9113 §4–6; RFC 7541", b"", None, run=raw_case(data, check, 2))


def in_pieces(fields):
    half = len(fields) // 2
    return frame(HEADERS, END_STREAM, 1, fields[:half]) + frame(CONTINUATION, END_HEADERS, 1, fields[half:])


def cases():
    yield from downgrade()
    yield from pseudo()
    yield from lengths()
    yield from protocol()
