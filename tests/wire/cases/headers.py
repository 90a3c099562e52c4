"""What goes on and what does not: hop-by-hop and nominated fields, forged identity, cookies, hostile answers (RFC 9110 §7.6, RFC 7239)."""

from wire.judge import Case, both, field_is, no_field, passes, refused, safe, wrong_upstream

HEAD = b"GET {P} HTTP/1.1\r\nHost: {H}\r\n"
CLAIMS = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded",
          "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token", "Forwarded", "Forwarded-For",
          "X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "X-Original-Forwarded-For", "True-Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6", "Client-IP",
          "Fastly-Client-IP", "X-Original-URL", "X-Rewrite-URL", "X-Original-Host", "X-Host", "X-Gitspace-User", "X-Gitspace-Id", "X-Gitspace-Assertion",
          "X-Gitspace-Token", "X-Gitspace-Anything", "X-Request-Id", "X-ProxyUser-Ip", "X-Appengine-User-Ip", "X-Envoy-External-Address", "Remote-User",
          "X-Remote-User", "X-Auth-Request-User", "X-SSL-Client-Cert", "X-Client-Cert"]
# These nobody's design names; they are told, and count for no one.
SOFT = {"X-ProxyUser-Ip", "X-Appengine-User-Ip", "X-Envoy-External-Address", "Remote-User", "X-Remote-User", "X-Auth-Request-User", "X-SSL-Client-Cert",
        "X-Client-Cert", "CF-Connecting-IPv6"}
EVIL = "6.6.6.6"


def unclaimed(seen):
    for request in seen.requests:
        for name, value in request.fields:
            if EVIL.encode() in value:
                return f"{name.decode()}: {value.decode('latin1')} reached the upstream"
    return None


def claims():
    reference = "forged identity; design §4, RFC 7239 §8.1"
    for name in CLAIMS:
        if name in SOFT:
            continue
        spellings = {name, name.upper(), name.replace("-", "_"), name.replace("-", "_", 1)}
        for spelling in sorted(spellings):
            yield Case("claims", spelling, reference, HEAD + f"{spelling}: {EVIL}\r\n\r\n".encode(), passes(check=unclaimed))
        yield Case("claims", f"{name}, twice", reference, HEAD + f"{name}: {EVIL}\r\n{name}: {EVIL}, 1.2.3.4\r\n\r\n".encode(), passes(check=unclaimed))
        yield Case("claims", f"{name}, nominated", reference, HEAD + f"Connection: {name}\r\n{name}: {EVIL}\r\n\r\n".encode(), passes(check=unclaimed))
    for name in ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"):
        yield Case("our fields", f"{name} is set once", "design §4", HEAD + f"{name}: {EVIL}\r\n\r\n".encode(), passes(check=once(name)))
        yield Case("our fields", f"{name} though nominated", "RFC 9110 §7.6.1", HEAD + f"Connection: close, {name}\r\n\r\n".encode(), passes(check=once(name)))
    for name in ("Forwarded", "X-Request-Id", "X-Gitspace-Id", "Via", "X-Forwarded-Port"):
        yield Case("our fields", f"{name} is set once", "design §4", HEAD + b"\r\n", passes(check=once(name)), only=("gateway",))
        yield Case("our fields", f"{name} though nominated", "RFC 9110 §7.6.1", HEAD + f"Connection: close, {name}\r\n\r\n".encode(),
                   passes(check=once(name)), only=("gateway",))


def once(name):
    def check(seen):
        got = seen.requests[0].all(name)
        return None if len(got) == 1 and EVIL.encode() not in got[0] else f"{name} reached the upstream as {got!r}"
    return check


def hop_by_hop():
    reference = "RFC 9110 §7.6.1"
    for name, value in (("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"), ("Proxy-Authorization", "Basic eA=="), ("TE", "gzip"),
                        ("Upgrade", "h2c"), ("Proxy-Authenticate", "Basic"), ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")):
        nominate = "Connection: HTTP2-Settings\r\n" if name == "HTTP2-Settings" else ""
        yield Case("hop by hop", name, reference, HEAD + f"{nominate}{name}: {value}\r\n\r\n".encode(), passes(check=no_field(name)))
    for options, field in (("X-Private", "X-Private"), ("close, X-Private", "X-Private"), ("x-private", "X-Private"), (" X-Private ", "X-Private"),
                           (",,X-Private,,", "X-Private"), ("keep-alive,\tX-Private", "X-Private")):
        yield Case("hop by hop", f"Connection: {options!r}", reference, HEAD + f"Connection: {options}\r\n{field}: 1\r\n\r\n".encode(), passes(check=no_field(field)))
    yield Case("hop by hop", "two Connection fields", reference, HEAD + b"Connection: close\r\nConnection: X-Private\r\nX-Private: 1\r\n\r\n", passes(check=no_field("X-Private")))
    for name, value in (("Cookie", "a=1"), ("Authorization", "Basic eA=="), ("Origin", "https://a.test"), ("Content-Type", "text/plain"), ("Host", None)):
        line = f"{name}: {value}\r\n" if value else ""
        yield Case("hop by hop", f"Connection cannot nominate {name}", "abuse of RFC 9110 §7.6.1", HEAD + f"Connection: {name}\r\n{line}\r\n".encode(),
                   safe(check=field_is(name, value) if value else None))
    many = ", ".join(f"X-{n}" for n in range(5000))
    yield Case("hop by hop", "5,000 nominations", reference, HEAD + f"Connection: {many}\r\n\r\n".encode(), safe(), limit=4)
    yield Case("hop by hop", "TE: trailers", reference, HEAD + b"Connection: TE\r\nTE: trailers\r\n\r\n", passes())
    yield Case("hop by hop", "our own Via", "RFC 9110 §7.6.3; loops", HEAD + b"Via: 1.1 cde-gateway\r\n\r\n", loop(), only=("gateway",))


def loop():
    def expect(seen):
        return None if seen.statuses == [508] and not seen.requests else f"answers {seen.statuses}"
    return expect


def upgrades():
    upgrade = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    for name in (b"h2c", b"H2C", b"h2c, websocket", b"websocket, h2c", b"HTTP/2.0", b"TLS/1.0", b"foo/1, h2c"):
        yield Case("upgrades", name.decode(), "h2c smuggling; RFC 9113 §3.1", upgrade % name, both(safe(), no_h2c))
    for name, fields in (("h2c without Connection", b"Upgrade: h2c\r\n"), ("h2c, Connection elsewhere", b"Upgrade: h2c\r\nConnection: close\r\n"),
                         ("h2c in two fields", b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n")):
        yield Case("upgrades", name, "h2c smuggling", HEAD + fields + b"\r\n", both(safe(), no_h2c))
    answered = b"GET {P}/f/101-unasked HTTP/1.1\r\nHost: {H}\r\n"
    stray = b"GET {P}/smuggled HTTP/1.1\r\nHost: {H}\r\n\r\n"
    yield Case("upgrades", "101 though nobody asked", "RFC 9110 §15.2.2", answered + b"\r\n" + stray, no_tunnel)
    yield Case("upgrades", "101 to h2c", "h2c smuggling", answered + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + stray, no_tunnel)
    yield Case("upgrades", "websocket without key, 101 to another protocol", "RFC 6455 §4", answered + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + stray, no_tunnel)
    yield Case("upgrades", "websocket with a body", "RFC 6455 §4", HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", safe())
    yield Case("upgrades", "websocket refused by the app, then a request", "websocket smuggling", HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
               b"Sec-WebSocket-Version: 777\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", safe())


def no_h2c(seen):
    for request in seen.requests:
        if any(b"h2c" in value.lower() or b"http/2" in value.lower() for value in request.all("upgrade")):
            return f"Upgrade: {request.all('upgrade')!r} reached the upstream"
        if request.all("http2-settings"):
            return "HTTP2-Settings reached the upstream"
    return None


def no_tunnel(seen):
    if any(status == 101 for status in seen.statuses):
        return "a tunnel was opened"
    asked = b"/c%d/f/101-unasked" % seen.case.number
    if any(b"smuggled" in bytes(request.connection.raw).partition(asked)[2] for request in seen.requests):
        return "the bytes behind went on the same connection"
    return None


def cookies():
    reference = "RFC 6265 §4.2; app cookies byte for byte"
    for name, value in (("one", "a=1"), ("several", "a=1; b=2; c=3"), ("no space", "a=1;b=2"), ("quoted", 'a="x; y"; b=2'), ("equals", "a=b==; c="), ("no name", "=x; y"),
                        ("odd bytes", "a=\u00e4; b=[1,2]; c={\"a\":1}"), ("empty pairs", "a=1;; ;b=2"), ("dollar", "$Version=1; a=1; $Path=/"), ("long", "a=" + "x" * 5000)):
        yield Case("cookies", name, reference, HEAD + b"Cookie: " + value.encode("latin1") + b"\r\n\r\n", passes(check=cookie_is(value)))
    for name, value, left in (("ours alone", "__Host-gitspace=v", None), ("ours first", "__Host-gitspace=v; a=1", "a=1"), ("ours last", "a=1; __Host-gitspace=v", "a=1"),
                              ("ours between", "a=1; __Host-gitspace=v; b=2", "a=1; b=2"), ("ours twice", "__Host-gitspace=v; a=1; __Host-gitspace=w", "a=1"),
                              ("a name like ours", "__Host-gitspace2=v; x__Host-gitspace=w", "__Host-gitspace2=v; x__Host-gitspace=w")):
        yield Case("cookies", name, "our session never reaches an app", HEAD + b"Cookie: " + value.encode() + b"\r\n\r\n", passes(check=cookie_is(left)), only=("gateway",))
    yield Case("tokens", "a bearer token of ours", "design §3.4", b"GET {P} HTTP/1.1\r\nHost: {PRIVATE}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
               passes(check=both_checks(no_field("Authorization"), field_is("X-Gitspace-User", "alice"))), only=("gateway",))
    yield Case("tokens", "X-Gitspace-Token", "design §3.4", b"GET {P} HTTP/1.1\r\nHost: {PRIVATE}\r\nX-Gitspace-Token: {TOKEN}\r\n\r\n",
               passes(check=no_field("X-Gitspace-Token", "X_Gitspace_Token")), only=("gateway",))
    yield Case("tokens", "in the query", "design §3.4", b"GET {P}?a=1&gitspace_token={TOKEN}&b=2 HTTP/1.1\r\nHost: {PRIVATE}\r\n\r\n",
               passes(check=lambda seen: None if seen.requests[0].target.endswith(b"?a=1&b=2") else f"target {seen.requests[0].target!r}"), only=("gateway",))
    yield Case("tokens", "an app's own Basic", "design §3.4", HEAD + b"Authorization: Basic eA==\r\n\r\n", passes(check=field_is("Authorization", "Basic eA==")))
    yield Case("tokens", "an app's own Bearer", "design §3.4", HEAD + b"Authorization: Bearer ghp_abc\r\n\r\n", passes(check=field_is("Authorization", "Bearer ghp_abc")))
    yield Case("tokens", "none at a private host", "design §3.6", b"GET {P} HTTP/1.1\r\nHost: {PRIVATE}\r\n\r\n", refused(401, may_stay_open=True), only=("gateway",))


def both_checks(*checks):
    return lambda seen: next((wrong for check in checks if (wrong := check(seen))), None)


def cookie_is(value):
    def check(seen):
        got = seen.requests[0].all("cookie")
        expected = [] if value is None else [value.encode("latin1")]
        return None if got == expected else f"Cookie reached the upstream as {got!r}"
    return check


def answers():
    def case(script, name, reference, expect, only=()):
        return Case("answers", name, reference, b"GET {P}/f/" + script.encode() + b" HTTP/1.1\r\nHost: {H}\r\n\r\n", expect, only=only)
    yield case("hop", "hop-by-hop and nominated fields", "RFC 9110 §7.6.1", answer_without("x-private", "proxy-connection", "proxy-authenticate", "upgrade"))
    yield case("hop-protected", "security cannot be nominated", "abuse of RFC 9110 §7.6.1", answer_with("set-cookie", "strict-transport-security", "content-type"))
    yield case("our-cookie", "an app's Set-Cookie of ours", "design: an app cannot set our cookie", only_app_cookie, ("gateway",))
    yield case("proxy-status", "a forged Proxy-Status", "RFC 9209 §2", answer_without("proxy-status"), ("gateway",))
    for script in ("nul", "bare-cr", "control", "fold", "name-space", "empty-name", "no-colon", "cr-cr-lf", "lf"):
        yield case(script, f"head with {script}", "response splitting; RFC 9112 §2.2, §5", clean_answer)


def answer_without(*names):
    def expect(seen):
        if seen.statuses != [200]:
            return f"answers {seen.statuses}"
        for name in names:
            if seen.heard.answers[0].all(name):
                return f"{name} reached the client"
        return None
    return expect


def answer_with(*names):
    def expect(seen):
        if seen.statuses != [200]:
            return f"answers {seen.statuses}"
        missing = [name for name in names if not seen.heard.answers[0].all(name)]
        return f"{missing} did not reach the client" if missing else None
    return expect


def only_app_cookie(seen):
    got = seen.heard.answers[0].all("set-cookie") if seen.heard.answers else None
    return None if got == [b"app=1"] else f"Set-Cookie reached the client as {got!r}"


def clean_answer(seen):
    """Refused with 502, or an answer without control characters and with no field that was not one."""
    wrong = wrong_upstream(seen, 2)
    if wrong:
        return wrong
    if len(seen.statuses) != 1:
        return f"answers {seen.statuses}"
    if seen.statuses[0] == 502:
        return None
    head = seen.heard.raw.split(b"\r\n\r\n")[0]
    if any(byte < 32 and byte not in (9, 10, 13) or byte == 127 for byte in head) or b"\r" in head.replace(b"\r\n", b""):
        return "a control character reached the client"
    if seen.heard.answers[0].all("set-cookie"):
        return "a field was split off"
    return None


def cases():
    yield from claims()
    yield from hop_by_hop()
    yield from upgrades()
    yield from cookies()
    yield from answers()
