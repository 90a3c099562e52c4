"""Slow peers and broken upstreams: an end in time, and never another's bytes (design §3.8; RFC 9112 §6.3, §8, §9.4)."""

import socket
import threading
import time

from wire import client
from wire.judge import Case
from wire.products import DEADLINES


def get(lane, case, script, method=b"GET"):
    return b"%s /c%d/f/%s HTTP/1.1\r\nHost: %s\r\n\r\n" % (method, case.number, script.encode(), lane.host.encode())


def ask(lane, data, methods=("GET",), limit=8.0, **more):
    return client.exchange(client.connect(lane.plain), data, methods, limit, **more)


def broken(script, *statuses, method=b"GET", limit=7.0):
    """The fault ends in one of the statuses or a visible cut; the next request gets its own answer on whatever connection."""
    def run(lane, case):
        heard = ask(lane, get(lane, case, script, method), (method.decode(),), limit)
        answers = heard.answers
        wrong = None
        if len(answers) > 1:
            wrong = f"{len(answers)} answers"
        elif heard.problems:
            wrong = f"malformed answer: {heard.problems[0]}"
        elif not answers and not heard.closed:
            wrong = f"nothing after {heard.seconds:.1f} s"
        elif answers and answers[0].status not in (502, 504):
            if answers[0].complete and answers[0].status not in statuses:
                wrong = f"a whole answer {answers[0].status} of {answers[0].body[:40]!r}"
            elif not answers[0].complete and not heard.closed:
                wrong = f"the answer is neither whole nor cut after {heard.seconds:.1f} s"
        if b"X-Stray" in heard.raw or b"x-stray" in heard.raw:
            wrong = "what no framing of ours covers reached the client"
        # Whoever comes next on the pooled connection.
        for _ in range(3):
            after = ask(lane, b"GET /c%d/next HTTP/1.1\r\nHost: %s\r\n\r\n" % (case.number, lane.host.encode()), limit=4)
            good = after.answers and after.answers[0].status == 200 and after.answers[0].body.startswith(b"ok /c%d/next" % case.number)
            if not good:
                got = (after.answers[0].status, after.answers[0].body[:40]) if after.answers else "nothing"
                wrong = wrong or f"the next request got {got}"
        return wrong, f"answers {[a.status for a in answers]}, {'closed' if heard.closed else 'open'} after {heard.seconds:.1f} s"
    return run


def right(script, check, method=b"GET"):
    def run(lane, case):
        heard = ask(lane, get(lane, case, script, method) , (method.decode(),))
        wrong = f"answers {[a.status for a in heard.answers]}" if len(heard.answers) != 1 else check(heard)
        return wrong, f"answers {[a.status for a in heard.answers]}"
    return run


def body(status, expected):
    def check(heard):
        answer = heard.answers[0]
        if (answer.status, answer.body) != (status, expected) or not answer.complete:
            return f"{answer.status} {answer.body[:40]!r}, whole: {answer.complete}"
        return "malformed: " + heard.problems[0] if heard.problems else None
    return check


# script → what stands for it, statuses besides 502 and 504 that are right
FAULTS = {
    "close": "RFC 9112 §9.4", "reset": "RFC 9112 §9.4", "silent": "deadline of the answer's head", "reset-in-head": "", "close-in-head": "", "silent-in-head": "deadline",
    "reset-in-body": "RFC 9112 §8", "close-in-body": "RFC 9112 §8", "close-in-chunk": "RFC 9112 §8", "close-before-last-chunk": "RFC 9112 §8",
    "close-in-last-chunk": "RFC 9112 §8", "silent-in-body": "progress deadline", "cl-te": "two framings", "te-cl": "two framings", "two-cl": "RFC 9112 §6.3 no. 5",
    "cl-list": "RFC 9112 §6.3 no. 5", "cl-plus": "RFC 9110 §8.6", "cl-negative": "RFC 9110 §8.6", "cl-huge": "RFC 9110 §8.6", "cl-hex": "RFC 9110 §8.6", "cl-space": "RFC 9110 §8.6",
    "te-unknown": "RFC 9112 §6.1", "te-twice": "RFC 9112 §6.1", "te-gzip": "RFC 9112 §6.3 no. 4", "te-space": "RFC 9112 §5.1", "chunk-plus": "RFC 9112 §7.1", "chunk-hex": "RFC 9112 §7.1",
    "chunk-negative": "RFC 9112 §7.1", "chunk-overflow": "RFC 9112 §7.1", "chunk-no-end": "RFC 9112 §7.1", "chunk-lf": "RFC 9112 §7.1", "chunk-endless-ext": "RFC 9112 §7.1.1",
    "endless-trailers": "bounded", "garbage": "", "garbage-binary": "", "http09": "", "status-2": "RFC 9112 §4", "status-4": "RFC 9112 §4", "status-text": "RFC 9112 §4",
    "status-000": "RFC 9110 §15", "version-2": "RFC 9112 §2.3", "endless-head": "bounded", "endless-field": "bounded", "endless-1xx": "bounded", "many-fields": "bounded",
    "drip-head": "slow upstream",
}
LENIENT = {
    # Two framings: RFC 9112 §6.3 lets Transfer-Encoding win, and the connection must not be used again.
    "cl-te": (200,), "te-cl": (200,), "te-space": (200,), "cl-space": (), "many-fields": (200,), "drip-head": (200,), "te-gzip": (), "chunk-lf": (), "version-2": (),
}
STRAY = {
    "long": (200,), "long-chunked": (200,), "long-later": (200,), "long-204": (204,), "long-304": (304,),
}


def upstreams():
    for script, reference in FAULTS.items():
        yield Case("upstream faults", script, reference or "RFC 9110 §15.6.3", b"", None, run=broken(script, *LENIENT.get(script, ())), limit=8)
    for script, statuses in STRAY.items():
        yield Case("stray bytes", script, "response smuggling; RFC 9112 §9.3", b"", None, run=broken(script, *statuses), limit=8)
    yield Case("stray bytes", "a body on HEAD", "response smuggling; RFC 9110 §9.3.2", b"", None, run=broken("body-on-head", 200, method=b"HEAD"), limit=8)
    for method in (b"POST", b"PUT", b"DELETE"):
        yield Case("upstream faults", f"close on {method.decode()}", "never sent twice; RFC 9110 §9.2.2", b"", None, run=once(method), limit=8)
    for name, host, statuses in (("refused", b"dead.wire.test", (502, 503)), ("no answer to connect", b"hang.wire.test", (502, 503, 504))):
        yield Case("upstream faults", name, "502 or 504, in time", b"", None, run=unreachable(host, statuses), limit=8)
    ok = b"ok"
    for script, check, method in (
            ("100-then-200", body(200, ok), b"GET"), ("102-103", body(200, ok), b"GET"), ("204", body(204, b""), b"GET"), ("304", body(304, b""), b"GET"),
            ("206", body(206, ok), b"GET"), ("chunked", body(200, ok), b"GET"), ("chunked-ext", body(200, ok), b"GET"), ("until-close", body(200, b"until close"), b"GET"),
            ("http10", body(200, b"old"), b"GET"), ("chunked", body(200, b""), b"HEAD"), ("304", body(304, b""), b"HEAD"), ("206", body(206, b""), b"HEAD")):
        yield Case("upstream answers", f"{script} to {method.decode()}", "RFC 9110 §15, RFC 9112 §6.3", b"", None, run=right(script, check, method))
    yield Case("early answers", "413 during an upload", "RFC 9110 §15.5.14", b"", None, run=early("early-413", 413))
    yield Case("early answers", "200 during an upload", "RFC 9112 §9.5", b"", None, run=early("early-200", 200))
    yield Case("early answers", "reset during an upload", "RFC 9112 §9.5", b"", None, run=early("early-reset", 502))


def once(method):
    def run(lane, case):
        data = b"%s /c%d/f/close HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\n\r\nok" % (method, case.number, lane.host.encode())
        # A connection that was used before is the one on which others retry.
        ask(lane, b"GET /c%d/warm HTTP/1.1\r\nHost: %s\r\n\r\n" % (case.number, lane.host.encode()))
        heard = ask(lane, data, (method.decode(),))
        count = sum(request.method == method for request in lane.upstream.seen())
        wrong = None if count == 1 or method != b"POST" and count == 2 else f"sent {count} times"
        if not heard.answers or heard.answers[0].status not in (502, 503, 504):
            wrong = wrong or f"answers {[a.status for a in heard.answers]}"
        return wrong, f"{count} requests"
    return run


def unreachable(host, statuses):
    def run(lane, case):
        heard = ask(lane, b"GET /c%d HTTP/1.1\r\nHost: %s\r\n\r\n" % (case.number, host))
        got = [answer.status for answer in heard.answers]
        wrong = None if len(got) == 1 and got[0] in statuses and heard.seconds < 6 else f"answers {got} after {heard.seconds:.1f} s"
        return wrong, f"{got} after {heard.seconds:.1f} s"
    return run


def early(script, status):
    def run(lane, case):
        head = b"POST /c%d/f/%s HTTP/1.1\r\nHost: %s\r\nContent-Length: 3000000\r\n\r\n" % (case.number, script.encode(), lane.host.encode())
        heard = ask(lane, [head + b"x" * 1000, 0.3, b"x" * 500_000], ("POST",))
        got = [answer.status for answer in heard.answers]
        cut = status == 502 and not got and heard.closed
        wrong = None if got == [status] or cut else f"answers {got}"
        return wrong, f"{got}, {'closed' if heard.closed else 'open'} after {heard.seconds:.1f} s"
    return run


def slow_case(pieces, pause, limit, tls=False, expect_408=False):
    """Sends pieces with pauses for ever; the connection must end within the limit, and others are served meanwhile."""
    def run(lane, case):
        made = client.context(["http/1.1"]) if tls == "after" else None
        sock = client.connect(lane.tls if tls else lane.plain, made, lane.host if made else None)
        stop = threading.Event()
        filled = [piece.replace(b"{H}", lane.host.encode()).replace(b"{P}", b"/c%d" % case.number) for piece in pieces]

        def drip():
            try:
                sock.sendall(filled[0])
                while len(filled) > 1 and not stop.wait(pause):
                    sock.sendall(filled[1])
            except OSError:
                pass
        start = time.monotonic()
        feeder = threading.Thread(target=drip, daemon=True)
        feeder.start()
        sock.settimeout(limit + 2)
        got, ended = b"", False
        try:
            while True:
                data = sock.recv(4096)
                if not data:
                    ended = True
                    break
                got += data
        except (TimeoutError, socket.timeout):
            pass
        except OSError:
            ended = True
        took = time.monotonic() - start
        stop.set()
        sock.close()
        whole = [request for request in lane.upstream.seen() if request.complete]
        said = f"{'closed' if ended else 'open'} after {took:.1f} s, {got[:40]!r}"
        if not ended or took > limit:
            return f"still open after {took:.1f} s", said
        if whole:
            return "the upstream got a whole request", said
        return None, said
    return run


def slow():
    head, patience = DEADLINES["head"], 3
    start = b"GET {P} HTTP/1.1\r\nHost: {H}\r\n"
    cases = {
        "silence from the start": ([b""], 1, head + patience, False), "half a request line": ([b"GET /"], 1, head + patience, False),
        "half a head": ([start], 1, head + patience, False), "a head dripped by bytes": ([start, b"x"], 0.2, head + patience, False),
        "a head dripped by fields": ([start, b"X-A: 1\r\n"], 0.2, head + patience, False), "blank lines for ever": ([b"", b"\r\n"], 0.2, head + patience, False),
        "silence at the TLS port": ([b""], 1, head + patience, True), "half a ClientHello": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 1, head + patience, True),
        "a ClientHello dripped": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"x"], 0.2, head + patience, True),
        "silence behind the handshake": ([b""], 1, head + patience, "after"), "half a head over TLS": ([start], 1, head + patience, "after"),
    }
    for name, (pieces, pause, limit, tls) in cases.items():
        yield Case("slow clients", name, "slowloris; RFC 9110 §15.5.9", b"", None, run=slow_case(pieces, pause, limit, tls), limit=limit)
    bodies = {
        "a body that stops": ([b"POST {P} HTTP/1.1\r\nHost: {H}\r\nContent-Length: 100\r\n\r\nhalf"], 1),
        "a chunked body that stops": ([b"POST {P} HTTP/1.1\r\nHost: {H}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"], 1),
        "a body that never begins": ([b"POST {P} HTTP/1.1\r\nHost: {H}\r\nContent-Length: 100\r\n\r\n"], 1),
    }
    for name, (pieces, pause) in bodies.items():
        yield Case("slow clients", name, "R-U-Dead-Yet", b"", None, run=slow_case(pieces, pause, DEADLINES["body"] + 2 * patience), limit=9)
    yield Case("slow clients", "an idle connection behind a request", "RFC 9112 §9.8", b"", None, run=idle, limit=9)
    yield Case("slow clients", "500 at once, a victim asks", "slowloris", b"", None, run=crowd, limit=9, alone=True)


def idle(lane, case):
    sock = client.connect(lane.plain)
    sock.sendall(b"GET /c%d HTTP/1.1\r\nHost: %s\r\n\r\n" % (case.number, lane.host.encode()))
    sock.settimeout(DEADLINES["keep_alive"] + 4)
    start = time.monotonic()
    try:
        while sock.recv(4096):
            pass
    except (TimeoutError, socket.timeout):
        return "still open", ""
    except OSError:
        pass
    took = time.monotonic() - start
    return None, f"closed after {took:.1f} s"


def crowd(lane, case):
    socks = []
    for number in range(500):
        sock = client.connect(lane.plain)
        sock.sendall(b"GET /c%d HTTP/1.1\r\nHost: %s\r\nX-A: " % (case.number, lane.host.encode())[: 20 + number % 30])
        socks.append(sock)
    start = time.monotonic()
    heard = ask(lane, b"GET /c%d/victim HTTP/1.1\r\nHost: %s\r\n\r\n" % (case.number, lane.host.encode()), quiet=0.05)
    took = time.monotonic() - start
    for sock in socks:
        sock.close()
    got = [answer.status for answer in heard.answers]
    return (None if got == [200] and took < 1 else f"the victim got {got} after {took:.2f} s"), f"{got} after {took:.2f} s"


def cases():
    yield from upstreams()
    yield from slow()
