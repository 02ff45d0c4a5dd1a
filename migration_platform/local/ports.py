"""Ports of this machine: which one is free, and on which one somebody listens."""

import random
import socket

from migration_platform.local import LocalStackError

LOCALHOST = "127.0.0.1"

# Outside the range from which Linux takes the ports of outgoing connections (32768 and above), so
# that no client can sit on the port between the choice and the server's start.
FREE_PORTS = range(15000, 30000)


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now.

    Raises:
        LocalStackError: No port could be bound in many attempts.
    """
    for port in random.sample(FREE_PORTS, 100):
        if port_is_free(port):
            return port
    raise LocalStackError(f"No free port was found on {LOCALHOST}.")


def port_is_free(port: int, address: str = LOCALHOST) -> bool:
    """Whether a server could listen on this port of an address of this machine."""
    with socket.socket() as probe:
        # Connections of an ended server linger for a minute; a listening server accepts this too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def port_is_open(port: int, address: str = LOCALHOST) -> bool:
    """Whether somebody accepts connections on this port of an address of this machine."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True
