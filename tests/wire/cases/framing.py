"""Where one request ends and the next begins (RFC 9112 §6, §7; RFC 9110 §8.6), and every known way to blur it."""

from wire.judge import Case, body_is, both, passes, refused, safe, wrong_upstream

S = b"GET {P}/smuggled HTTP/1.1\r\nHost: {H}\r\n\r\n"
POST = b"POST {P} HTTP/1.1\r\nHost: {H}\r\n"


def closes(expectation):
    """And the connection ends: RFC 9112 §6.1 for a message with both framings."""
    def expect(seen):
        wrong = expectation(seen)
        return wrong or (None if seen.heard.closed else "the connection stays open")
    return expect


def cut():
    """A body that breaks off or is malformed: no upstream takes it for whole, nothing behind it is a request."""
    def expect(seen):
        wrong = wrong_upstream(seen, 1)
        if wrong:
            return wrong
        if any(request.complete for request in seen.requests):
            return f"the upstream got a whole request with body {seen.requests[0].body[:30]!r}"
        if any(not (400 <= status < 600) for status in seen.statuses):
            return f"answers {seen.statuses}"
        if not seen.heard.closed:
            return "the connection stays open"
        return None
    return expect


# name → (field lines, class): "bad" must be refused; "open" may be refused or read as chunked alone, then the connection
# ends; "plain" is chunked however it looks; "other" is another field, so that Content-Length counts.
TE = {
    "plain": (b"Transfer-Encoding: chunked", "plain"),
    "upper case": (b"TRANSFER-ENCODING: CHUNKED", "plain"),
    "no space": (b"Transfer-Encoding:chunked", "plain"),
    "tab before": (b"Transfer-Encoding:\tchunked", "plain"),
    "space behind": (b"Transfer-Encoding: chunked  ", "plain"),
    "tab behind": (b"Transfer-Encoding: chunked\t", "plain"),
    "space before the colon": (b"Transfer-Encoding : chunked", "bad"),
    "tab before the colon": (b"Transfer-Encoding\t: chunked", "bad"),
    "vertical tab before": (b"Transfer-Encoding:\x0bchunked", "bad"),
    "form feed before": (b"Transfer-Encoding:\x0cchunked", "bad"),
    "vertical tab behind": (b"Transfer-Encoding: chunked\x0b", "bad"),
    "NUL before": (b"Transfer-Encoding: \0chunked", "bad"),
    "NUL behind": (b"Transfer-Encoding: chunked\0", "bad"),
    "NUL within": (b"Transfer-Encoding: chun\0ked", "bad"),
    "control behind": (b"Transfer-Encoding: chunked\x01", "bad"),
    "DEL behind": (b"Transfer-Encoding: chunked\x7f", "bad"),
    "8-bit space before": (b"Transfer-Encoding: \xa0chunked", "bad"),
    "8-bit space behind": (b"Transfer-Encoding: chunked\x85", "bad"),
    "long s in UTF-8": (b"Tran\xc5\xbffer-Encoding: chunked", "strip"),
    "Kelvin sign in UTF-8": (b"Transfer-Encoding: chun\xe2\x84\xaaed", "bad"),
    "folded": (b"Transfer-Encoding:\r\n chunked", "open"),
    "folded with a tab": (b"Transfer-Encoding:\r\n\tchunked", "open"),
    "folded behind": (b"Transfer-Encoding: chunked\r\n , identity", "bad"),
    "folded under another": (b"X-A: b\r\n Transfer-Encoding: chunked", "folded"),
    "CR CR LF": (b"Transfer-Encoding: chunked\r", "bad"),
    "bare CR within": (b"Transfer-Encoding: chun\rked", "bad"),
    "bare CR before": (b"Transfer-Encoding:\rchunked", "bad"),
    "bare LF before": (b"Transfer-Encoding:\n chunked", "open"),
    "behind a bare CR": (b"X-A: b\rTransfer-Encoding: chunked", "bad"),
    "behind a bare LF": (b"X-A: b\nTransfer-Encoding: chunked", "open"),
    "chunked, identity": (b"Transfer-Encoding: chunked, identity", "bad"),
    "identity, chunked": (b"Transfer-Encoding: identity, chunked", "open"),
    "identity": (b"Transfer-Encoding: identity", "bad"),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked", "open"),
    "gzip": (b"Transfer-Encoding: gzip", "bad"),
    "chunked, chunked": (b"Transfer-Encoding: chunked, chunked", "bad"),
    "chunked and a comma": (b"Transfer-Encoding: chunked,", "open"),
    "comma and chunked": (b"Transfer-Encoding: ,chunked", "open"),
    "empty": (b"Transfer-Encoding:", "bad"),
    "xchunked": (b"Transfer-Encoding: xchunked", "bad"),
    "chunkedx": (b"Transfer-Encoding: chunkedx", "bad"),
    "x chunked": (b"Transfer-Encoding: x chunked", "bad"),
    "chunked x": (b"Transfer-Encoding: chunked x", "bad"),
    "chunked with a parameter": (b"Transfer-Encoding: chunked;q=1", "bad"),
    "quoted": (b'Transfer-Encoding: "chunked"', "bad"),
    "quoted once": (b"Transfer-Encoding: 'chunked'", "bad"),
    "escaped": (b"Transfer-Encoding: chun\\ked", "bad"),
    "semicolon": (b"Transfer-Encoding: ;chunked", "bad"),
    "bracketed": (b"Transfer-Encoding: <chunked>", "bad"),
    "two fields, chunked last": (b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "open"),
    "two fields, chunked first": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "bad"),
    "two fields, both chunked": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "bad"),
    "two fields, one obfuscated": (b"Transfer-Encoding: chunked\r\nTransfer-encoding: x", "bad"),
    "leading space": (b" Transfer-Encoding: chunked", "folded"),
    "NUL in the name": (b"Transfer-Encoding\0: chunked", "bad"),
    "8-bit in the name": (b"Transfer-Encoding\xff: chunked", "strip"),
    "two colons": (b"Transfer-Encoding:: chunked", "bad"),
    "no colon": (b"Transfer-Encoding chunked", "bad"),
    "equals": (b"Transfer-Encoding= chunked", "bad"),
    "another name": (b"X-Transfer-Encoding: chunked", "other"),
    "content coding": (b"Content-Encoding: chunked", "other"),
    "underscore": (b"Transfer_Encoding: chunked", "strip"),
}
LENGTHS = {
    "plain": (b"Content-Length: 5", "good"),
    "space around": (b"Content-Length:  \t5 ", "good"),
    "leading zero": (b"Content-Length: 005", "open"),
    "two equal": (b"Content-Length: 5\r\nContent-Length: 5", "open"),
    "list of equals": (b"Content-Length: 5, 5", "open"),
    "two that differ": (b"Content-Length: 5\r\nContent-Length: 6", "bad"),
    "two that differ, the other way": (b"Content-Length: 6\r\nContent-Length: 5", "bad"),
    "zero and five": (b"Content-Length: 0\r\nContent-Length: 5", "bad"),
    "list that differs": (b"Content-Length: 5,6", "bad"),
    "list with an empty one": (b"Content-Length: 5,", "bad"),
    "plus": (b"Content-Length: +5", "bad"),
    "minus": (b"Content-Length: -5", "bad"),
    "minus zero": (b"Content-Length: -0", "bad"),
    "hexadecimal": (b"Content-Length: 0x5", "bad"),
    "a letter": (b"Content-Length: 5a", "bad"),
    "space within": (b"Content-Length: 5 5", "bad"),
    "point": (b"Content-Length: 5.0", "bad"),
    "exponent": (b"Content-Length: 5e0", "bad"),
    "underscore": (b"Content-Length: 0_5", "bad"),
    "quoted": (b'Content-Length: "5"', "bad"),
    "semicolon": (b"Content-Length: 5;", "bad"),
    "empty": (b"Content-Length:", "bad"),
    "NUL": (b"Content-Length: 5\0", "bad"),
    "vertical tab": (b"Content-Length: \x0b5", "bad"),
    "other digits": (b"Content-Length: \xd9\xa5", "bad"),
    "2^64 + 5": (b"Content-Length: 18446744073709551621", "bad"),
    "2^63": (b"Content-Length: 9223372036854775808", "endless"),
    "40 digits": (b"Content-Length: " + b"9" * 40, "bad"),
    "space before the colon": (b"Content-Length : 5", "bad"),
    "tab before the colon": (b"Content-Length\t: 5", "bad"),
    "folded": (b"Content-Length:\r\n 5", "open"),
    "folded digits": (b"Content-Length: 5\r\n 5", "bad"),
    "bare CR": (b"Content-Length: 5\r5", "bad"),
    "NUL in the name": (b"Content-Length\0: 5", "bad"),
    "underscore in the name beside": (b"Content_Length: 0\r\nContent-Length: 5", "strip"),
}
# What follows the head of a chunked request → class; "good" carries "hello".
CHUNKS = {
    "one": (b"5\r\nhello\r\n0\r\n\r\n", "good"),
    "two": (b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "good"),
    "upper-case hexadecimal": (b"A\r\nhellohello\r\n0\r\n\r\n", "ten"),
    "leading zeros": (b"0005\r\nhello\r\n0\r\n\r\n", "open"),
    "long last chunk": (b"5\r\nhello\r\n000\r\n\r\n", "open"),
    "extension": (b"5;a=b\r\nhello\r\n0\r\n\r\n", "good"),
    "extension without value": (b"5;a\r\nhello\r\n0\r\n\r\n", "good"),
    "quoted extension": (b'5;a="b;c"\r\nhello\r\n0\r\n\r\n', "good"),
    "extension on the last": (b"5\r\nhello\r\n0;a=b\r\n\r\n", "good"),
    "quoted line end": (b'5;a="\r\nhello\r\n0\r\n\r\n', "open"),
    "space before an extension": (b"5 ;a=b\r\nhello\r\n0\r\n\r\n", "open"),
    "plus": (b"+5\r\nhello\r\n0\r\n\r\n", "bad"),
    "minus": (b"-5\r\nhello\r\n0\r\n\r\n", "bad"),
    "0x": (b"0x5\r\nhello\r\n0\r\n\r\n", "bad"),
    "x": (b"x5\r\nhello\r\n0\r\n\r\n", "bad"),
    "space before": (b" 5\r\nhello\r\n0\r\n\r\n", "bad"),
    "space behind": (b"5 \r\nhello\r\n0\r\n\r\n", "open"),
    "tab before": (b"\t5\r\nhello\r\n0\r\n\r\n", "bad"),
    "vertical tab": (b"5\x0b\r\nhello\r\n0\r\n\r\n", "bad"),
    "underscore": (b"0_5\r\nhello\r\n0\r\n\r\n", "bad"),
    "letters": (b"5g\r\nhello\r\n0\r\n\r\n", "bad"),
    "comma": (b"5,5\r\nhello\r\n0\r\n\r\n", "bad"),
    "NUL": (b"5\0\r\nhello\r\n0\r\n\r\n", "bad"),
    "8 bit": (b"5\xa0\r\nhello\r\n0\r\n\r\n", "bad"),
    "empty size": (b"\r\nhello\r\n0\r\n\r\n", "bad"),
    "extension without size": (b";a=b\r\nhello\r\n0\r\n\r\n", "bad"),
    "2^64 + 5": (b"10000000000000005\r\nhello\r\n0\r\n\r\n", "bad"),
    "2^32 + 5 cut to 32 bits": (b"100000005\r\nhello\r\n0\r\n\r\n", "bad"),
    "2^64 - 1": (b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "bad"),
    "200 digits": (b"1" * 200 + b"\r\nhello\r\n0\r\n\r\n", "bad"),
    "LF behind the size": (b"5\nhello\r\n0\r\n\r\n", "bad"),
    "LF behind the data": (b"5\r\nhello\n0\r\n\r\n", "bad"),
    "CR behind the size": (b"5\rhello\r\n0\r\n\r\n", "bad"),
    "CR behind the data": (b"5\r\nhello\r0\r\n\r\n", "bad"),
    "nothing behind the data": (b"5\r\nhello0\r\n\r\n", "bad"),
    "two bytes behind the data": (b"5\r\nhelloXX0\r\n\r\n", "bad"),
    "too much data": (b"5\r\nhelloo\r\n0\r\n\r\n", "bad"),
    "CR within the size": (b"5\r5\r\nhello\r\n0\r\n\r\n", "bad"),
    "LF within an extension": (b"5;a=\nb\r\nhello\r\n0\r\n\r\n", "bad"),
    "CR within an extension": (b"5;a=\rb\r\nhello\r\n0\r\n\r\n", "bad"),
    "NUL within an extension": (b"5;a=\0\r\nhello\r\n0\r\n\r\n", "bad"),
    "LF ends an extension": (b"5;a\nhello\r\n0\r\n\r\n", "bad"),
    "LF ends the last": (b"5\r\nhello\r\n0\n\r\n", "bad"),
    "LF ends all": (b"5\r\nhello\r\n0\r\n\n", "bad"),
    "CR CR LF": (b"5\r\r\nhello\r\n0\r\n\r\n", "bad"),
    "LF first": (b"\n5\r\nhello\r\n0\r\n\r\n", "bad"),
    "endless extension": (b"5;" + b"a" * 300_000 + b"\r\nhello\r\n0\r\n\r\n", "bad"),
    "extensions on many chunks": ((b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 300 + b"0\r\n\r\n", "any"),
    "endless zeros": (b"0" * 300_000 + b"5\r\nhello\r\n0\r\n\r\n", "open"),
    "trailer": (b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", "good"),
    "trailer without colon": (b"5\r\nhello\r\n0\r\nX-T\r\n\r\n", "bad"),
    "trailer with space before the colon": (b"5\r\nhello\r\n0\r\nX-T : 1\r\n\r\n", "bad"),
    "trailer with NUL": (b"5\r\nhello\r\n0\r\nX-T: \0\r\n\r\n", "bad"),
    "trailer ended by LF": (b"5\r\nhello\r\n0\r\nX-T: 1\n\r\n", "bad"),
    "trailer with a bare CR": (b"5\r\nhello\r\n0\r\nX-T: 1\rX-U: 2\r\n\r\n", "bad"),
    "folded trailer": (b"5\r\nhello\r\n0\r\nX-T: 1\r\n 2\r\n\r\n", "bad"),
    "a request as trailer": (b"5\r\nhello\r\n0\r\nGET {P}/smuggled HTTP/1.1\r\nHost: {H}\r\n\r\n", "bad"),
    "endless trailers": (b"5\r\nhello\r\n0\r\n" + b"X-T: 1\r\n" * 40_000 + b"\r\n", "bad"),
    "one endless trailer": (b"5\r\nhello\r\n0\r\nX-T: " + b"a" * 300_000 + b"\r\n\r\n", "bad"),
}
FORBIDDEN_TRAILERS = {
    "Content-Length": b"Content-Length: 50", "Transfer-Encoding": b"Transfer-Encoding: chunked", "Host": b"Host: evil.test",
    "X-Forwarded-For": b"X-Forwarded-For: 6.6.6.6", "X-Gitspace-User": b"X-Gitspace-User: root", "Forwarded": b"Forwarded: for=6.6.6.6",
    "Connection": b"Connection: close", "Authorization": b"Authorization: Basic eA==", "Cookie": b"Cookie: a=1",
}


def transfer_encodings():
    for name, (line, kind) in TE.items():
        reference = "TE.TE obfuscation; RFC 9112 §5, §6.1, §6.3"
        chunked = b"0\r\n\r\n" + S
        expect = {"bad": refused(), "other": safe(), "strip": safe(), "folded": safe()}.get(kind, closes(safe()))
        yield Case("CL.TE", name, reference, [POST + b"Content-Length: {LEN}\r\n" + line + b"\r\n\r\n", chunked], expect)
        if kind not in ("other", "strip", "folded"):
            size = b"{CHUNK}\r\n"
            yield Case("TE.CL", name, reference, [POST + b"Content-Length: 4\r\n" + line + b"\r\n\r\n", b"", size + S + b"\r\n0\r\n\r\n"],
                       refused() if kind == "bad" else closes(safe()))
        alone = {"bad": refused(), "plain": passes(check=body_is(b"ok"))}.get(kind)
        if alone:
            yield Case("TE alone", name, "RFC 9112 §6.1, §6.3", POST + line + b"\r\n\r\n2\r\nok\r\n0\r\n\r\n", alone)
    for name, line in (("chunked", b"Transfer-Encoding: chunked"), ("identity", b"Transfer-Encoding: identity")):
        head = b"POST {P} HTTP/1.0\r\nHost: {H}\r\nConnection: keep-alive\r\n" + line
        yield Case("TE in HTTP/1.0", name, "RFC 9112 §6.1", head + b"\r\n\r\n0\r\n\r\n" + S, closes(safe()))
        yield Case("TE in HTTP/1.0", f"{name} beside Content-Length", "RFC 9112 §6.1",
                   [head + b"\r\nContent-Length: {LEN}\r\n\r\n", b"0\r\n\r\n" + S], closes(safe()))
    for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "QUERY"):
        head = method.encode() + b" {P} HTTP/1.1\r\nHost: {H}\r\nTransfer-Encoding: chunked\r\n\r\n"
        yield Case("TE.0", f"chunked body on {method}", "TE.0; RFC 9112 §6.3", [head, b"{CHUNK}\r\n" + S + b"\r\n0\r\n\r\n"],
                   safe(), methods=(method,))
    for nominated in ("Transfer-Encoding", "transfer-encoding, close", "Transfer-Encoding, Content-Length"):
        yield Case("Connection nominates", nominated, "Connection: Transfer-Encoding; RFC 9110 §7.6.1",
                   POST + b"Connection: " + nominated.encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                   safe(check=body_is(b"ok")))
    for nominated in ("Content-Length", "close, Content-Length", "Host", "Host, Content-Length", "Expect", "Upgrade, Content-Length"):
        yield Case("Connection nominates", nominated, "RFC 9110 §7.6.1",
                   POST + b"Connection: " + nominated.encode() + b"\r\nContent-Length: 2\r\n\r\nok", safe(check=body_is(b"ok")))


def lengths():
    reference = "RFC 9110 §8.6; RFC 9112 §6.3"
    for name, (line, kind) in LENGTHS.items():
        expect = {"good": passes(check=body_is(b"hello")), "open": safe(check=body_is(b"hello")), "strip": safe(check=body_is(b"hello")),
                  "endless": cut()}.get(kind, refused())
        fin = ["fin"] if kind == "endless" else []
        yield Case("Content-Length", name, reference, [POST + line + b"\r\n\r\nhello", *fin], expect)
        if kind == "bad":
            yield Case("Content-Length", f"{name}, with a request behind", reference + "; CL.CL", POST + line + b"\r\n\r\nhello" + S, refused())
    for method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        head = method.encode() + b" {P} HTTP/1.1\r\nHost: {H}\r\nContent-Length: {LEN}\r\n\r\n"
        yield Case("CL.0", f"body on {method}", "CL.0; RFC 9110 §9.3.1", [head, S], safe(), methods=(method,))
    yield Case("Content-Length", "body cut by the client", reference, [POST + b"Content-Length: 50\r\n\r\nhalf", "fin"], cut())
    yield Case("Content-Length", "POST without any framing", "RFC 9112 §6.3 no. 7", POST + b"\r\n", passes(check=body_is(b"")))
    yield Case("Content-Length", "PUT without framing, bytes behind", "RFC 9112 §6.3 no. 7",
               b"PUT {P} HTTP/1.1\r\nHost: {H}\r\n\r\nhello\r\n\r\n", refused(before=1), want=2)


def chunks():
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    for name, (body, kind) in CHUNKS.items():
        expect = {"good": passes(check=body_is(b"hello")), "ten": passes(check=body_is(b"hello" * 2)), "any": safe(),
                  "open": either(cut(), passes(check=body_is(b"hello")))}.get(kind, cut())
        known = "funky chunks; " if kind in ("bad", "open") else ""
        yield Case("chunks", name, known + "RFC 9112 §7.1", head + body, expect, limit=4)
        if kind == "bad" and len(body) < 1000:
            yield Case("chunks", f"{name}, with a request behind", known + "RFC 9112 §7.1", head + body + S, cut())
    for name, body in (("no last chunk", b"5\r\nhello\r\n"), ("cut in a chunk", b"5\r\nhel"), ("cut in a size", b"5"),
                       ("cut in the trailers", b"5\r\nhello\r\n0\r\nX-T: 1\r\n"), ("cut before the last line end", b"5\r\nhello\r\n0\r\n")):
        yield Case("chunks", f"{name}, then closed", "RFC 9112 §8", [head + body, "fin"], cut())
    for name, line in FORBIDDEN_TRAILERS.items():
        yield Case("trailers", name, "RFC 9110 §6.5.1", POST + b"TE: trailers\r\nTrailer: " + name.encode() +
                   b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n", both(safe(), no_trailer(name)))


def either(*expectations):
    def expect(seen):
        wrong = [one(seen) for one in expectations]
        return None if None in wrong else wrong[-1]
    return expect


def no_trailer(name):
    def expect(seen):
        for request in seen.requests:
            if any(own.lower() == name.lower().encode() for own, _ in request.trailers):
                return f"the trailer {name} reached the upstream"
            if any(value in (b"evil.test", b"6.6.6.6", b"root", b"for=6.6.6.6", b"50", b"Basic eA==", b"a=1") for _, value in request.fields):
                return f"the trailer {name} became a field"
        return None
    return expect


def unread_bodies():
    """An answer before the body was read: what is left on the connection is no request (CL.0, 0.CL, TE.0 at our own early answers)."""
    private = b"POST {P} HTTP/1.1\r\nHost: {PRIVATE}\r\n"
    unknown = b"POST {P} HTTP/1.1\r\nHost: unknown.wire.test\r\n"
    bad_token = private + b"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.x\r\n"
    trace = b"TRACE {P} HTTP/1.1\r\nHost: {H}\r\n"
    starts = {"401": (private, ("gateway",)), "401 for a bad token": (bad_token, ("gateway",)), "unknown host": (unknown, ("gateway",)),
              "/_gitspace/ 404": (b"POST /_gitspace/nothing HTTP/1.1\r\nHost: {H}\r\n", ("gateway",)),
              "/_gitspace/ 405": (b"POST /_gitspace/whoami HTTP/1.1\r\nHost: {H}\r\n", ("gateway",)),
              "refused method": (trace, ("gateway", "nginx"))}
    length, chunked = b"Content-Length: {LEN}\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
    for name, (start, only) in starts.items():
        def case(how, send, expect, **more):
            return Case("unread bodies", f"{name}: {how}", "CL.0, 0.CL; RFC 9112 §9.3", send, expect, methods=("POST",), only=only, **more)
        yield case("body at once", [start + length, S], drained())
        yield case("body after the answer", [start + length, "answer", 0.2, S], drained())
        yield case("chunked body at once", [start + chunked, b"{CHUNK}\r\n" + S + b"\r\n0\r\n\r\n"], drained())
        yield case("body, then a request", [start + b"Content-Length: 5\r\n\r\nhello", b"", b"GET {P} HTTP/1.1\r\nHost: {H}\r\n\r\n"], then_maybe_one())
        yield case("large body", [start + b"Content-Length: 10000000\r\n\r\n", b"", (b"x" * 65536) * 20], drained(), limit=5)
        yield case("100-continue, no body, then a request", [start + b"Expect: 100-continue\r\n" + b"Content-Length: 60\r\n\r\n", "answer", 0.1, S + S],
                   drained())
        yield case("body that never comes", [start + b"Content-Length: 50\r\n\r\n"], drained(), limit=8)


def drained():
    def expect(seen):
        wrong = wrong_upstream(seen, 0)
        if wrong:
            return wrong
        if len(seen.statuses) != 1 and not seen.heard.closed:
            return f"answers {seen.statuses}"
        if any(not 400 <= status < 506 for status in seen.statuses):
            return f"answers {seen.statuses}"
        if not seen.statuses:
            return "closed without the answer"
        return None
    return expect


def then_maybe_one():
    """A good request behind a body that was drained: answered, or the connection was closed; never a fragment."""
    def expect(seen):
        for request in seen.requests:
            if request.problems or request.method != b"GET":
                return f"the upstream got {request.method!r} {request.problems}"
        if len(seen.requests) > 1 or len(seen.statuses) > 2:
            return f"answers {seen.statuses}"
        if not seen.statuses or not 400 <= seen.statuses[0] < 506:
            return f"answers {seen.statuses}"
        if len(seen.statuses) == 2 and seen.statuses[1] != 200:
            return f"the body was read as a request: {seen.statuses}"
        return None
    return expect


def cases():
    yield from transfer_encodings()
    yield from lengths()
    yield from chunks()
    yield from unread_bodies()
