"""Hosts on one machine, each with its own network, hostname, processes, /tmp and /dev/shm, and a Ray node on each.

They are Linux namespaces behind one bridge, so a cable can be cut and a power supply too: a host without power sends no
FIN and no RST. Nothing has a name outside, so nothing is left: a namespace ends with its last process, and process 1 of
each ends with this process. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RAY = Path(sys.executable).with_name("ray")
PRIVATE = "/tmp/hosts-private"
"""A directory that each host has for itself, as it has /tmp/ray and /dev/shm."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"
STORE = 80_000_000
"""Bytes of each host's object store."""

OURS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "ACTORPOOL_RUNTIME_DIR": PRIVATE,
    "TMPDIR": "/tmp",
    "PYTHONWARNINGS": "ignore",
}


def why_no_ray() -> str | None:
    """Why there can be no such hosts with Ray here; None if there can."""
    if importlib.util.find_spec("ray") is None:
        return "ray is not installed: pip install 'actorpool[ray]'"
    return why_not()


def why_not() -> str | None:
    """Why there can be no such hosts here; None if there can."""
    if os.geteuid() != 0:
        return "hosts are network namespaces, for which this process must be root"
    missing = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (iproute2, util-linux)" if missing else None


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _namespace(words: list[str], script: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        ["unshare", *words, "sh", "-c", script], stdout=subprocess.PIPE, text=True, preexec_fn=_end_with_parent
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


class Host:
    """One of them.

    Attributes:
        name, address: its hostname and its address.
        pid: its process number 1, as seen from outside.
        boot_id: tells two boots of it apart.
    """

    def __init__(self, hosts: Hosts, number: int, role: str) -> None:
        self.hosts = hosts
        self.role = role
        self.name, self.address, self.port = f"h{number}", f"10.77.0.{number}", f"v{number}"
        mounts = f"mkdir -p {PRIVATE} /tmp/ray; for d in {PRIVATE} /tmp/ray /dev/shm; do mount -t tmpfs none $d; done"
        boot = f"cat /proc/sys/kernel/random/uuid >{PRIVATE}/boot; mount --bind {PRIVATE}/boot {BOOT_ID}"
        wait = "while :; do sleep 1000 & wait $!; done"
        script = f"hostname {self.name}; ip link set lo up; {mounts}; {boot}; echo up; {wait}"
        self.process = _namespace(["-n", "-u", "-p", "-m", "-f", "--mount-proc", "--kill-child"], script)
        self.pid = int(run("pgrep", "-P", str(self.process.pid)).split()[0])
        self.boot_id = run("nsenter", "-t", str(self.pid), "-m", "-p", "cat", BOOT_ID).strip()
        peer = ("type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        run("ip", "link", "add", self.port, "netns", str(hosts.switch.pid), *peer)
        hosts.at_switch("ip", "link", "set", self.port, "master", "br0", "up")
        self.ip("addr", "add", f"{self.address}/16", "dev", "eth0")
        self.ip("link", "set", "eth0", "up")

    def ip(self, *words: str) -> str:
        return run("nsenter", "-t", str(self.pid), "-n", "ip", *words)

    def popen(self, words: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a program there."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "-u", "-p", "-m"]
        return subprocess.Popen([*enter, *words], text=True, preexec_fn=_end_with_parent, **options)

    def up(self) -> None:
        """Start Ray's part; the first host has the head."""
        head = self.hosts.all[0]
        words = [str(RAY), "start", f"--node-ip-address={self.address}", "--num-cpus=1", "--num-gpus=0"]
        words += [f"--object-store-memory={STORE}", "--disable-usage-stats", f"--labels=role={self.role}"]
        words += (
            ["--head", "--port=6379", "--include-dashboard=false"]
            if self is head
            else [f"--address={head.address}:6379"]
        )
        done = self.popen(words, env=self.hosts.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = done.communicate(timeout=120)[0]
        assert done.returncode == 0, said

    def cut(self) -> None:
        """Pull the cable: nothing comes or goes, and nobody is told."""
        self.hosts.at_switch("ip", "link", "set", self.port, "down")

    def mend(self) -> None:
        """Plug it in again."""
        self.hosts.at_switch("ip", "link", "set", self.port, "up")

    def power_off(self) -> None:
        """Pull the cable, then the plug."""
        self.cut()
        os.kill(self.pid, signal.SIGKILL)

    def find(self, text: str) -> list[int]:
        """Its processes with this in their command line, as numbered outside."""
        wanted, found = os.readlink(f"/proc/{self.pid}/ns/pid"), []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{name}/ns/pid") == wanted:
                    command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if text in command:
                        found.append(int(name))
            except OSError:
                pass
        return sorted(found)

    def program(self, *words: str) -> Program:
        """Start a Python program there."""
        return Program(self, words)


class Hosts:
    """A cluster: the first host has Ray's head.

    Args:
        roles: of each host, as its label `role`.
        env: for Ray and all programs, beside ours.
        ray: False: hosts without Ray.
    """

    def __init__(self, roles: list[str], env: dict[str, str], ray: bool = True) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.env = {**os.environ, **OURS, **env, "PYTHONPATH": path}
        self.env.pop("RAY_ADDRESS", None)
        self.programs: list[Program] = []
        self.all: list[Host] = []
        self.switch = _namespace(["-n"], "echo up; exec sleep infinity")
        try:
            self.at_switch("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
            self.at_switch("ip", "link", "set", "br0", "up")
            for number, role in enumerate(roles, 1):
                self.all.append(Host(self, number, role))
            self._resolve()
            for host in self.all if ray else ():  # in turn: all at once they may be too slow for each other
                host.up()
        except BaseException:
            self.close()
            raise

    def _resolve(self) -> None:
        """Know all addresses, as behind a router: a lost host is silence, not an error of the network."""
        links = {host: host.ip("-o", "link", "show", "eth0").split("link/ether ")[1].split()[0] for host in self.all}
        for host in self.all:
            for other in self.all:
                if other is not host:
                    words = ("neigh", "replace", other.address, "lladdr", links[other], "dev", "eth0")
                    host.ip(*words, "nud", "permanent")

    def reset(self, host: Host) -> Host:
        """Plug a host without power in again: the same name and address, other processes, an empty memory."""
        host.process.wait(10)
        assert host.process.stdout is not None
        host.process.stdout.close()
        with contextlib.suppress(subprocess.CalledProcessError):  # it goes with the host, in a while
            self.at_switch("ip", "link", "del", host.port)
        again = self.all[self.all.index(host)] = Host(self, self.all.index(host) + 1, host.role)
        self._resolve()
        return again

    def at_switch(self, *words: str) -> str:
        return run("nsenter", "-t", str(self.switch.pid), "-n", *words)

    def close(self) -> None:
        for program in self.programs:
            program.process.kill()
            program.process.wait()
        for process in [*(host.process for host in self.all), self.switch]:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for program in self.programs:
            program.close()

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Program:
    """A Python program on a host. It prints lines, and does what it reads.

    Attributes:
        lines: what it has printed, each with the moment at which it came (`time.monotonic()`).
    """

    def __init__(self, host: Host, words: tuple[str, ...]) -> None:
        env = {**host.hosts.env, "RAY_ADDRESS": f"{host.hosts.all[0].address}:6379"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = host.popen([sys.executable, "-u", *words], env=env, cwd=str(ROOT), **pipes)
        self.lines: list[tuple[float, str]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        host.hosts.programs.append(self)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append((time.monotonic(), line.rstrip()))
                self._news.notify_all()

    def tell(self, line: str) -> None:
        """Have it read a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def wait(self, matches: Callable[[str], bool], timeout: float = 60.0, after: float = 0.0) -> tuple[float, str]:
        """The first line that matches, printed later than `after`, and its moment."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                for moment, line in self.lines:
                    if moment >= after and matches(line):
                        return moment, line
                left = deadline - time.monotonic()
                assert left > 0, "\n".join(line for _, line in self.lines[-40:])
                self._news.wait(left)

    def close(self) -> None:
        self._reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # it has ended with something unread
                    pipe.close()
