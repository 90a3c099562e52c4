"""TLS from outside: versions, what is not TLS, names (RFC 8446, RFC 9325, RFC 9110 §7.4)."""

import socket
import ssl
import time
import warnings

from wire import client
from wire.judge import Case

V = ssl.TLSVersion
warnings.filterwarnings("ignore", category=DeprecationWarning)


def handshake(works, **how):
    def run(lane, case):
        try:
            sock = client.connect(lane.tls, client.context(["http/1.1"], **how), lane.host)
        except (ssl.SSLError, OSError) as error:
            return ("refused: " + str(error)[:60] if works else None), str(error)[:60]
        said = f"{sock.version()} {sock.cipher()[0]}"
        sock.close()
        return (None if works else f"accepted {said}"), said
    return run


def not_tls(data, port="tls"):
    """Bytes that are not what the port speaks: an end in time, nothing upstream."""
    def run(lane, case):
        sock = socket.create_connection(("127.0.0.1", getattr(lane, port)), timeout=6)
        sock.sendall(data.replace(b"{H}", lane.host.encode()))
        start, got = time.monotonic(), b""
        try:
            while piece := sock.recv(4096):
                got += piece
        except (TimeoutError, socket.timeout):
            return "the connection stays open", ""
        except OSError:
            pass
        finally:
            sock.close()
        seen = lane.upstream.seen()
        return ("it reached the upstream" if seen else None), f"closed after {time.monotonic() - start:.1f} s, {got[:30]!r}"
    return run


def named(sni, host, statuses, alpn="http/1.1"):
    def run(lane, case):
        put = lambda text: text.replace("{H}", lane.host)  # noqa: E731
        try:
            sock = client.connect(lane.tls, client.context([alpn]), put(sni) or None)
        except (ssl.SSLError, OSError) as error:
            return ("refused in the handshake" if 421 not in statuses else None), str(error)[:60]
        heard = client.exchange(sock, b"GET /c%d HTTP/1.1\r\nHost: %s\r\n\r\n" % (case.number, put(host).encode()))
        got = [answer.status for answer in heard.answers]
        wrong = None if len(got) == 1 and got[0] in statuses else f"answers {got}"
        return wrong, f"answers {got}"
    return run


def renegotiation(lane, case):
    """A TLS 1.2 client cannot make the server handshake again (CVE-2009-3555, and as a denial of service)."""
    import subprocess
    # `R` asks openssl's client for a renegotiation.
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{lane.tls}", "-servername", lane.host, "-tls1_2", "-quiet"],
                          input=b"R\n", capture_output=True, timeout=8)
    said = done.stderr.decode(errors="replace")
    refused = "no renegotiation" in said or "RENEGOTIATING" not in said or done.returncode != 0 or b"HTTP/1.1 4" in done.stdout
    return (None if refused else "renegotiated"), said[-60:].strip()


def certificate_of(sni, expected):
    def run(lane, case):
        sock = client.connect(lane.tls, client.context(["http/1.1"]), sni.replace("{H}", lane.host))
        der = sock.getpeercert(True)
        sock.close()
        found = expected.encode() in der
        return (None if found else "another certificate"), ""
    return run


def cases():
    old = {"ciphers": "ALL:@SECLEVEL=0"}
    for name, version, works in (("SSL 3.0", V.SSLv3, False), ("TLS 1.0", V.TLSv1, False), ("TLS 1.1", V.TLSv1_1, False), ("TLS 1.2", V.TLSv1_2, True), ("TLS 1.3", V.TLSv1_3, True)):
        yield Case("TLS versions", name, "RFC 9325 §3.1", b"", None, run=handshake(works, low=version, high=version, **({} if works else old)))
    for name, ciphers, works in (("ECDHE with AES-GCM", "ECDHE+AESGCM", True), ("ECDHE with ChaCha20", "ECDHE+CHACHA20", True), ("CBC", "ECDHE+AES+SHA:ECDHE+AES+SHA256:!AESGCM", False),
                                 ("static RSA", "kRSA:@SECLEVEL=0", False), ("DHE", "DHE:@SECLEVEL=0", False), ("no encryption", "eNULL:@SECLEVEL=0", False),
                                 ("no authentication", "aNULL:@SECLEVEL=0", False), ("AES-CCM", "ECDHE+AESCCM", None)):
        expect = handshake(bool(works), low=V.TLSv1_2, high=V.TLSv1_2, ciphers=ciphers)
        if works is not None:
            yield Case("TLS ciphers", name, "RFC 9325 §4", b"", None, run=expect)
    yield Case("not TLS", "plain HTTP at the TLS port", "an end in time", b"", None, run=not_tls(b"GET / HTTP/1.1\r\nHost: {H}\r\n\r\n"))
    yield Case("not TLS", "SSH at the TLS port", "an end in time", b"", None, run=not_tls(b"SSH-2.0-OpenSSH_9.2\r\n"))
    yield Case("not TLS", "garbage at the TLS port", "an end in time", b"", None, run=not_tls(bytes(range(256))))
    yield Case("not TLS", "SSL 2.0 ClientHello", "RFC 6176", b"", None, run=not_tls(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x01\x00\x80" * 7 + b"x" * 16))
    yield Case("not TLS", "a record too large", "RFC 8446 §5.1", b"", None, run=not_tls(b"\x16\x03\x01\xff\xff" + b"\x01" * 70000))
    yield Case("not TLS", "an alert first", "RFC 8446 §6", b"", None, run=not_tls(b"\x15\x03\x01\x00\x02\x01\x00"))
    yield Case("not TLS", "ClientHello at the plain port", "an end in time", b"", None,
               run=not_tls(b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03" + b"\x01" * 50 + b"\r\n\r\n", "plain"))
    yield Case("not TLS", "HTTP/2 preface at the plain port", "RFC 9113 §3.3: or refused", b"", None,
               run=not_tls(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", "plain"))
    yield Case("TLS names", "SNI and Host agree", "RFC 9110 §7.4", b"", None, run=named("{H}", "{H}", (200,)))
    yield Case("TLS names", "SNI of another certificate", "RFC 9110 §7.4; 421", b"", None, run=named("other.test", "{H}", (421,)), only=("gateway",))
    yield Case("TLS names", "Host of another certificate", "RFC 9110 §7.4; 421", b"", None, run=named("{H}", "other.test", (421,)), only=("gateway",))
    yield Case("TLS names", "another host of the same certificate", "coalescing; RFC 9113 §9.1.1", b"", None, run=named("lane0.wire.test", "{H}", (200,)))
    yield Case("TLS names", "no SNI", "RFC 6066 §3", b"", None, run=named("", "{H}", (200,)))
    yield Case("TLS names", "SNI picks the certificate", "RFC 6066 §3", b"", None, run=certificate_of("other.test", "other.test"), only=("gateway", "haproxy"))
    yield Case("TLS names", "Host of a private name by another SNI", "no oracle", b"", None, run=named("other.test", "private0.wire.test", (421,)), only=("gateway",))
    yield Case("TLS", "renegotiation", "CVE-2009-3555", b"", None, run=renegotiation)
