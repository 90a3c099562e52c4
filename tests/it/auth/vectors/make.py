#!/usr/bin/env python3
"""Makes the vectors of the signature algorithms beside this file, from the standards and nothing else:

    tests/it/auth/vectors/make.py            writes es256.json, eddsa.json, rs256.json and hs256.json
    tests/it/auth/vectors/make.py --check    fails if one of them is not what this program makes

Each vector is a whole token, the key that it is checked with, whether it is valid, and for which reason it is not. Everything is derived
from names by SHA-256, so that each run makes the same bytes. The arithmetic is the plain one of FIPS 186-5, RFC 8032 and RFC 8017: slow,
not in constant time, and good for nothing but vectors.
"""

import base64
import hashlib
import hmac
import json
import math
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
NOW = 1_800_000_000
ISSUER = "https://vectors.test"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(name, bits):
    """A number of at most so many bits that belongs to a name."""
    count = -(-bits // 256)
    digest = b"".join(hashlib.sha256(f"{name}/{i}".encode()).digest() for i in range(count))
    return int.from_bytes(digest, "big") >> (256 * count - bits)


def big(value, size):
    return value.to_bytes(size, "big")


class Vectors:
    """The vectors of one algorithm."""

    def __init__(self, algorithm):
        self.algorithm, self.keys, self.tests = algorithm, {}, []

    def message(self, jti, header=None, claims=None):
        header = {"alg": self.algorithm, "typ": "JWT"} if header is None else header
        if not isinstance(header, str):
            header = json.dumps(header, separators=(",", ":"))
        if claims is None:
            claims = {"iss": ISSUER, "sub": "alice", "aud": "cde-gateway", "iat": NOW, "exp": NOW + 3600, "jti": jti}
        if not isinstance(claims, str):
            claims = json.dumps(claims, separators=(",", ":"), ensure_ascii=False)
        return f"{b64(header.encode())}.{b64(claims.encode())}"

    def add(self, key, comment, token, reason=None, *flags):
        self.tests.append({"id": len(self.tests) + 1, "comment": comment, "flags": list(flags), "key": key, "token": token,
                           "result": "invalid" if reason else "valid", **({"reason": reason} if reason else {})})

    def text(self):
        keys = ",\n".join(f"    {json.dumps(name)}: {json.dumps(jwk)}" for name, jwk in self.keys.items())
        tests = ",\n".join("    " + json.dumps(test, ensure_ascii=False) for test in self.tests)
        return (f'{{\n  "algorithm": "{self.algorithm}",\n  "generator": "make.py",\n  "now": {NOW},\n  "issuer": "{ISSUER}",\n'
                f'  "keys": {{\n{keys}\n  }},\n  "tests": [\n{tests}\n  ]\n}}\n')

    def shape(self, key, sign):
        """What goes wrong around any signature. `sign` gives the bytes for a message."""
        def whole(jti, **parts):
            message = self.message(jti, **parts)
            return message, b64(sign(message.encode()))

        message, signature = whole("valid")
        self.add(key, "a valid signature", f"{message}.{signature}")
        spaced, found = whole("spaces", header=f'{{ "typ" : "JWT",\n"alg":"{self.algorithm}" }}')
        self.add(key, "white space and order in the header are free", f"{spaced}.{found}")
        plain, found = whole("short", header={"alg": self.algorithm})
        self.add(key, "a header without typ", f"{plain}.{found}")
        other = self.message("another")
        self.add(key, "the signature of other claims", f"{other}.{signature}", "signature")
        for name, changed in [("header", message.replace("eyJ", "eyK", 1)), ("claims", f"{message[:-1]}{'A' if message[-1] != 'A' else 'Q'}")]:
            self.add(key, f"a changed {name}", f"{changed}.{signature}", "any")
        self.add(key, "an empty signature", f"{message}.", "signature", "Degenerate")
        self.add(key, "no third part", message, "malformed", "Shape")
        self.add(key, "four parts", f"{message}.{signature}.{signature}", "malformed", "Shape")
        self.add(key, "a dot at the end", f"{message}.{signature}.", "malformed", "Shape")
        head, claims = message.split(".")
        self.add(key, "claims that stand elsewhere (detached, RFC 7515 appendix F)", f"{head}..{signature}", "malformed", "Shape")
        self.add(key, "no header", f".{claims}.{signature}", "malformed", "Shape")
        general = json.dumps({"payload": claims, "protected": head, "signature": signature})
        self.add(key, "the JSON serialisation", general, "malformed", "Shape")
        raw = sign(message.encode())
        pad = "=" * (-len(signature) % 4) or "="
        last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        odd = last[last.index(signature[-1]) ^ 1]
        for comment, text in [("padded base64url", signature + pad), ("a blank before it", " " + signature), ("a blank after it", signature + " "),
                              ("a line feed in it", signature[:8] + "\n" + signature[8:]), ("percent-encoded", "%" + f"{ord(signature[0]):02X}" + signature[1:]),
                              ("bits beside the last byte", signature[:-1] + odd), ("a character more", signature + "A"),
                              ("a zero byte at its end, as text", signature + "\0"), ("hexadecimal", raw.hex())]:
            reason = "any" if comment in ("hexadecimal", "a character more") else "malformed"
            self.add(key, f"the signature in another text: {comment}", f"{message}.{text}", reason, "Base64")
        for attempt in range(64):
            candidate = self.message(f"alphabet {attempt}")
            found = sign(candidate.encode())
            if "-" in b64(found) or "_" in b64(found):
                break
        standard = base64.b64encode(found).rstrip(b"=").decode()
        self.add(key, "the signature in another text: base64 with + and /", f"{candidate}.{standard}", "malformed", "Base64")
        self.add(key, "padded base64url in the claims", f"{message}=.{b64(sign((message + '=').encode()))}", "malformed", "Base64")
        noncanonical = self.message("bits")
        for bits in range(64):
            if len(noncanonical.split(".")[1]) % 4:
                break
            noncanonical = self.message("bits" + "x" * bits)
        noncanonical = noncanonical[:-1] + last[last.index(noncanonical[-1]) ^ 1]
        self.add(key, "bits beside the last byte of the claims, signed so", f"{noncanonical}.{b64(sign(noncanonical.encode()))}", "malformed", "Base64")
        raw_message = f"{base64.urlsafe_b64decode(head + '==').decode()}.{base64.urlsafe_b64decode(claims + '==').decode()}"
        self.add(key, "signed over the text before base64url", f"{message}.{b64(sign(raw_message.encode()))}", "signature", "Message")
        self.add(key, "signed over the claims alone", f"{message}.{b64(sign(claims.encode()))}", "signature", "Message")
        self.add(key, "signed with a line feed at the end", f"{message}.{b64(sign((message + chr(10)).encode()))}", "signature", "Message")
        for name in ["none", "None", "NONE", "nOnE", "", self.algorithm.lower() if self.algorithm != "EdDSA" else "EDDSA", self.algorithm + " ",
                     self.algorithm + "\0", "Ed25519", "ES384", "RS512", "PS256", "HS384", "A128KW"]:
            message, signature = whole("alg", header={"alg": name, "typ": "JWT"})
            self.add(key, f"a good signature under the name {name!r}", f"{message}.{signature}", "algorithm", "AlgorithmConfusion")
            if name.lower() == "none":
                self.add(key, f"no signature under the name {name!r}", f"{message}.", "algorithm", "AlgorithmConfusion")
        for comment, header, reason in [
            ("no alg", {"typ": "JWT"}, "malformed"), ("alg of another type", {"alg": 256}, "type"), ("alg as a list", {"alg": [self.algorithm]}, "type"),
            ("alg null", {"alg": None}, "type"), ("alg twice", f'{{"alg":"{self.algorithm}","alg":"{self.algorithm}"}}', "doubled"),
            ("alg twice, once escaped", f'{{"alg":"none","\\u0061lg":"{self.algorithm}"}}', "doubled"),
            ("crit", {"alg": self.algorithm, "crit": ["exp"], "exp": NOW}, "critical"),
            ("an empty crit", {"alg": self.algorithm, "crit": []}, "critical"),
            ("typ of a logout token", {"alg": self.algorithm, "typ": "logout+jwt"}, "purpose")]:
            message, signature = whole("header", header=header)
            self.add(key, f"header: {comment}", f"{message}.{signature}", reason, "Header")
        # RFC 7797: the claims are signed as they are. Nobody here understands `b64`, so it must be marked critical, and is refused by that.
        header = json.dumps({"alg": self.algorithm, "b64": False, "crit": ["b64"]}, separators=(",", ":"))
        claims = json.dumps({"iss": ISSUER, "sub": "alice", "aud": "cde-gateway", "exp": NOW + 3600}, separators=(",", ":"))
        signature = b64(sign(f"{b64(header.encode())}.{claims}".encode()))
        self.add(key, "claims that are signed unencoded (RFC 7797)", f"{b64(header.encode())}.{b64(claims.encode())}.{signature}", "critical", "Header")
        header = json.dumps({"alg": self.algorithm, "b64": False}, separators=(",", ":"))
        signature = b64(sign(f"{b64(header.encode())}.{claims}".encode()))
        self.add(key, "the same without crit", f"{b64(header.encode())}.{b64(claims.encode())}.{signature}", "signature", "Header")


# --- ES256: ECDSA on P-256 with SHA-256 (FIPS 186-5, RFC 7518 §3.4)

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296, 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def p256_add(one, other):
    if one is None or other is None:
        return other if one is None else one
    (x1, y1), (x2, y2) = one, other
    if x1 == x2:
        if (y1 + y2) % P == 0:
            return None
        slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, P) % P
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, P) % P
    x = (slope * slope - x1 - x2) % P
    return x, (slope * (x1 - x) - y1) % P


def p256_times(factor, point):
    result = None
    while factor:
        if factor & 1:
            result = p256_add(result, point)
        point, factor = p256_add(point, point), factor >> 1
    return result


def digest(message, algorithm="sha256"):
    return int.from_bytes(hashlib.new(algorithm, message).digest()[:32], "big")


def ecdsa(secret, message, nonce=None, algorithm="sha256"):
    z = digest(message, algorithm)
    k = nonce or number(f"nonce {secret} {message!r}", 255) + 1
    r = p256_times(k, G)[0] % N
    return r, pow(k, -1, N) * (z + r * secret) % N


def fixed(pair):
    return big(pair[0], 32) + big(pair[1], 32)


def der(value):
    body = big(value, value.bit_length() // 8 + 1)
    return bytes([2, len(body)]) + body


def der_pair(pair):
    body = der(pair[0]) + der(pair[1])
    return bytes([0x30, len(body)]) + body


def ec_jwk(point, crv="P-256", size=32):
    return {"kty": "EC", "crv": crv, "x": b64(big(point[0], size)), "y": b64(big(point[1], size))}


def ec_pem(point):
    prefix = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
    spki = prefix + big(point[0], 32) + big(point[1], 32)
    text = base64.b64encode(spki).decode()
    lines = "\n".join(text[i:i + 64] for i in range(0, len(text), 64))
    return spki, f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n"


def es256():
    v = Vectors("ES256")
    secret = number("ES256 key", 255) + 1
    public = p256_times(secret, G)
    v.keys["key"] = ec_jwk(public)
    v.shape("key", lambda message: fixed(ecdsa(secret, message)))

    def search(what, holds):
        for attempt in range(100_000):
            message = v.message(f"{what} {attempt}").encode()
            if holds(message):
                return message
        raise AssertionError(what)

    def add(comment, message, signature, reason=None, *flags, key="key"):
        v.add(key, comment, f"{message.decode()}.{b64(signature)}", reason, *flags)

    small = lambda value: value < 2**248
    message = search("small r", lambda it: small(ecdsa(secret, it)[0]))
    r, s = ecdsa(secret, message)
    add("r begins with a zero byte", message, fixed((r, s)), None, "SmallInteger")
    add("r without its zero byte", message, big(r, 31) + big(s, 32), "signature", "Length")
    message = search("small s", lambda it: small(ecdsa(secret, it)[1]))
    r, s = ecdsa(secret, message)
    add("s begins with a zero byte", message, fixed((r, s)), None, "SmallInteger")
    add("s without its zero byte", message, big(r, 32) + big(s, 31), "signature", "Length")
    message = search("small hash", lambda it: small(digest(it)))
    add("the hash begins with a zero byte", message, fixed(ecdsa(secret, message)), None, "SmallInteger")

    message = v.message("edges").encode()
    r, s = ecdsa(secret, message)
    low, high = min(s, N - s), max(s, N - s)
    add("the lower of the two s", message, fixed((r, low)), None, "Malleable")
    add("the higher of the two s: JWS does not forbid it, and nothing here takes a token's bytes for its name", message, fixed((r, high)), None, "Malleable")
    for comment, pair in [("both zero", (0, 0)), ("r zero", (0, s)), ("s zero", (r, 0)), ("r = 1", (1, s)), ("s = 1", (r, 1)), ("both one", (1, 1)),
                          ("r = n", (N, s)), ("s = n", (r, N)), ("both n", (N, N)), ("r = n - 1", (N - 1, s)), ("s = n - 1", (r, N - 1)), ("r = n + 1", (N + 1, s)),
                          ("r = p", (P, s)), ("s = p", (r, P)), ("r = p - n", (P - N, s)), ("all bits", (2**256 - 1, 2**256 - 1)),
                          ("r and s exchanged", (s, r)), ("r replaced by n - r", (N - r, s)), ("r and s negative in two's complement", (2**256 - r, 2**256 - s))]:
        add(comment, message, fixed(pair), "signature", "Range")
    add("DER instead of two numbers", message, der_pair((r, s)), "signature", "Encoding")
    add("DER of zeros", message, der_pair((0, 0)), "signature", "Encoding")
    add("little-endian", message, big(r, 32)[::-1] + big(s, 32)[::-1], "signature", "Encoding")
    add("r alone", message, big(r, 32), "signature", "Length")
    add("a byte too few", message, fixed((r, s))[:-1], "signature", "Length")
    add("a zero byte more at the end", message, fixed((r, s)) + b"\0", "signature", "Length")
    add("a zero byte more at the beginning", message, b"\0" + fixed((r, s)), "signature", "Length")
    add("the size of ES384", message, big(r, 48) + big(s, 48), "signature", "Length")
    add("twice", message, fixed((r, s)) * 2, "signature", "Length")
    for algorithm in ["sha1", "sha224", "sha384", "sha512", "sha3_256"]:
        value = hashlib.new(algorithm, message).digest()
        z = int.from_bytes(value[:32], "big")
        k = number("hash nonce", 255)
        r1 = p256_times(k, G)[0] % N
        add(f"signed over {algorithm}", message, fixed((r1, pow(k, -1, N) * (z + r1 * secret) % N)), "signature", "Hash")
    add("signed by another key", message, fixed(ecdsa(number("another", 255), message)), "signature", "Key")
    k1 = v.message("nonce 1").encode()
    add("the nonce 1, so that r is the generator's x", k1, fixed(ecdsa(secret, k1, 1)), None, "Edge")

    # The key that a wanted s belongs to: d = (s k - z) / r.
    for comment, wanted in [("s = 1", lambda r: 1), ("s = r", lambda r: r), ("s = n - 1", lambda r: N - 1)]:
        message = v.message(f"edge {comment}").encode()
        k = number(f"nonce {comment}", 255)
        r = p256_times(k, G)[0] % N
        s = wanted(r)
        name = f"for {comment}"
        v.keys[name] = ec_jwk(p256_times((s * k - digest(message)) * pow(r, -1, N) % N, G))
        add(f"valid with {comment}", message, fixed((r, s)), None, "Edge", key=name)
        if s == 1:
            add("the same with s + n, which is as good to whoever reduces it", message, fixed((r, s + N)), "signature", "Range", key=name)
    for name, d in [("the generator", 1), ("its negative", N - 1)]:
        v.keys[name] = ec_jwk(p256_times(d, G))
        message = v.message(name).encode()
        add(f"the key is {name}", message, fixed(ecdsa(d, message)), None, "Edge", key=name)
    for coordinate in (0, 1):
        d = next(d for d in range(2, 4000) if p256_times(d, G)[coordinate] < 2**248)
        point, word = p256_times(d, G), "xy"[coordinate]
        v.keys[f"small {word}"] = ec_jwk(point)
        message = v.message(f"small {word}").encode()
        add(f"{word} of the key begins with a zero byte", message, fixed(ecdsa(d, message)), None, "Edge", key=f"small {word}")
        short = ec_jwk(point)
        short[word] = b64(big(point[coordinate], 31))
        v.keys[f"short {word}"] = short
        add(f"{word} of the key is written without its zero byte (RFC 7518 §6.2.1)", message, fixed(ecdsa(d, message)), "key", "Key", key=f"short {word}")
    message = v.message("keys").encode()
    good = fixed(ecdsa(secret, message))
    for name, jwk, reason in [("not on the curve", ec_jwk((public[0], (public[1] + 1) % P)), "signature"), ("zero", ec_jwk((0, 0)), "signature"),
                              ("x plus p", ec_jwk((5 + P, 0), size=33), "key"), ("of P-384 by name", ec_jwk(public, crv="P-384"), "key"),
                              ("for encryption", ec_jwk(public) | {"use": "enc"}, "key"), ("for ES384", ec_jwk(public) | {"alg": "ES384"}, "key"),
                              ("for HS256", ec_jwk(public) | {"alg": "HS256"}, "key")]:
        v.keys[name] = jwk
        add(f"the key is {name}", message, good, reason, "Key", key=name)
    spki, pem = ec_pem(public)
    for comment, shared in [("PEM", pem.encode()), ("PEM without its line feed", pem.rstrip().encode()), ("DER", spki), ("the point", spki[-65:]),
                            ("x and y", spki[-64:]), ("the JWK", json.dumps(v.keys["key"]).encode()), ("nothing", b"")]:
        for name in ["HS256", "ES256"]:
            message = v.message("confused", header={"alg": name, "typ": "JWT"})
            mac = hmac.new(shared, message.encode(), "sha256").digest()
            v.add("key", f"an HMAC with the public key as a secret ({comment}), called {name}", f"{message}.{b64(mac)}",
                  "algorithm" if name == "HS256" else "signature", "KeyConfusion")
    message = v.message("other", header={"alg": "RS256", "typ": "JWT"}).encode()
    add("a good signature that calls itself RS256", message, fixed(ecdsa(secret, message)), "algorithm", "AlgorithmConfusion")
    return v


# --- EdDSA: Ed25519 (RFC 8032)

Q = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, Q) % Q
I = pow(2, (Q - 1) // 4, Q)


def ed_x(y, sign):
    square = (y * y - 1) * pow(D * y * y + 1, -1, Q) % Q
    x = pow(square, (Q + 3) // 8, Q)
    if (x * x - square) % Q:
        x = x * I % Q
    if (x * x - square) % Q:
        return None
    return Q - x if x % 2 != sign and x else x


BASE = (ed_x(4 * pow(5, -1, Q) % Q, 0), 4 * pow(5, -1, Q) % Q)


def ed_add(one, other):
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + product, -1, Q) % Q, (y1 * y2 + x1 * x2) * pow(1 - product, -1, Q) % Q


def ed_times(factor, point):
    result = (0, 1)
    while factor:
        if factor & 1:
            result = ed_add(result, point)
        point, factor = ed_add(point, point), factor >> 1
    return result


def little(value):
    return value.to_bytes(32, "little")


def ed_bytes(point):
    return little(point[1] | (point[0] & 1) << 255)


def ed_secret(seed):
    expanded = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(expanded[:32], "little") & (1 << 254) - 8 | 1 << 254
    return scalar, expanded[32:]


def ed_challenge(r, public, message):
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L


def ed_sign(seed, message):
    scalar, prefix = ed_secret(seed)
    public = ed_bytes(ed_times(scalar, BASE))
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    point = ed_bytes(ed_times(r, BASE))
    return point, (r + ed_challenge(point, public, message) * scalar) % L


def eddsa():
    v = Vectors("EdDSA")
    seed = big(number("EdDSA key", 256), 32)
    scalar, _ = ed_secret(seed)
    point = ed_times(scalar, BASE)
    public = ed_bytes(point)
    okp = lambda x, crv="Ed25519": {"kty": "OKP", "crv": crv, "x": b64(x)}
    v.keys["key"] = okp(public)
    whole = lambda message: (lambda pair: pair[0] + little(pair[1]))(ed_sign(seed, message))
    v.shape("key", whole)

    def add(comment, message, signature, reason=None, *flags, key="key"):
        v.add(key, comment, f"{message.decode()}.{b64(signature)}", reason, *flags)

    message = v.message("edges").encode()
    r, s = ed_sign(seed, message)
    for comment, other in [("S plus L", s + L), ("S plus 2 L", s + 2 * L), ("S plus 8 L", s + 8 * L), ("S = 0", 0), ("S = 1", 1), ("S = L", L), ("S = L - 1", L - 1),
                           ("S = L + 1", L + 1), ("S negated", L - s), ("S with its highest bit", s | 1 << 255), ("S with all bits", 2**256 - 1)]:
        add(comment, message, r + little(other), "signature", "Malleable" if "plus" in comment else "Range")
    identity, order2 = little(1), little(Q - 1)
    for comment, other in [("R is the neutral point", identity), ("R is zero", little(0)), ("R has order 2", order2), ("R is the neutral point, written as p + 1", little(Q + 1)),
                           ("R = p", little(Q)), ("R negated", bytes([*r[:31], r[31] ^ 0x80])), ("R with all bits", b"\xff" * 32), ("R is the base", ed_bytes(BASE)),
                           ("R is the key", public)]:
        add(comment, message, other + little(s), "signature", "Point")
        add(comment + ", S = 0", message, other + little(0), "signature", "Point")
    add("R and S exchanged", message, little(s) + r, "signature", "Encoding")
    add("big-endian S", message, r + little(s)[::-1], "signature", "Encoding")
    add("all zero", message, bytes(64), "signature", "Degenerate")
    for comment, text in [("R alone", r), ("a byte too few", (r + little(s))[:-1]), ("a zero byte more", r + little(s) + b"\0"), ("the key behind it", r + little(s) + public),
                          ("twice", (r + little(s)) * 2), ("the size of Ed448", (r + little(s)) + bytes(50))]:
        add(f"the length: {comment}", message, text, "signature", "Length")
    other_seed = big(number("another", 256), 32)
    add("signed by another key", message, (lambda pair: pair[0] + little(pair[1]))(ed_sign(other_seed, message)), "signature", "Key")
    prehash = hashlib.sha512(message).digest()
    add("signed over the message's SHA-512 (not Ed25519ph)", message, whole(prehash), "signature", "Hash")
    domain = b"SigEd25519 no Ed25519 collisions"
    for comment, prefix, text in [("Ed25519ph", domain + b"\x01\x00", prehash), ("Ed25519ctx", domain + b"\x00\x01x", message)]:
        _, secret_prefix = ed_secret(seed)
        nonce = int.from_bytes(hashlib.sha512(prefix + secret_prefix + text).digest(), "little") % L
        encoded = ed_bytes(ed_times(nonce, BASE))
        challenge = int.from_bytes(hashlib.sha512(prefix + encoded + public + text).digest(), "little") % L
        add(f"signed as {comment}", message, encoded + little((nonce + challenge * scalar) % L), "signature", "Hash")
    # A signature that only the equation with the cofactor accepts: R with a part of order 8.
    eighth = next(p for p in (ed_times(L, (ed_x(y, 0), y)) for y in range(2, 60) if ed_x(y, 0) is not None) if ed_times(4, p) != (0, 1))
    nonce = number("torsion", 250)
    mixed = ed_bytes(ed_add(ed_times(nonce, BASE), eighth))
    add("R with a part of small order, which only a verification with the cofactor accepts", message,
        mixed + little((nonce + ed_challenge(mixed, public, message) * scalar) % L), "signature", "Point")
    # Keys that any signature would fit: R = S B - k A, and k A is known without knowing a key.
    low = {"the neutral point": identity, "of order 2": order2, "of order 4": little(0), "of order 4, the other": bytes([*little(0)[:31], 0x80]),
           "of order 8": ed_bytes(eighth), "of order 8, negated": bytes([*ed_bytes(eighth)[:31], ed_bytes(eighth)[31] ^ 0x80]),
           "of order 8, another": ed_bytes(ed_times(3, eighth)), "the neutral point, written as p + 1": little(Q + 1),
           "the neutral point, with a sign": little(1 | 1 << 255), "of order 4, written as p": little(Q)}
    for name, encoding in low.items():
        v.keys[name] = okp(encoding)
        for attempt in range(64):
            forged = v.message(f"forged {name} {attempt}").encode()
            if ed_challenge(identity, encoding, forged) % 8 == 0:
                break
        add(f"the key is {name}: signed by nobody", forged, identity + little(0), "key", "SmallOrder", key=name)
    for name, jwk in [("a byte too short", okp(public[:-1])), ("a byte too long", okp(public + b"\0")), ("of X25519", okp(public, "X25519")), ("of Ed448 by name", okp(public, "Ed448")),
                      ("for encryption", okp(public) | {"use": "enc"}), ("for ES256", okp(public) | {"alg": "ES256"})]:
        v.keys[name] = jwk
        add(f"the key is {name}", message, r + little(s), "key", "Key", key=name)
    y = next(y for y in range(2, 99) if ed_x(y, 0) is None)
    v.keys["no point"] = okp(little(y))
    add("the key is no point", message, r + little(s), "signature", "Key", key="no point")
    spki = bytes.fromhex("302a300506032b6570032100") + public
    pem = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(spki).decode()}\n-----END PUBLIC KEY-----\n"
    for comment, shared in [("PEM", pem.encode()), ("DER", spki), ("its bytes", public)]:
        for name in ["HS256", "EdDSA"]:
            text = v.message("confused", header={"alg": name, "typ": "JWT"})
            mac = hmac.new(shared, text.encode(), "sha256").digest()
            v.add("key", f"an HMAC with the public key as a secret ({comment}), called {name}", f"{text}.{b64(mac)}",
                  "algorithm" if name == "HS256" else "signature", "KeyConfusion")
    return v


# --- RS256: RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2)

INFO = {"sha1": "3021300906052b0e03021a05000414", "sha256": "3031300d060960864801650304020105000420",
        "sha384": "3041300d060960864801650304020205000430", "sha512": "3051300d060960864801650304020305000440"}


def prime(name, bits, exponent):
    candidate = number(name, bits) | 3 << bits - 2 | 1
    while True:
        if all(candidate % small for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)) and math.gcd(candidate - 1, exponent) == 1 \
                and all(witness(candidate, number(f"{name} {i}", bits - 2) + 2) for i in range(16)):
            return candidate
        candidate += 2


def witness(candidate, base):
    """Whether Miller and Rabin find nothing with this base."""
    odd, twos = candidate - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    x = pow(base, odd, candidate)
    if x in (1, candidate - 1):
        return True
    return any((x := x * x % candidate) == candidate - 1 for _ in range(twos - 1))


def rsa_key(name, bits, exponent):
    p, q = (prime(f"{name} {part}", bits // 2, exponent) for part in "pq")
    return p * q, pow(exponent, -1, math.lcm(p - 1, q - 1))


def rsa_jwk(n, e):
    return {"kty": "RSA", "n": b64(big(n, -(-n.bit_length() // 8))), "e": b64(big(e, -(-e.bit_length() // 8)))}


def block(info, size=256, begin=b"\0\1", filler=b"\xff", separator=b"\0", after=b""):
    rest = separator + info + after
    return begin + filler * (size - len(begin) - len(rest)) + rest


def rs256():
    v = Vectors("RS256")
    n, d = rsa_key("RS256 key", 2048, 65537)
    v.keys["key"] = rsa_jwk(n, 65537)
    info = lambda message, algorithm="sha256": bytes.fromhex(INFO[algorithm]) + hashlib.new(algorithm, message).digest()
    power = lambda text: pow(int.from_bytes(text, "big"), d, n)
    sign = lambda message: big(power(block(info(message))), 256)
    v.shape("key", sign)

    def add(comment, message, signature, reason=None, *flags, key="key"):
        v.add(key, comment, f"{message.decode()}.{b64(signature)}", reason, *flags)

    message = v.message("edges").encode()
    s = int.from_bytes(sign(message), "big")
    for comment, value in [("0", 0), ("1", 1), ("2", 2), ("n - 1", n - 1), ("n", n), ("n + 1", n + 1), ("n - s", n - s), ("the padded hash itself", int.from_bytes(block(info(message)), "big")),
                           ("all bits", 2**2048 - 1)]:
        add(f"the signature is {comment}", message, big(value, 256), "signature", "Range")
    for attempt in range(5000):
        text = v.message(f"small {attempt}").encode()
        if sign(text)[0] == 0:
            break
    add("the signature begins with a zero byte", text, sign(text), None, "SmallInteger")
    add("it is written without that byte", text, sign(text)[1:], "signature", "Length")
    small = next(text for text in (v.message(f"wrap {i}").encode() for i in range(5000)) if int.from_bytes(sign(text), "big") + n < 2**2048)
    add("s + n, which is as good to whoever reduces it", small, big(int.from_bytes(sign(small), "big") + n, 256), "signature", "Range")
    for comment, value in [("a zero byte before it", b"\0" + sign(message)), ("a zero byte behind it", sign(message) + b"\0"), ("a byte too few", sign(message)[:-1]),
                           ("half of it", sign(message)[:128]), ("twice", sign(message) * 2), ("little-endian", sign(message)[::-1])]:
        add(f"the length: {comment}", message, value, "signature", "Length")
    hashed = hashlib.sha256(message).digest()
    good = info(message)
    faults = {
        "block type 2": block(good, begin=b"\0\2"), "block type 0": block(good, begin=b"\0\0"), "no zero byte at the beginning": block(good, begin=b"\1\1"),
        "padding of zeros": block(good, filler=b"\0"), "padding of 0xfe": block(good, filler=b"\xfe"), "one padding byte differs": block(good)[:100] + b"\xfe" + block(good)[101:],
        "the last padding byte differs": block(good, separator=b"\xfe\0"), "the separator is no zero": block(good, separator=b"\1"), "no separator": block(good, separator=b"\xff"),
        "two separators": block(good, separator=b"\0\0"), "eight bytes of padding, then rubbish behind the hash": b"\0\1" + b"\xff" * 8 + b"\0" + good + bytes(256 - 11 - len(good)),
        "no padding, rubbish behind the hash": b"\0\1\0" + good + bytes(256 - 3 - len(good)), "a byte behind the hash": block(good, after=b"\0"),
        "the hash alone": block(hashed), "a hash of 31 bytes": block(bytes.fromhex("3030300d06096086480165030402010500041f") + hashed[:31]),
        "no NULL parameter": block(bytes.fromhex("302f300b0609608648016503040201" + "0420") + hashed),
        "rubbish as parameter": block(bytes.fromhex("3033300f06096086480165030402010402" + "0000" + "0420") + hashed),
        "a longer form of length": block(bytes.fromhex("308131300d060960864801650304020105000420") + hashed),
        "an indefinite length": block(bytes.fromhex("3080300d060960864801650304020105000420") + hashed + b"\0\0"),
        "the identifier of SHA-512 before a hash of SHA-256": block(bytes.fromhex("3031300d060960864801650304020305000420") + hashed),
        "the identifier of RSA with SHA-256": block(bytes.fromhex("3031300d06092a864886f70d01010b05000420") + hashed),
        "an octet string that is a bit string": block(bytes.fromhex("3031300d060960864801650304020105000320") + hashed),
        "an empty sequence": block(b"\x30\0"), "nothing": block(b""),
    }
    for comment, text in faults.items():
        add(f"the padded hash: {comment}", message, big(power(text) % n, 256), "signature", "Padding")
    for algorithm in ["sha1", "sha384", "sha512"]:
        add(f"signed over {algorithm}", message, big(power(block(info(message, algorithm))), 256), "signature", "Hash")
    add("signed by another key", message, big(pow(int.from_bytes(block(good), "big"), rsa_key("another", 2048, 65537)[1], n), 256), "signature", "Key")
    salt, masked = hashlib.sha256(b"salt").digest(), 223
    inner = hashlib.sha256(bytes(8) + hashed + salt).digest()
    mask = b"".join(hashlib.sha256(inner + big(i, 4)).digest() for i in range(7))[:masked]
    data = bytearray(a ^ b for a, b in zip(bytes(masked - 33) + b"\1" + salt, mask))
    data[0] &= 0x7F
    add("PSS instead of PKCS #1 1.5", message, big(power(bytes(data) + inner + b"\xbc"), 256), "signature", "Padding")

    n3, d3 = rsa_key("RS256 key 3", 2048, 3)
    v.keys["exponent 3"] = rsa_jwk(n3, 3)
    add("a good signature with exponent 3", message, big(pow(int.from_bytes(block(good), "big"), d3, n3), 256), None, "Exponent", key="exponent 3")
    # Bleichenbacher 2006: a cube root of a block with room for rubbish behind the hash needs no key.
    start = int.from_bytes(b"\0\1" + b"\xff" * 8 + b"\0" + good, "big") << 8 * (256 - 11 - len(good))
    end = start + (1 << 8 * (256 - 11 - len(good))) - 1
    low, high = 0, 1 << 700
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= end else (low, middle - 1)
    assert start <= low**3 <= end
    add("a cube root that needs no key", message, big(low, 256), "signature", "Exponent", key="exponent 3")
    v.keys["exponent 1"] = rsa_jwk(n, 1)
    add("exponent 1: the padded hash is its own signature", message, block(good), "signature", "Exponent", key="exponent 1")
    v.keys["exponent 2"] = rsa_jwk(n, 2)
    add("an even exponent", message, sign(message), "signature", "Exponent", key="exponent 2")
    v.keys["even modulus"] = rsa_jwk(n - 1, 65537)
    add("an even modulus", message, sign(message), "signature", "Key", key="even modulus")
    n1, d1 = rsa_key("RS256 key 1024", 1024, 65537)
    v.keys["1024 bits"] = rsa_jwk(n1, 65537)
    add("1024 bits", message, big(pow(int.from_bytes(block(good, 128), "big"), d1, n1), 128), "key", "Key", key="1024 bits")
    padded = rsa_jwk(n1, 65537)
    padded["n"] = b64(bytes(128) + big(n1, 128))
    v.keys["1024 bits and zeros"] = padded
    add("1024 bits and as many zeros", message, big(pow(int.from_bytes(block(good, 128), "big"), d1, n1), 128), "key", "Key", key="1024 bits and zeros")
    for name, more in [("for RS512", {"alg": "RS512"}), ("for PS256", {"alg": "PS256"}), ("for HS256", {"alg": "HS256"}), ("for encryption", {"use": "enc"})]:
        v.keys[name] = rsa_jwk(n, 65537) | more
        add(f"the key is {name}", message, sign(message), "key", "Key", key=name)
    inner = b"\x02\x82\x01\x01\0" + big(n, 256) + b"\x02\x03\x01\0\x01"
    pkcs1 = b"\x30\x82" + big(len(inner), 2) + inner
    bits = b"\x03\x82" + big(len(pkcs1) + 1, 2) + b"\0" + pkcs1
    spki = bytes.fromhex("300d06092a864886f70d0101010500") + bits
    spki = b"\x30\x82" + big(len(spki), 2) + spki
    text = base64.b64encode(spki).decode()
    pem = "-----BEGIN PUBLIC KEY-----\n" + "\n".join(text[i:i + 64] for i in range(0, len(text), 64)) + "\n-----END PUBLIC KEY-----\n"
    for comment, shared in [("PEM", pem.encode()), ("PEM without its line feed", pem.rstrip().encode()), ("DER", spki), ("PKCS #1", pkcs1), ("the modulus", big(n, 256))]:
        for name in ["HS256", "RS256"]:
            claims = v.message("confused", header={"alg": name, "typ": "JWT"})
            mac = hmac.new(shared, claims.encode(), "sha256").digest()
            v.add("key", f"an HMAC with the public key as a secret ({comment}), called {name}", f"{claims}.{b64(mac)}",
                  "algorithm" if name == "HS256" else "signature", "KeyConfusion")
    other = v.message("other", header={"alg": "ES256", "typ": "JWT"}).encode()
    add("a good signature that calls itself ES256", other, sign(other), "algorithm", "AlgorithmConfusion")
    return v


# --- HS256: HMAC with SHA-256 (RFC 2104)

def hs256():
    v = Vectors("HS256")
    secrets = {"key": b64(big(number("HS256 key", 256), 32)).encode(), "32 bytes": b"0123456789abcdef0123456789abcdef", "a block": b"b" * 64,
               "more than a block": b"c" * 65, "long": b64(big(number("long", 8192), 1024)).encode(), "not text": bytes(range(128, 192)),
               "a zero byte inside": b"0123456789abcdef\0" + b"0123456789abcdef"}
    for name, secret in secrets.items():
        v.keys[name] = {"kty": "oct", "k": b64(secret)}
    secret = secrets["key"]
    mac = lambda message, key=secret, algorithm="sha256": hmac.new(key, message, algorithm).digest()
    v.shape("key", mac)

    def add(comment, message, signature, reason=None, *flags, key="key"):
        v.add(key, comment, f"{message.decode()}.{b64(signature)}", reason, *flags)

    message = v.message("edges").encode()
    good = mac(message)
    for name, other in secrets.items():
        add(f"the secret: {name}", message, mac(message, other), None, "Key", key=name)
        if other is not secret:
            add(f"signed with another secret than: {name}", message, good, "signature", "Key", key=name)
    add("the hash of a secret that is longer than a block is the same secret (RFC 2104 §2)", message,
        mac(message, hashlib.sha256(secrets["more than a block"]).digest()), None, "Key", key="more than a block")
    for comment, other in [("decoded from base64", base64.urlsafe_b64decode(secret + b"=")), ("with a line feed", secret + b"\n"), ("with a byte more", secret + b"x"),
                           ("cut at 32 bytes", secret[:32]), ("in capitals", secret.upper()), ("empty", b""), ("zeros", bytes(32)), ("its hash", hashlib.sha256(secret).digest())]:
        add(f"the secret {comment}", message, mac(message, other), "signature", "Key")
    add("the secret cut at its zero byte", message, mac(message, b"0123456789abcdef"), "signature", "Key", key="a zero byte inside")
    for size in [1, 2, 8, 10, 16, 20, 31]:
        add(f"the first {size} bytes", message, good[:size], "signature", "Truncated")
    add("the last 16 bytes", message, good[16:], "signature", "Truncated")
    add("a zero byte more", message, good + b"\0", "signature", "Length")
    add("a zero byte before it", message, b"\0" + good, "signature", "Length")
    add("twice", message, good * 2, "signature", "Length")
    add("all zero", message, bytes(32), "signature", "Degenerate")
    add("all bits", message, b"\xff" * 32, "signature", "Degenerate")
    for at, bit in [(0, 1), (0, 128), (15, 1), (31, 1), (31, 128)]:
        flipped = bytearray(good)
        flipped[at] ^= bit
        add(f"byte {at} changed by {bit}", message, bytes(flipped), "signature", "Changed")
    for algorithm in ["sha1", "sha224", "sha384", "sha512", "sha3_256", "md5"]:
        add(f"an HMAC with {algorithm}", message, mac(message, algorithm=algorithm), "signature", "Hash")
    add("an HMAC with sha512, cut to 32 bytes", message, mac(message, algorithm="sha512")[:32], "signature", "Hash")
    add("a hash of secret and message, no HMAC", message, hashlib.sha256(secret + message).digest(), "signature", "Hash")
    add("a hash of the message", message, hashlib.sha256(message).digest(), "signature", "Hash")
    add("reversed", message, good[::-1], "signature", "Changed")
    return v


def main():
    check, differ = "--check" in sys.argv[1:], 0
    for make in (es256, eddsa, rs256, hs256):
        path, text = HERE / f"{make.__name__}.json", make().text()
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            differ += 1
            print(f"{path.name} is not what make.py makes", file=sys.stderr)
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
