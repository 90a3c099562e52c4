"""Certificates for the time of a test, by openssl."""

from .programs import run

NEW = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
DAYS = ["-days", "2"]


def named(names):
    return "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)


def self_signed(folder, stem, *names):
    """<stem>.pem for these names, and <stem>.key."""
    run("openssl", "req", "-x509", *NEW, *DAYS, "-keyout", f"{stem}.key", "-out", f"{stem}.pem", "-subj", f"/CN={names[0]}", "-addext", named(names), cwd=folder)


def of_an_authority(folder, *names):
    """ca.pem, and for these names cert.pem with key.pem, which it has issued."""
    run("openssl", "req", "-x509", *NEW, *DAYS, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign", cwd=folder)
    run("openssl", "req", *NEW, "-keyout", "key.pem", "-out", "request.pem", "-subj", f"/CN={names[0]}", cwd=folder)
    (folder / "extensions").write_text(f"{named(names)}\nextendedKeyUsage=serverAuth\n")
    run("openssl", "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", *DAYS, "-out", "cert.pem",
        "-extfile", "extensions", cwd=folder)
