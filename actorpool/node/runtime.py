"""The runtime directory: what names a node, keeps its cookie and holds its sockets.

`${ACTORPOOL_RUNTIME_DIR:-$XDG_RUNTIME_DIR or /tmp}/actorpool-<uid>/<name>/`, 0700, with `cookie` (0600), `node.json`,
`node.log`, and sockets: `manager`, those of the pools and workers, and one of each actor for Thespian's messages.
A node holds a lock on its directory while it lives, so one without a holder is what a killed node left, whatever its
files say. A cleaner of old files passes by what is locked (systemd-tmpfiles does); what another one takes,
`RuntimeDirectory.tend` puts back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
from dataclasses import asdict, fields

from actorpool import __version__, process
from actorpool._dataclass import dataclass
from actorpool.errors import AuthenticationFailed, InvalidConfig, SystemDown
from actorpool.node import names
from actorpool.transport import paths

log = logging.getLogger("actorpool")

ANONYMOUS = "_"
"""First letter of the names made up for nodes that were given none; a given name cannot begin with it."""
_MADE_UP = re.compile(ANONYMOUS + r"[0-9a-f]{8}\Z")
PROTOCOL = 2
"""Raised when the two sides of the channel or the internal messages no longer understand each other."""
KEPT = "node.log"
DASHBOARD = "dashboard"
"""The file with the address of the node's dashboard."""
MANAGER = "manager"
"""The manager's id below the root supervisor."""
_COOKIE_BYTES = 32
PATIENCE = 2.0
"""Seconds to wait for the files of a node that lives: it is about to serve, or they were removed."""
_LOOK_EVERY = 0.02
TEND_EVERY = 1.0
TOUCH_EVERY = 600.0
"""Seconds; the shortest age at which cleaners of files begin is an hour."""
SWEEP_EVERY = 60.0
_YOUNG = 10.0
"""Seconds in which a socket may have been bound and not served yet."""
_PRIVATE = 0o600


@dataclass(frozen=True)
class NodeFacts:
    """What `node.json` says about a serving node.

    `started` is as in `process.start_time`; `admin` and `root` are where these two actors listen: the path of a socket,
    or a port of loopback.
    """

    name: str
    pid: int
    started: float
    version: str
    protocol: int
    base: str = ""
    admin: str | int = 0
    root: str | int = 0
    fingerprint: str = ""

    def alive(self) -> bool:
        """Whether that very process runs."""
        return process.start_time(self.pid) == self.started


def root() -> str:
    """Where the nodes of this user are; made if need be.

    Raises:
        AuthenticationFailed: it is a link, or another user's.
        SystemDown: it cannot be made.
    """
    path = names.top()
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _private_directory(path)
    except OSError as error:
        advice = "set ACTORPOOL_RUNTIME_DIR to a directory that you may write to"
        raise SystemDown(f"no nodes can be kept in {path}: {error}; {advice}", cause=error) from error
    return path


def _private_directory(path: str) -> None:
    """Make a directory 0700, or make sure that it belongs to this user."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        what = "is no directory" if not stat.S_ISDIR(found.st_mode) else f"belongs to uid {found.st_uid}"
        raise AuthenticationFailed(
            f"{path} {what}: no key is put there (uid {os.geteuid()}); remove it, or set ACTORPOOL_RUNTIME_DIR"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.chmod(path, 0o700)


class RuntimeDirectory:
    """A directory locked by the node that runs in this process.

    Attributes:
        path, name: where it is and the node's name.
        cookie: the key of this node, made anew for each.
        lock: the descriptor whose lock says that the node lives; a forked process must close it.
    """

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.lock = lock
        self._texts: dict[str, str] = {}
        self._touch_at = self._sweep_at = 0.0
        self._gone = False
        self._clear()
        self.cookie = secrets.token_bytes(_COOKIE_BYTES)
        self._write("cookie", self.cookie.hex())

    @classmethod
    def claim(cls, name: str | None) -> RuntimeDirectory:
        """Take the directory of that name, or a new one for a node without a name. Removes what killed nodes left.

        Raises:
            InvalidConfig: the name is bad, its node is running, or a socket's path would be too long.
            AuthenticationFailed: the directory is not ours.
        """
        names.check(name)
        top = root()
        sweep()
        looks = 3
        while True:
            path = os.path.join(top, name or ANONYMOUS + secrets.token_hex(4))
            if not paths.fits(paths.manager(path)):
                text = f"{paths.manager(path)} has more than the {paths.LONGEST_PATH} bytes a socket's path may have"
                raise InvalidConfig("system", {"name": f"{text}: set ACTORPOOL_RUNTIME_DIR to a shorter one"})
            try:
                _private_directory(path)
                lock = _lock(path)
            except FileNotFoundError:
                continue  # removed meanwhile by a node that ends, or by a sweep
            if lock is not None:
                return cls(path, lock)
            if name is not None and not looks:
                raise InvalidConfig("system", {"name": f"a node named {name!r} is running: connect to it, or stop it"})
            looks -= 1  # it may just have been looked at by `names.is_held`
            time.sleep(_LOOK_EVERY / 4)

    def publish(self, facts: NodeFacts) -> None:
        """Let other processes find this node."""
        self._write("node.json", json.dumps(asdict(facts)))

    def tend(self, now: float) -> None:
        """Put back what was removed, keep everything young, and remove the sockets of processes that are gone.

        Runs in: the node, every `TEND_EVERY` seconds. Never raises.

        Args:
            now: monotonic seconds.
        """
        try:
            for name, text in self._texts.items():
                if not os.path.lexists(os.path.join(self.path, name)):
                    self._write(name, text)
                    log.warning("%s was removed from %s and is put back", name, self.path)
            if now >= self._touch_at:
                self._touch_at = now + TOUCH_EVERY
                self._touch()
            if now >= self._sweep_at:
                self._sweep_at = now + SWEEP_EVERY
                self._sweep()
        except OSError as error:
            if not self._gone:
                self._gone = True
                log.error("%s: nobody can connect to this node any more, stop it and start it anew", error)

    def _touch(self) -> None:
        os.utime(self.path)
        for entry in os.scandir(self.path):
            with contextlib.suppress(FileNotFoundError):
                os.utime(entry.path, follow_symlinks=False)

    def _sweep(self) -> None:
        for entry in os.scandir(self.path):
            with contextlib.suppress(FileNotFoundError):
                aged = time.time() - entry.stat(follow_symlinks=False).st_mtime > _YOUNG
                if aged and paths.is_actor(entry.name) and not paths.is_served(entry.path):
                    os.unlink(entry.path)

    def release(self) -> None:
        """Remove it all; a node with a name leaves its log."""
        self._clear()
        if self.name.startswith(ANONYMOUS):
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)

    def _clear(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # it was removed by other code
            for entry in os.scandir(self.path):
                if entry.name != KEPT:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)

    def _write(self, name: str, text: str) -> None:
        """Put a file there at once, whole, readable by this user only; `tend` keeps it there."""
        draft = os.path.join(self.path, f".{name}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        with open(private_file(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW), "w") as file:
            file.write(text)
        os.rename(draft, os.path.join(self.path, name))
        self._texts[name] = text


def private_file(path: str, flags: int) -> int:
    """Open a file; one that is made by it is this user's alone, whatever the umask says."""
    flags |= os.O_CLOEXEC
    if not flags & os.O_CREAT:
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_EXCL, _PRIVATE)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return os.open(path, flags)
    os.fchmod(descriptor, _PRIVATE)
    return descriptor


def _lock(path: str) -> int | None:
    """Lock a directory for this process; None if another process has it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino != os.stat(path).st_ino:
            raise FileNotFoundError(path)  # its holder ended and removed it between our open and our lock
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def sweep() -> None:
    """Remove the directories of unnamed nodes that were killed."""
    for entry in os.scandir(root()):
        if not entry.name.startswith(ANONYMOUS):
            continue
        with contextlib.suppress(OSError):  # ending just now, or being swept by another process
            lock = _lock(entry.path)
            if lock is not None:
                shutil.rmtree(entry.path, ignore_errors=True)
                os.close(lock)


def fingerprint(cookie: bytes) -> str:
    """What shows that a cookie is the node's without showing the cookie."""
    return hashlib.blake2b(b"actorpool node", key=cookie, digest_size=16).hexdigest()


def serves(directory: str) -> bool:
    """Whether the node of a runtime directory is there (its actors may be busy restarting)."""
    facts = _facts(directory)
    return facts.alive() if facts is not None else names.is_held(directory)


def running() -> list[str]:
    """The names of this user's serving nodes, sorted; those without a given name begin with `_`."""
    top = root()
    found = ((name, _facts(os.path.join(top, name))) for name in os.listdir(top))
    return sorted(name for name, facts in found if facts is not None and facts.alive())


def find(name: str) -> tuple[str, NodeFacts, bytes]:
    """The directory, the facts and the cookie of a running node; waits `PATIENCE` for one that is about to serve.

    Raises:
        SystemDown: no such node runs, or it is of a version this process cannot talk to.
        AuthenticationFailed: the cookie is missing, readable by others, or not the node's.
    """
    if not (isinstance(name, str) and _MADE_UP.match(name)):
        names.check(name)
    path = os.path.join(root(), name)
    deadline = time.monotonic() + PATIENCE
    while not _is_complete(path) and names.is_held(path) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
    facts = _facts(path)
    if facts is None or not facts.alive():
        known = ", ".join(running()) or "none"
        raise SystemDown(
            f"no node named {name!r} runs (looked in {os.path.dirname(path)}; running: {known}): "
            f"start it with actorpool.start({name!r})"
        )
    if facts.protocol != PROTOCOL:
        raise SystemDown(
            f"node {name!r} is of actorpool {facts.version} (protocol {facts.protocol}), this process of {__version__} "
            f"(protocol {PROTOCOL}): use one version on both sides, or restart the node"
        )
    return path, facts, _cookie(path, facts)


def _is_complete(path: str) -> bool:
    return all(os.path.exists(os.path.join(path, file)) for file in ("node.json", "cookie"))


def _facts(path: str) -> NodeFacts | None:
    try:
        with open(os.path.join(path, "node.json")) as file:
            found = json.load(file)
        return NodeFacts(**{item.name: found[item.name] for item in fields(NodeFacts) if item.name in found})
    except (OSError, ValueError, TypeError):  # not serving
        return None


def _cookie(path: str, facts: NodeFacts) -> bytes:
    file = os.path.join(path, "cookie")
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW)) as opened:
            found = os.fstat(opened.fileno())
            cookie = bytes.fromhex(opened.read())
    except (OSError, ValueError) as error:
        raise AuthenticationFailed(f"the cookie of node {facts.name!r} cannot be read: {error}", cause=error) from error
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        mode = oct(stat.S_IMODE(found.st_mode))
        raise AuthenticationFailed(f"{file} is of uid {found.st_uid}, mode {mode}: it must be yours alone (0600)")
    if not secrets.compare_digest(fingerprint(cookie), facts.fingerprint):
        raise AuthenticationFailed(f"{file} is not the cookie that node {facts.name!r} (pid {facts.pid}) started with")
    return cookie
