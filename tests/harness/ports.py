#!/usr/bin/env python3
"""Ports for programs that are told on which to listen.

A port that the kernel chooses is of the range from which it also takes those of outgoing connections: before the program listens, any other
may have it. So these are not of that range. Whoever binds a port and keeps it may well ask the kernel for one.

    tests/harness/ports.py [COUNT]      for scripts in other languages: prints so many
"""

import pathlib
import random
import socket
import sys

RANGE = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
# Browsers refuse some ports, of which 10080 is the highest.
LOWEST = 10_081
ENOUGH = 1_000

given = set()


def outside():
    """What the kernel does not take by itself; where that is next to nothing, all."""
    first, last = map(int, RANGE.read_text().split()) if RANGE.exists() else (32_768, 65_535)
    every = range(LOWEST, 65_536)
    ports = [port for port in every if not first <= port <= last]
    return ports if len(ports) >= ENOUGH else every


def is_free(port):
    """On all addresses, so on each."""
    with socket.socket() as tried:
        try:
            tried.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def free_port():
    """One that nothing has now, and that this process was not given before."""
    ports = outside()
    for port in random.sample(ports, len(ports)):
        if port not in given and is_free(port):
            given.add(port)
            return port
    sys.exit("no port is free")


def free_ports(names):
    """One for each name."""
    return {name: free_port() for name in names}


if __name__ == "__main__":
    print(*free_ports(range(int((sys.argv[1:] or [1])[0]))).values())
