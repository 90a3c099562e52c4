"""All cases, by subject."""

from . import faults, floods, framing, headers, http2, requests, tls


def everything():
    for module in (framing, requests, headers, http2, floods, faults, tls):
        yield from module.cases()
