"""What a service manager is told, by systemd's protocol: one datagram to the socket that `NOTIFY_SOCKET` names."""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """Tells the service manager of this process how it is; says nothing where there is none.

    It takes the variables out of the environment, so that no process below this one speaks in its name.

    Attributes:
        watchdog: seconds within which it must be told again that this process is alive; None: not wanted.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        period, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        meant = not pid or pid == str(os.getpid())
        self.watchdog = int(period) / 1e6 if address and meant and period.isdigit() and int(period) else None

    def tell(self, *states: str) -> None:
        """Send states such as `READY=1`; a manager that is not there is no error of ours."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto("\n".join(states).encode(), self._address)
