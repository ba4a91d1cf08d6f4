"""What the operating system knows about processes: identities, links, death watches, kills.

Everything here is about *this* host. A process is named by (host, pid, start time), so a recycled pid is never
mistaken for the process that had it before.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from actorpool._dataclass import dataclass

LINUX = sys.platform.startswith("linux")
if not LINUX:
    import psutil  # on Linux the kernel's own files tell more quickly

HOST = socket.gethostname()
"""What people call this host. It may be renamed while we run, so it tells nothing apart."""


def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot:
            return f"{boot.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return HOST


MACHINE = _machine()
"""Where a pid of ours means a process: this boot of this host, and this namespace of pids."""
OOM_SCORE = 500
"""Of a worker, in thousandths of the machine's memory that the kernel adds to what it uses."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True) if LINUX else None
CAN_LINK = _libc is not None
"""Whether the kernel can end a process with its parent."""


@dataclass(frozen=True)
class Caller:
    """A process that asks for something; taken where the request is made.

    `machine`: where its pid means something, see `MACHINE`; "": on the host of that name.
    """

    host: str = field(compare=False)
    pid: int
    started: float
    machine: str = ""

    def __post_init__(self) -> None:
        if not self.machine:
            object.__setattr__(self, "machine", MACHINE if self.host == HOST else self.host)

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this host that can be seen from here."""
        return self.machine == MACHINE

    @classmethod
    def here(cls) -> Caller:
        """The calling process (cheap: made once for each process)."""
        global _here
        if _here is None or _here.pid != os.getpid():
            _here = cls(HOST, os.getpid(), start_time(os.getpid()) or 0.0)
        return _here

    def alive(self) -> bool:
        """Whether that very process still runs (True for a process of another host: not ours to say)."""
        return not self.is_here or start_time(self.pid) == self.started


_here: Caller | None = None


def start_time(pid: int) -> float | None:
    """When the process started, in clock ticks since boot on Linux; None when it is gone or a zombie."""
    if LINUX:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else float(fields[19])
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def began(pid: int) -> float | None:
    """The Unix time when the process started; None when it is gone."""
    started = start_time(pid)
    if started is None or not LINUX:
        return started
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + started / os.sysconf("SC_CLK_TCK")


def alive(pid: int) -> bool:
    """Whether a process of that pid runs (a zombie does not)."""
    return start_time(pid) is not None


def exit_status(pid: int | None) -> int | None:
    """How a child of this process ended, without reaping it: its exit status, or minus the signal that ended it.

    None where nothing can be told: it runs, was reaped already, or the platform cannot look without reaping.
    """
    if not pid or not hasattr(os, "waitid"):
        return None
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def ending(status: int) -> str:
    """An exit status, or minus a signal, in words: "exit status 3", "killed by SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    names = {member.value: member.name for member in signal.Signals}
    return f"killed by {names.get(-status, f'signal {-status}')}"


def watch_descriptor(pid: int) -> int | None:
    """A pidfd, readable once the process is dead; None where the kernel has none (then poll instead).

    Raises:
        ProcessLookupError: the process is already gone.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None


def link_to_parent(expected: int | None = None) -> None:
    """Die with the parent, enforced by the kernel; at once if the parent `expected` is already gone.

    Runs in: every actor process, first thing. On platforms without `prctl` it does nothing.
    """
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if expected is not None and os.getppid() != expected:
        os._exit(0)


def die_of_faults() -> None:
    """Let a fault of the processor end this process, as it does without Thespian.

    Thespian gives every signal a handler in Python. For a fault that handler never gets to run: the instruction is
    repeated for ever, and a crash in a C library becomes a process that spins and hears nothing.

    Runs in: every actor process, before its first message is looked at.
    """
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP):
        signal.signal(number, signal.SIG_DFL)


STACK_SIGNAL = getattr(signal, "SIGRTMIN", None) and signal.SIGRTMIN + 3
"""Has a worker write its Python stack into `stack_file`, wherever it is; None where there are no such signals."""

stack_file: int | None = None
"""In a pool and its workers: the file in memory that their stacks go to."""


def tell_faults() -> None:
    """Write the Python stack of a native crash to descriptor 2, and at `STACK_SIGNAL` that of the moment.

    Runs in: every worker process, before its first message is looked at. Neither needs the interpreter to go on.
    """
    faulthandler.enable(file=2)
    if STACK_SIGNAL is not None and stack_file is not None:
        faulthandler.register(STACK_SIGNAL, file=stack_file, all_threads=True)


def program(pid: int) -> str:
    """What a process of this host runs: a script's or a module's name, else its executable's; "" if that is not told.

    Its arguments are never told.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return ""
    name = os.path.basename(words[0]) if words else ""
    if name.startswith("python") and len(words) > 1:
        if words[1] == "-m" and len(words) > 2:
            return words[2]
        if not words[1].startswith("-"):
            return os.path.basename(words[1])
    return name


def memory(pid: int | None) -> int | None:
    """Bytes that a process has, with its share of what it has together with others; None if that cannot be seen."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            kilobytes = next(line.split()[1] for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):  # gone, another's, or no Linux
        return None
    return int(kilobytes) << 10


def prefer_for_oom() -> None:
    """Be the kernel's first choice when memory runs out, and with this process whatever it starts."""
    with contextlib.suppress(OSError, ValueError):  # no such file elsewhere; a container may forbid it
        with open("/proc/self/oom_score_adj") as file:
            if int(file.read()) >= OOM_SCORE:
                return
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(OOM_SCORE))


# -- forks ------------------------------------------------------------------------------------------------------------

is_copy = False
"""Whether this process was forked by code that an actor runs, and is not an actor itself."""
_linking: int | None = None
_is_actor = False
_PLAIN: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGPIPE: signal.SIG_IGN,
    signal.SIGXFSZ: signal.SIG_IGN,
}


def become_actor() -> None:
    """From now on this is the process of an actor: whatever its code forks is an ordinary process.

    A fork finds the signal handlers of a fresh interpreter instead of the actor's, and no signal is blocked in either.
    (Handlers that user code has set are inherited as anywhere.) Should it leave the code that forked it, it ends
    where that returns to the actor: see `end_copy`.

    Runs in: every actor process, before its first message is looked at.
    """
    global is_copy, _is_actor
    is_copy, _is_actor = False, True
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def end_copy(error: BaseException | None = None) -> None:
    """End this process if it is a forked copy of an actor, with the status that an interpreter would have.

    Args:
        error: what it raised.
    """
    if not is_copy:
        return
    status = 0
    try:
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = int(error.code or 0) & 0xFF
        elif error is not None:
            status = 1
            sys.stderr.write(f"{error.code}\n" if isinstance(error, SystemExit) else _text(error))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _after_fork() -> None:
    global is_copy, _is_actor, _linking
    parent, _linking = _linking, None  # what is forked from here is another process's affair
    was_actor, _is_actor = _is_actor, False
    if parent is not None:
        link_to_parent(parent)
    elif was_actor:
        is_copy = True
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler) and str(getattr(handler, "__module__", "")).startswith(("thespian.", "actorpool.")):
                signal.signal(number, _PLAIN.get(number, signal.SIG_DFL))


os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def linked_forks() -> Iterator[None]:
    """A child that is forked meanwhile is linked to this process from its first instant, before its own code runs."""
    global _linking
    _linking = os.getpid()
    try:
        yield
    finally:
        _linking = None


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, instead of init; they must then be reaped here.

    Runs in: the node, every actor process. On platforms without `prctl` it does nothing.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def send_signal(pid: int | None, number: int) -> bool:
    """Signal a process; False when there is none. Never signals this process itself or a group."""
    if not pid or pid <= 1 or pid == os.getpid():
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int | None) -> bool:
    """SIGKILL a process; False when there is none."""
    return send_signal(pid, signal.SIGKILL)
