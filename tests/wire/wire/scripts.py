"""How the upstream answers: one function a fault, chosen by the target (/…/f/NAME)."""

import time

OK = b"HTTP/1.1 200 OK\r\n"


def plain(body=b"ok", fields=b"", status=b"200 OK"):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nX-Upstream: 1\r\n%s\r\n%s" % (status, len(body), fields, body)


def early(request):
    """The script to run before the body is read, if there is one."""
    name = request.script()
    return name if name and name.startswith("early") else None


def answer(connection, request):
    """Answers; False ends the connection."""
    name = request.script()
    script = SCRIPTS.get(name)
    if script is None:
        body = b"" if request.method == b"HEAD" else b"ok " + request.target[:64]
        connection.send(plain(body))
        return True
    if callable(script):
        return bool(script(connection, request))
    data, keep = script
    connection.send(data)
    return keep


def slowly(pieces, pause, keep=False):
    def run(connection, _):
        for piece in pieces:
            connection.send(piece)
            time.sleep(pause)
        return keep
    return run


def reset(data):
    def run(connection, _):
        import socket
        import struct
        if data:
            connection.send(data)
            time.sleep(0.05)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    return run


def silent(connection, _):
    """Never answers; waits for the other end to give up."""
    while True:
        connection.more()


def after(data):
    """Sends, then stays silent until the other end gives up."""
    def run(connection, request):
        connection.send(data)
        silent(connection, request)
    return run


def endless(head, piece, pause=0.0):
    def run(connection, _):
        connection.send(head)
        for _ in range(20000):
            connection.send(piece)
            if pause:
                time.sleep(pause)
        return False
    return run


def fields(extra):
    return (plain(b"ok", extra), True)


STRAY = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Stray: 1\r\n\r\nstray!"

SCRIPTS = {
    # ends and lies about length
    "close": (b"", False),
    "reset": reset(b""),
    "silent": silent,
    "reset-in-head": reset(OK + b"Content-"),
    "close-in-head": (OK + b"Content-", False),
    "reset-in-body": reset(OK + b"Content-Length: 100\r\n\r\nhalf"),
    "close-in-body": (OK + b"Content-Length: 100\r\n\r\nhalf", False),
    "close-in-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf", False),
    "close-before-last-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", False),
    "close-in-last-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", False),
    "silent-in-body": after(OK + b"Content-Length: 100\r\n\r\nhalf"),
    "silent-in-head": after(OK + b"Content-Le"),
    "long": (OK + b"Content-Length: 2\r\n\r\nok" + STRAY, True),
    "long-chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + STRAY, True),
    "long-later": slowly([OK + b"Content-Length: 2\r\n\r\nok", STRAY], 0.05, True),
    "long-204": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nstray" + STRAY, True),
    "long-304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n" + STRAY, True),
    "body-on-head": (plain(b"stray body"), True),
    "until-close": (OK + b"X-Upstream: 1\r\n\r\nuntil close", False),
    "http10": (b"HTTP/1.0 200 OK\r\n\r\nold", False),
    "http10-chunked": (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", False),
    # two framings, or none
    "cl-te": (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + STRAY, True),
    "te-cl": (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + STRAY, True),
    "two-cl": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!" + STRAY, True),
    "cl-list": (OK + b"Content-Length: 2, 3\r\n\r\nok!" + STRAY, True),
    "cl-plus": (OK + b"Content-Length: +2\r\n\r\nok" + STRAY, True),
    "cl-negative": (OK + b"Content-Length: -2\r\n\r\nok" + STRAY, True),
    "cl-huge": (OK + b"Content-Length: 99999999999999999999999\r\n\r\nok", True),
    "cl-hex": (OK + b"Content-Length: 0x2\r\n\r\nok" + STRAY, True),
    "cl-space": (OK + b"Content-Length: 1 2\r\n\r\nok" + STRAY, True),
    "te-unknown": (OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + STRAY, True),
    "te-twice": (OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + STRAY, True),
    "te-gzip": (OK + b"Transfer-Encoding: gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n" + STRAY, True),
    "te-space": (OK + b"Transfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + STRAY, True),
    "chunk-plus": (OK + b"Transfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n", True),
    "chunk-hex": (OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", True),
    "chunk-negative": (OK + b"Transfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", True),
    "chunk-overflow": (OK + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n", True),
    "chunk-no-end": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nokxx0\r\n\r\n", True),
    "chunk-lf": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", True),
    "chunk-endless-ext": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n2;", b"a" * 4096),
    "endless-trailers": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-T: " + b"a" * 4096 + b"\r\n"),
    # heads
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n", False),
    "garbage-binary": (bytes(range(128, 256)) * 4, False),
    "http09": (b"<html>no head</html>", False),
    "status-2": (b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", False),
    "status-4": (b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", False),
    "status-text": (b"HTTP/1.1 OK OK\r\nContent-Length: 0\r\n\r\n", False),
    "status-000": (b"HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n", False),
    "version-2": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
    "no-colon": (OK + b"no colon\r\nContent-Length: 2\r\n\r\nok", False),
    "name-space": (OK + b"X-A : 1\r\nContent-Length: 2\r\n\r\nok", False),
    "empty-name": (OK + b": 1\r\nContent-Length: 2\r\n\r\nok", False),
    "fold": (OK + b"X-A: 1\r\n folded\r\nContent-Length: 2\r\n\r\nok", True),
    "nul": (OK + b"X-A: 1\0Set-Cookie: x=1\r\nContent-Length: 2\r\n\r\nok", False),
    "bare-cr": (OK + b"X-A: 1\rSet-Cookie: x=1\r\nContent-Length: 2\r\n\r\nok", False),
    "lf": (b"HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 2\n\nok", False),
    "cr-cr-lf": (OK + b"X-A: 1\r\r\nX-B: 2\r\nContent-Length: 2\r\n\r\nok", False),
    "control": (OK + b"X-A: a\x01b\x1fc\r\nContent-Length: 2\r\n\r\nok", False),
    "endless-head": endless(OK, b"X-A: " + b"a" * 4096 + b"\r\n"),
    "endless-field": endless(OK + b"X-A: ", b"a" * 4096),
    "endless-1xx": endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n", 0.0005),
    "many-fields": (OK + b"".join(b"X-%d: 1\r\n" % i for i in range(5000)) + b"Content-Length: 2\r\n\r\nok", False),
    "drip-head": slowly([bytes([b]) for b in OK + b"Content-Length: 2\r\n\r\nok"], 0.3),
    # ones that are right
    "100-then-200": (b"HTTP/1.1 100 Continue\r\n\r\n" + plain(), True),
    "102-103": (b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + plain(), True),
    "101-unasked": (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + STRAY, True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\n", True),
    "206": (b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/10\r\nContent-Length: 2\r\n\r\nok", True),
    "chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
    "chunked-ext": (OK + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n", True),
    "hop": fields(b"Connection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=9\r\nProxy-Connection: x\r\n"
                  b"Proxy-Authenticate: Basic\r\nTrailer: X\r\nUpgrade: h2c\r\n"),
    "hop-protected": fields(b"Connection: Set-Cookie, Content-Type, Strict-Transport-Security\r\nSet-Cookie: a=1\r\n"
                            b"Content-Type: text/plain\r\nStrict-Transport-Security: max-age=9\r\n"),
    "our-cookie": fields(b"Set-Cookie: __Host-gitspace=stolen; Path=/; Secure\r\nSet-Cookie: app=1\r\n"
                         b"Set-Cookie: __Host-Gitspace=; Max-Age=0\r\nSet-Cookie: =__Host-gitspace=x\r\n"),
    "proxy-status": fields(b"Proxy-Status: cde-gateway; error=forged\r\n"),
    # answers before the body
    "early-413": (plain(b"too large", b"Connection: close\r\n", b"413 Content Too Large"), False),
    "early-200": (plain(b"early"), False),
    "early-reset": reset(b""),
    "early-100": (b"HTTP/1.1 100 Continue\r\n\r\n" + plain(b"early"), False),
}
