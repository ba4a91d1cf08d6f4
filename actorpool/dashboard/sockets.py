"""Where a dashboard listens."""

from __future__ import annotations

import ipaddress
import socket

MOST_CONNECTIONS = 128


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: the address is taken, or is none of this host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ours = socket.socket(family, socket.SOCK_STREAM)
    try:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind((host, port))
        ours.listen(MOST_CONNECTIONS)
    except BaseException:
        ours.close()
        raise
    return ours


def warning_of(ours: socket.socket) -> str:
    """What to say where others than this host can read it; "": only this host can."""
    host = ours.getsockname()[0]
    if ipaddress.ip_address(host).is_loopback:
        return ""
    return f"listens on {host}: whoever reaches that address can read all of this; nobody is asked for a password"


def url_of(ours: socket.socket) -> str:
    """Where a browser of this host finds it."""
    host, port = ours.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
