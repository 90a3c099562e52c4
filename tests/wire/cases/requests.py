"""The head of a request: its line, its Host, its fields; several on one connection (RFC 9112 §2–3, §5, §9; RFC 9110 §7.2)."""

from wire.judge import SMUGGLED, Case, field_is, both, passes, refused, safe, wrong_upstream

H = b"Host: {H}\r\n"
END = b"\r\n\r\n"
GOOD = b"GET {P} HTTP/1.1\r\nHost: {H}\r\n\r\n"
S = b"GET {P}/smuggled HTTP/1.1\r\nHost: {H}\r\n\r\n"

# What is sent before the fields → class.
LINES = {
    "LF only": (b"GET {P} HTTP/1.1\n", "safe"),
    "two spaces before the target": (b"GET  {P} HTTP/1.1\r\n", "bad"),
    "two spaces before the version": (b"GET {P}  HTTP/1.1\r\n", "bad"),
    "tab before the target": (b"GET\t{P} HTTP/1.1\r\n", "bad"),
    "tab before the version": (b"GET {P}\tHTTP/1.1\r\n", "bad"),
    "space before the method": (b" GET {P} HTTP/1.1\r\n", "bad"),
    "space behind the version": (b"GET {P} HTTP/1.1 \r\n", "safe"),
    "words behind the version": (b"GET {P} HTTP/1.1 x\r\n", "bad"),
    "space within the target": (b"GET {P} x HTTP/1.1\r\n", "bad"),
    "vertical tab as space": (b"GET\x0b{P}\x0bHTTP/1.1\r\n", "bad"),
    "bare CR within": (b"GET {P}\rHTTP/1.1\r\n", "bad"),
    "CR CR LF": (b"GET {P} HTTP/1.1\r\r\n", "bad"),
    "lower-case version": (b"GET {P} http/1.1\r\n", "bad"),
    "HTTP/1.2": (b"GET {P} HTTP/1.2\r\n", "safe"),
    "HTTP/1.10": (b"GET {P} HTTP/1.10\r\n", "bad"),
    "HTTP/01.1": (b"GET {P} HTTP/01.1\r\n", "bad"),
    "HTTP/1.": (b"GET {P} HTTP/1.\r\n", "bad"),
    "HTTP/1": (b"GET {P} HTTP/1\r\n", "bad"),
    "HTTP/1,1": (b"GET {P} HTTP/1,1\r\n", "bad"),
    "HTTP/2.0": (b"GET {P} HTTP/2.0\r\n", "bad"),
    "HTTP/3.0": (b"GET {P} HTTP/3.0\r\n", "bad"),
    "HTTP/0.9 by name": (b"GET {P} HTTP/0.9\r\n", "bad"),
    "HTTPS/1.1": (b"GET {P} HTTPS/1.1\r\n", "bad"),
    "ICY/1.1": (b"GET {P} ICY/1.1\r\n", "bad"),
    "no version": (b"GET {P}\r\n", "bad"),
    "no target": (b"GET HTTP/1.1\r\n", "bad"),
    "method alone": (b"GET\r\n", "bad"),
    "empty target": (b"GET  HTTP/1.1\r\n", "bad"),
    "target without slash": (b"GET x{P} HTTP/1.1\r\n", "bad"),
    "asterisk with GET": (b"GET * HTTP/1.1\r\n", "bad"),
    "fragment": (b"GET {P}#x HTTP/1.1\r\n", "bad"),
    "fragment behind a query": (b"GET {P}?a#x HTTP/1.1\r\n", "bad"),
    "NUL in the target": (b"GET {P}\0 HTTP/1.1\r\n", "bad"),
    "control in the target": (b"GET {P}\x01 HTTP/1.1\r\n", "bad"),
    "DEL in the target": (b"GET {P}\x7f HTTP/1.1\r\n", "bad"),
    "8 bit in the target": (b"GET {P}\xff HTTP/1.1\r\n", "safe"),
    "UTF-8 in the target": ("GET {P}ä HTTP/1.1\r\n".encode(), "safe"),
    "quotes and brackets in the target": (b'GET {P}?"<>[]^`{|} HTTP/1.1\r\n', "safe"),
    "backslash in the target": (b"GET {P}\\..\\x HTTP/1.1\r\n", "safe"),
    "bad escape in the target": (b"GET {P}%zz HTTP/1.1\r\n", "safe"),
    "escaped NUL in the target": (b"GET {P}%00 HTTP/1.1\r\n", "safe"),
    "escaped CR LF in the target": (b"GET {P}%0d%0aX-Injected:%201 HTTP/1.1\r\n", "safe"),
    "authority form with GET": (b"GET {H}:80 HTTP/1.1\r\n", "refuse"),
    "CONNECT": (b"CONNECT {H}:80 HTTP/1.1\r\n", "refuse"),
    "CONNECT with a path": (b"CONNECT {P} HTTP/1.1\r\n", "refuse"),
    "TRACE": (b"TRACE {P} HTTP/1.1\r\n", "refuse"),
    "lower-case method": (b"get {P} HTTP/1.1\r\n", "safe"),
    "method with a colon": (b"GE:T {P} HTTP/1.1\r\n", "bad"),
    "method with a NUL": (b"G\0T {P} HTTP/1.1\r\n", "bad"),
    "method with 8 bit": (b"G\xc3\x84T {P} HTTP/1.1\r\n", "bad"),
    "method in quotes": (b'"GET" {P} HTTP/1.1\r\n', "bad"),
    "empty method": (b" {P} HTTP/1.1\r\n", "bad"),
    "long method": (b"A" * 100 + b" {P} HTTP/1.1\r\n", "safe"),
    "endless method": (b"A" * 100_000 + b" {P} HTTP/1.1\r\n", "bad"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad"),
    "one blank line before": (b"\r\nGET {P} HTTP/1.1\r\n", "safe"),
    "blank LF before": (b"\nGET {P} HTTP/1.1\r\n", "safe"),
    "many blank lines before": (b"\r\n" * 5000 + b"GET {P} HTTP/1.1\r\n", "safe"),
    "bare CR before": (b"\rGET {P} HTTP/1.1\r\n", "bad"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "bad"),
    "SMTP": (b"EHLO {H}\r\n", "bad"),
    "PROXY protocol of a stranger": (b"PROXY TCP4 6.6.6.6 7.7.7.7 1 2\r\nGET {P} HTTP/1.1\r\n", "bad"),
    "binary PROXY protocol of a stranger": (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\x06" * 12 + b"GET {P} HTTP/1.1\r\n", "bad"),
    "long target": (b"GET {P}?" + b"a" * 200_000 + b" HTTP/1.1\r\n", "bad"),
}
TARGETS = ["{P}//x", "{P}/./x", "{P}/../x", "{P}/%2e%2e/x", "{P}/%2F", "{P}?a=b&c", "{P}?", "{P}??", "{P};p=1", "{P}/a%20b", "{P}/~!$&'()*+,;=:@",
           "{P}/%c3%a4", "{P}?x=%00", "{P}?a=/../b", "{P}/" + "a" * 4000]
# Host fields → class; the request line is in origin form.
HOSTS = {
    "upper case": (b"Host: {HUP}\r\n", "ok"),
    "trailing dot": (b"Host: {H}.\r\n", "safe"),
    "port": (b"Host: {H}:8443\r\n", "ok"),
    "empty port": (b"Host: {H}:\r\n", "safe"),
    "none": (b"", "bad"),
    "two equal": (b"Host: {H}\r\nHost: {H}\r\n", "bad"),
    "two that differ": (b"Host: {H}\r\nHost: evil.test\r\n", "bad"),
    "two, the other way": (b"Host: evil.test\r\nHost: {H}\r\n", "bad"),
    "two by case": (b"Host: {H}\r\nhOST: evil.test\r\n", "bad"),
    "two, one folded": (b"Host: {H}\r\n Host: evil.test\r\n", "bad"),
    "two, one with a space before the colon": (b"Host: {H}\r\nHost : evil.test\r\n", "bad"),
    "empty": (b"Host:\r\n", "empty"),
    "list": (b"Host: {H}, evil.test\r\n", "bad"),
    "space": (b"Host: {H} evil.test\r\n", "bad"),
    "tab": (b"Host: {H}\tevil.test\r\n", "bad"),
    "user information": (b"Host: evil.test@{H}\r\n", "bad"),
    "user information behind": (b"Host: {H}@evil.test\r\n", "bad"),
    "path": (b"Host: {H}/evil\r\n", "bad"),
    "backslash": (b"Host: {H}\\evil\r\n", "bad"),
    "query": (b"Host: {H}?evil\r\n", "bad"),
    "fragment": (b"Host: {H}#evil\r\n", "bad"),
    "scheme": (b"Host: http://{H}\r\n", "bad"),
    "letters as port": (b"Host: {H}:x\r\n", "bad"),
    "port with a sign": (b"Host: {H}:+80\r\n", "bad"),
    "port too large": (b"Host: {H}:99999\r\n", "unknown"),
    "two ports": (b"Host: {H}:80:80\r\n", "bad"),
    "user as port": (b"Host: {H}:80@evil.test\r\n", "bad"),
    "NUL": (b"Host: {H}\0evil\r\n", "bad"),
    "8 bit": (b"Host: {H}\xff\r\n", "bad"),
    "UTF-8": ("Host: {H}ä\r\n".encode(), "bad"),
    "percent": (b"Host: %6c{H}\r\n", "unknown"),
    "quotes": (b'Host: "{H}"\r\n', "bad"),
    "two dots at the end": (b"Host: {H}..\r\n", "unknown"),
    "dot alone": (b"Host: .\r\n", "unknown"),
    "open bracket": (b"Host: [::1\r\n", "bad"),
    "bracketed name": (b"Host: [{H}]\r\n", "bad"),
    "bracket behind": (b"Host: {H}]\r\n", "bad"),
    "brackets within": (b"Host: {H}[::1]\r\n", "bad"),
    "IPv6 zone": (b"Host: [fe80::1%25eth0]\r\n", "bad"),
    "bare IPv6": (b"Host: ::1\r\n", "bad"),
    "long": (b"Host: " + b"a." * 2000 + b"{H}\r\n", "unknown"),
    "wildcard": (b"Host: *.wire.test\r\n", "unknown"),
    "comma behind": (b"Host: {H},\r\n", "unknown"),
    "semicolon": (b"Host: {H};\r\n", "unknown"),
}
# A field line beside good ones → class.
FIELDS = {
    "no colon": (b"X-A", "bad"),
    "empty name": (b": x", "bad"),
    "colon alone": (b":", "bad"),
    "space before the colon": (b"X-A : x", "bad"),
    "tab before the colon": (b"X-A\t: x", "bad"),
    "space within the name": (b"X A: x", "bad"),
    "NUL in the name": (b"X-\0A: x", "bad"),
    "control in the name": (b"X-\x01A: x", "bad"),
    "DEL in the name": (b"X-\x7fA: x", "bad"),
    "8 bit in the name": (b"X-\xe4: x", "safe"),
    "parentheses in the name": (b"X(A): x", "safe"),
    "comma in the name": (b"X,A: x", "safe"),
    "slash in the name": (b"X/A: x", "safe"),
    "at in the name": (b"X@A: x", "safe"),
    "quote in the name": (b'X"A: x', "safe"),
    "backslash in the name": (b"X\\A: x", "safe"),
    "bracket in the name": (b"X[A]: x", "safe"),
    "brace in the name": (b"X{A}: x", "safe"),
    "equals in the name": (b"X=A: x", "safe"),
    "pseudo-header": (b":authority: evil.test", "bad"),
    "NUL in the value": (b"X-A: a\0b", "bad"),
    "bare CR in the value": (b"X-A: a\rX-Injected: 1", "bad"),
    "bare CR at the end": (b"X-A: a\r", "bad"),
    "bare LF ends a line": (b"X-A: a\nX-B: b", "safe"),
    "folded": (b"X-A: a\r\n b", "safe"),
    "folded with a tab": (b"X-A: a\r\n\tb", "safe"),
    "folded field": (b"X-A: a\r\n X-Gitspace-User: root", "safe"),
    "control in the value": (b"X-A: a\x01b", "bad"),
    "DEL in the value": (b"X-A: a\x7fb", "bad"),
    "8 bit in the value": (b"X-A: \xe4\xff", "safe"),
    "tab in the value": (b"X-A: a\tb", "safe"),
    "empty value": (b"X-A:", "ok"),
    "spaces around the value": (b"X-A: \t a \t ", "ok"),
    "odd but legal name": (b"X-!#$%&'*+-.^_`|~: x", "safe"),
    "long value": (b"X-A: " + b"a" * 20_000, "safe"),
    "too long a value": (b"X-A: " + b"a" * 1_000_000, "large"),
    "too long a name": (b"X" * 1_000_000 + b": a", "large"),
    "100 fields": (b"\r\n".join(b"X-%d: x" % n for n in range(90)), "safe"),
    "1,000 fields": (b"\r\n".join(b"X-%d: x" % n for n in range(1000)), "safe"),
    "50,000 fields": (b"\r\n".join(b"X-%d: x" % n for n in range(50_000)), "large"),
    "50,000 equal fields": (b"\r\n".join(b"X-A: x" for n in range(50_000)), "large"),
    "50,000 empty lines of cookies": (b"\r\n".join(b"Cookie: a" for n in range(50_000)), "large"),
}


def lines():
    for name, (line, kind) in LINES.items():
        expect = {"bad": refused(), "refuse": refused(may_stay_open=True)}.get(kind, safe(check=one_line))
        yield Case("request line", name, "RFC 9112 §2.2, §3", line + H + b"\r\n", expect)
    yield Case("request line", "HTTP/0.9", "RFC 9112 appendix C.1", b"GET {P}\r\n", refused(), quiet=0.2)
    for target in TARGETS:
        yield Case("targets", target[:40], "RFC 9112 §3.2; passed byte for byte", b"GET " + target.encode() + b" HTTP/1.1\r\n" + H + b"\r\n",
                   passes(check=target_is(target)))
    for name, target, host, kind in (
            ("its own host", b"http://{H}{P}", b"{H}", "origin"), ("upper case", b"HTTP://{HUP}{P}", b"{H}", "safe"),
            ("https", b"https://{H}{P}", b"{H}", "safe"), ("another host than Host", b"http://evil.test{P}", b"{H}", "bad"),
            ("Host is another", b"http://{H}{P}", b"evil.test", "bad"), ("another port than Host", b"http://{H}:81{P}", b"{H}:82", "bad"),
            ("user information", b"http://u:p@{H}{P}", b"{H}", "bad"), ("another scheme", b"ftp://{H}{P}", b"{H}", "bad"),
            ("no slashes", b"http:{P}", b"{H}", "bad"), ("no host", b"http://{P}", b"{H}", "bad"),
            ("javascript", b"javascript:alert(1)", b"{H}", "bad"), ("file", b"file:///etc/passwd", b"{H}", "bad")):
        # RFC 9112 §3.2.2 lets a proxy ignore Host; what differs is refused here, or has one reading.
        expect = {"bad": safe(check=never_evil), "origin": passes(check=origin_form)}.get(kind, safe(check=origin_form))
        yield Case("absolute form", name, "RFC 9112 §3.2.2", b"GET " + target + b" HTTP/1.1\r\nHost: " + host + END, expect)
    yield Case("absolute form", "no Host at all", "RFC 9112 §3.2", b"GET http://{H}{P} HTTP/1.1\r\n\r\n", refused(may_stay_open=True))
    yield Case("request line", "asterisk with OPTIONS", "RFC 9112 §3.2.4", b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", safe(), methods=("OPTIONS",))
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "REPORT", "QUERY", "M-SEARCH", "PURGE", "X!#$%&'*+-.^_`|~9"):
        expect = safe() if method in ("M-SEARCH", "X!#$%&'*+-.^_`|~9") else passes()
        yield Case("methods", method, "RFC 9110 §9", method.encode() + b" {P} HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n", expect, methods=(method,))


def one_line(seen):
    for request in seen.requests:
        if any(name.lower() == b"x-injected" for name, _ in request.fields):
            return "a field was injected"
    return None


def target_is(target):
    def check(seen):
        expected = target.replace("{P}", f"/c{seen.case.number}").encode()
        got = seen.requests[0].target
        return None if got == expected else f"the upstream got the target {got[:60]!r}"
    return check


def origin_form(seen):
    """Origin form, or the absolute form of the very Host, which every server takes (RFC 9112 §3.2.2)."""
    request, path = seen.requests[0], b"/c%d" % seen.case.number
    whole = [scheme + request.all("host")[0].lower() + path for scheme in (b"http://", b"https://")]
    return None if request.target == path or request.target.lower() in whole else f"the upstream got the target {request.target[:60]!r}"


def never_evil(seen):
    for request in seen.requests:
        hosts = request.all("host")
        if hosts and b"evil" in hosts[0] or request.target[:1] != b"/":
            return f"went on with Host {hosts!r}, target {request.target[:40]!r}"
    return None


def hosts():
    for name, (line, kind) in HOSTS.items():
        expect = {"ok": passes(), "safe": safe(check=never_evil), "unknown": safe()}.get(kind, refused(may_stay_open=True))
        send = b"GET {P} HTTP/1.1\r\n" + line + b"X-A: 1\r\n\r\n"
        yield Case("Host", name, "RFC 9112 §3.2; RFC 9110 §7.2", send, expect)
    yield Case("Host", "none in HTTP/1.0", "RFC 9112 §3.2", b"GET {P} HTTP/1.0\r\n\r\n", safe())
    yield Case("Host", "HTTP/1.0 with Host", "RFC 9112 §9.3", b"GET {P} HTTP/1.0\r\n" + H + b"\r\n", passes())
    yield Case("Host", "behind the fields of a private host", "RFC 9110 §7.2", b"GET {P} HTTP/1.1\r\nHost: {PRIVATE}\r\nX-Host: {H}\r\n"
               b"X-Forwarded-Host: {H}\r\nX-Original-URL: /x\r\nForwarded: host={H}\r\n\r\n", refused(401, may_stay_open=True), only=("gateway",))


def fields():
    for name, (line, kind) in FIELDS.items():
        expect = {"bad": refused(), "large": refused(), "ok": passes()}.get(kind, safe(check=no_identity))
        yield Case("fields", name, "RFC 9112 §5; RFC 9110 §5", b"GET {P} HTTP/1.1\r\n" + H + line + END, expect, limit=4)
    first = b"GET {P} HTTP/1.1\r\n X-A: b\r\n" + H + b"\r\n"
    yield Case("fields", "space before the first", "RFC 9112 §2.2", first, safe(check=no_identity))
    yield Case("fields", "space before the first Host", "RFC 9112 §2.2", b"GET {P} HTTP/1.1\r\n " + H + b"\r\n", refused())
    yield Case("fields", "whole head with bare LF", "RFC 9112 §2.2", b"GET {P} HTTP/1.1\nHost: {H}\n\n", safe())
    yield Case("fields", "LF LF ends the head", "RFC 9112 §2.2", b"GET {P} HTTP/1.1\r\n" + H + b"X-A: 1\n\n" + S, refused_or_legal())
    yield Case("fields", "CR LF CR ends nothing", "RFC 9112 §2.2", b"GET {P} HTTP/1.1\r\n" + H + b"\r" + S, refused())
    yield Case("fields", "LF CR LF ends the head", "RFC 9112 §2.2", b"GET {P} HTTP/1.1\r\nHost: {H}\n\r\n", safe())
    yield Case("fields", "CR CR LF LF", "RFC 9112 §2.2", b"GET {P} HTTP/1.1\r\nHost: {H}\r\r\n\n", refused())


def refused_or_legal():
    """Two requests of which the first may end in LF LF: both answered, or the first refused and nothing read behind it."""
    def expect(seen):
        if any(request.problems for request in seen.requests):
            return seen.requests[0].problems[0]
        if any(SMUGGLED in request.target for request in seen.requests) and len(seen.requests) != 2:
            return "only the second was read"
        return None if seen.statuses or seen.heard.closed else "no answer"
    return expect


def no_identity(seen):
    for request in seen.requests:
        for name, value in request.fields:
            if name.lower() == b"x-gitspace-user" or b"root" in value and b"\r" in value:
                return f"{name!r} became a field"
            if any(byte < 32 and byte != 9 or byte == 127 for byte in value):
                return f"a control character went on in {name!r}"
    return None


def connections():
    post = b"POST {P} HTTP/1.1\r\nHost: {H}\r\nContent-Length: 5\r\n\r\nhello"
    yield Case("pipelining", "two requests", "RFC 9112 §9.3.2", GOOD + GOOD, passes(2), want=2)
    yield Case("pipelining", "ten requests", "RFC 9112 §9.3.2", GOOD * 10, passes(10), want=10)
    yield Case("pipelining", "POST, then GET", "RFC 9112 §9.3.2", post + GOOD, passes(2), want=2)
    yield Case("pipelining", "blank line between", "RFC 9112 §2.2", GOOD + b"\r\n" + GOOD, passes(2), want=2)
    yield Case("pipelining", "one after the other", "RFC 9112 §9.3", [GOOD, "answer", GOOD, "answer", post], passes(3), want=3)
    for name, bad in (("no colon", b"GET {P}/smuggled HTTP/1.1\r\nHost: {H}\r\nX\r\n\r\n"), ("two Hosts", b"GET {P}/smuggled HTTP/1.1\r\nHost: {H}\r\nHost: x\r\n\r\n"),
                      ("both framings", b"POST {P}/smuggled HTTP/1.1\r\nHost: {H}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
                      ("two lengths", b"POST {P}/smuggled HTTP/1.1\r\nHost: {H}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
                      ("garbage", b"\x00\x01\x02\x03\r\n\r\n"), ("space before the colon", b"GET {P}/smuggled HTTP/1.1\r\nHost : {H}\r\n\r\n")):
        # Two Hosts are framed well: only that request is wrong.
        framed = name == "two Hosts"
        expect = refused(before=1, may_stay_open=framed)
        yield Case("pipelining", f"a good one, then {name}", "RFC 9112 §9.3.2: the first is answered", GOOD + bad, expect, want=2)
        yield Case("pipelining", f"a POST, then {name}", "RFC 9112 §9.3.2: the first is answered", post + bad, expect, want=2)
        if not framed:
            yield Case("pipelining", f"a good one, then {name}, then a good one", "RFC 9112 §9.3.2", GOOD + bad + GOOD, expect, want=2)
    close = b"GET {P} HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n\r\n"
    yield Case("pipelining", "a request behind Connection: close", "RFC 9112 §9.6", close + S, closed_after_one(), want=1)
    yield Case("pipelining", "a request behind HTTP/1.0", "RFC 9112 §9.3", b"GET {P} HTTP/1.0\r\nHost: {H}\r\n\r\n" + S, closed_after_one())
    yield Case("pipelining", "half-closed behind the request", "RFC 9112 §9.6", [GOOD, "fin"], safe())
    yield Case("pipelining", "a head in small pieces", "RFC 9112 §2.1", [b"GET {P} HT", 0.02, b"TP/1.1\r", 0.02, b"\n", 0.02, b"Ho", 0.02,
               b"st: {H}\r", 0.02, b"\n\r", 0.02, b"\n"], passes())
    yield Case("expect", "100-continue, body after it", "RFC 9110 §10.1.1", [b"POST {P} HTTP/1.1\r\nHost: {H}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
               "answer", b"hello"], both(passes(), interim_first()))
    yield Case("expect", "100-continue, body at once", "RFC 9110 §10.1.1", b"POST {P} HTTP/1.1\r\nHost: {H}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", passes())
    yield Case("expect", "100-continue without a body", "RFC 9110 §10.1.1", b"GET {P} HTTP/1.1\r\nHost: {H}\r\nExpect: 100-continue\r\n\r\n", safe())
    yield Case("expect", "100-continue in HTTP/1.0", "RFC 9110 §10.1.1", b"POST {P} HTTP/1.0\r\nHost: {H}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", both(safe(), no_interim))
    yield Case("expect", "unknown expectation", "RFC 9110 §10.1.1", b"POST {P} HTTP/1.1\r\nHost: {H}\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\nhello", safe())
    yield Case("expect", "obfuscated", "0.CL by Expect", b"POST {P} HTTP/1.1\r\nHost: {H}\r\nExpect: y 100-continue\r\nContent-Length: 5\r\n\r\nhello", safe())
    yield Case("expect", "no 100 before 401", "RFC 9110 §10.1.1; design §3.8", b"POST {P} HTTP/1.1\r\nHost: {PRIVATE}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
               both(refused(401, may_stay_open=True), no_interim), only=("gateway",))


def interim_first():
    def expect(seen):
        return None if [answer.status for answer in seen.heard.interim] == [100] else "no 100 Continue"
    return expect


def no_interim(seen):
    return "a 100 came" if seen.heard.interim else None


def closed_after_one():
    def expect(seen):
        wrong = wrong_upstream(seen, 1)
        return wrong or (None if seen.heard.closed and seen.statuses == [200] else f"answers {seen.statuses}, closed: {seen.heard.closed}")
    return expect


def cases():
    yield from lines()
    yield from hosts()
    yield from fields()
    yield from connections()
