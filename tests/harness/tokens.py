"""An issuer's keys, and its tokens."""

from .programs import run


def keys(folder, stem="issuer"):
    """<stem>.pem, which signs, and <stem>.pub, which checks."""
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{stem}.pem", cwd=folder)
    run("openssl", "pkey", "-in", f"{stem}.pem", "-pubout", "-out", f"{stem}.pub", cwd=folder)


def mint(program, key, subject, *more):
    """One that the gateway's program makes. `more`: its options."""
    return run(program, "token", "mint", "--key", key, "--algorithm", "ES256", "--issuer", "https://issuer.test", "--subject", subject, *more)
