"""A stand-in for pool and workers: real processes, real lanes, the real wire, and no actor system.

The pool hands out idle workers, lets callers queue, and ends a holder's leases with its connection. It starts in
milliseconds, so the client's side can be tested and measured by itself.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actorpool import process
from actorpool._protocol import requests
from actorpool._protocol.requests import HandleFacts
from actorpool.client._blocking import THREADS, drive
from actorpool.client._channel import ManagerAsker
from actorpool.errors import CheckoutTimeout, MethodNotFound, PoolFull
from actorpool.messages import ListPools
from actorpool.node import runtime
from actorpool.node.runtime import NodeFacts
from actorpool.serialization import pickling
from actorpool.status import LeaseInfo, PoolStatus, WorkerInfo
from actorpool.transport import bodies, client, frames, spinwait
from actorpool.transport.client import ClientConn, NotDelivered
from actorpool.transport.paths import Endpoint
from actorpool.transport.server import ChannelServer, ServerConn

ROOT = Path(__file__).resolve().parent.parent.parent


def fork(target: Any, *args: Any) -> int:
    """Run `target` in a child that dies with this process."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            process.link_to_parent(parent)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            target(*args)
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            os._exit(code)
    return pid


def add(_connection: Any, left: Any, right: Any) -> Any:
    """A function that every process can import."""
    return left + right


class Interrupted(BaseException):
    pass


class WorkerHandler:
    """Runs calls as a worker actor does, with a fence, a reset count and SIGUSR2 as the interrupt."""

    def __init__(self) -> None:
        self.fence = 0
        self.resets = 0
        self.running = 0
        self.unavailable = 0
        signal.signal(signal.SIGUSR2, self.interrupt)

    def interrupt(self, *_: Any) -> None:
        if self.running:
            raise Interrupted

    def on_gone(self, peer: ServerConn) -> None:
        pass

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        if kind == frames.CALL:
            self.call(peer, ref, body)
        elif kind == frames.END:
            self.fence = max(self.fence, ref + 1)
            self.resets += 1

    def call(self, peer: ServerConn, ref: int, body: bytes | memoryview) -> None:
        lease, flags, _seal = frames.CALL_HEAD.unpack_from(body)
        if lease < self.fence:
            peer.send(frames.NOT_STARTED, ref, pickling.dumps(("expired", None)))
            return
        if self.unavailable:
            self.unavailable -= 1
            cause = frames.dump_error(ConnectionError("not now"))
            peer.send(frames.NOT_STARTED, ref, pickling.dumps(("unavailable", cause)))
            return
        self.fence = lease
        try:
            what, args, kwargs = pickling.loads(memoryview(body)[frames.CALL_HEAD.size :])
            self.running = lease
            call = functools.partial(what, self) if flags & frames.FUNCTION else self.method(what)
            result = call(*args, **kwargs)
            self.running = 0
            answer = frames.RESULT, pickling.dumps(result)
        except BaseException as error:
            self.running = 0
            answer = frames.ERROR, frames.dump_error(error)
        peer.send(answer[0], ref, answer[1])
        if flags & frames.LAST:
            self.resets += 1
            self.fence = max(self.fence, lease + 1)

    def method(self, name: str) -> Any:
        method = getattr(self, f"do_{name}", None)
        if method is None:
            raise MethodNotFound(f"no method {name!r}")
        return method

    def do_echo(self, value: Any) -> Any:
        return value

    def do_begin_block(self) -> None:
        pass

    def do_end_block(self, _commit: bool = True) -> None:
        pass

    def do_pid(self) -> int:
        return os.getpid()

    def do_sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def do_die(self) -> None:
        os._exit(3)

    def do_be_unavailable(self, times: int) -> None:
        self.unavailable = times

    def do_reset_count(self) -> int:
        return self.resets


def work(directory: str, spinning: float) -> None:
    server = ChannelServer(f"{directory}/{os.getpid()}.w", WorkerHandler(), spin=spinning)
    while True:
        select.select([server.descriptor], [], [])
        server.serve(idle=0.001)


class PoolHandler:
    """The least pool that keeps the wire's promises."""

    def __init__(self, directory: str, size: int, spinning: float) -> None:
        self.directory, self.size, self.spinning = directory, size, spinning
        self.idle: deque[int] = deque()
        self.pids: dict[int, int] = {}
        self.waiting: deque[tuple[ServerConn, int, float]] = deque()
        self.leases: dict[int, tuple[ServerConn, int, int]] = {}
        self.last_lease = 0
        self.last_worker = 0
        for _ in range(size):
            self.start()

    def start(self) -> None:
        self.last_worker += 1
        id = self.last_worker
        pid = self.pids[id] = fork(work, self.directory, self.spinning)
        deadline = time.monotonic() + 5
        while not os.path.exists(f"{self.directory}/{pid}.w") and time.monotonic() < deadline:
            time.sleep(0.0005)
        self.free(id)

    def run(self, name: str) -> None:
        self.server = ChannelServer(f"{self.directory}/{name}.pool", self, spin=self.spinning)
        while True:
            select.select([self.server.descriptor], [], [], 0.02)
            self.server.serve(idle=0.001)
            self.bury()
            self.expire()

    def bury(self) -> None:
        while True:
            pid = 0
            with contextlib.suppress(ChildProcessError):
                pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            id = next(id for id, known in self.pids.items() if known == pid)
            del self.pids[id]
            if id in self.idle:
                self.idle.remove(id)
            for lease, (_, worker, _ref) in list(self.leases.items()):
                if worker == id:
                    del self.leases[lease]
            self.start()

    def expire(self) -> None:
        now = time.monotonic()
        for item in [item for item in self.waiting if item[2] <= now]:
            self.waiting.remove(item)
            item[0].send(frames.ERROR, item[1], frames.dump_error(CheckoutTimeout("too late", waited=1.0)))

    def free(self, worker: int) -> None:
        while self.waiting:
            peer, ref, _ = self.waiting.popleft()
            if peer.open:
                self.grant(peer, ref, worker)
                return
        self.idle.append(worker)

    def grant(self, peer: ServerConn, ref: int, worker: int) -> None:
        self.last_lease += 1
        self.leases[self.last_lease] = (peer, worker, ref)
        peer.send(frames.GRANT, ref, frames.GRANT_BODY.pack(self.last_lease, worker, self.pids[worker], 0, 0))

    def end(self, lease: int, abandoned: bool = False) -> None:
        _, worker, _ = self.leases.pop(lease, (None, None, None))
        if worker is None:
            return
        if abandoned:
            os.kill(self.pids[worker], signal.SIGUSR2)
        self.free(worker)

    def on_gone(self, peer: ServerConn) -> None:
        for lease, (holder, _, _) in list(self.leases.items()):
            if holder is peer:
                self.end(lease, abandoned=True)

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        if kind == frames.CHECKOUT:
            timeout, block, *_ = bodies.checkout(body)
            if self.idle:
                self.grant(peer, ref, self.idle.pop())
            elif not block:
                peer.send(frames.ERROR, ref, frames.dump_error(PoolFull("full", pool="db")))
            else:
                self.waiting.append((peer, ref, time.monotonic() + timeout))
        elif kind == frames.CHECKIN:
            self.end(ref)
        elif kind == frames.ABANDON:
            self.end(ref, abandoned=True)
        elif kind == frames.CANCEL:
            self.cancel(peer, ref)
        elif kind == frames.ASK:
            self.ask(peer, ref, pickling.loads(body))

    def cancel(self, peer: ServerConn, ref: int) -> None:
        for item in list(self.waiting):
            if item[:2] == (peer, ref):
                self.waiting.remove(item)
        for lease, (holder, _, asked) in list(self.leases.items()):
            if (holder, asked) == (peer, ref):
                self.end(lease)

    def ask(self, peer: ServerConn, ref: int, request: Any) -> None:
        answers = {
            requests.Facts: HandleFacts,
            requests.Status: lambda: PoolStatus(
                "db", "ready", self.size, 0, len(self.idle), len(self.waiting), len(self.leases), len(self.pids)
            ),
            requests.Leases: lambda: [
                LeaseInfo(id, worker, peer.pid, process.HOST, 0.0) for id, (peer, worker, _) in self.leases.items()
            ],
            requests.Workers: lambda: [
                WorkerInfo(id, pid, "idle" if id in self.idle else "busy", 0, 0, None, False)
                for id, pid in self.pids.items()
            ],
        }
        answer = answers.get(type(request))
        if answer is None:
            peer.send(frames.ERROR, ref, frames.dump_error(TypeError(f"not understood: {request!r}")))
        else:
            peer.send(frames.REPLY, ref, pickling.dumps(answer()))


class ManagerHandler:
    """Node and manager in one: starts the pool, starts it again when it dies, knows its name."""

    def __init__(self, directory: str, name: str, size: int, spinning: float) -> None:
        self.directory, self.name, self.size, self.spinning = directory, name, size, spinning
        self.pool: int | None = None
        self.stopped = False
        self.delay = 0.0

    def run(self) -> None:
        process.link_to_parent()
        server = ChannelServer(f"{self.directory}/manager", self, spin=0.0)
        facts = NodeFacts("standin", os.getpid(), process.start_time(os.getpid()) or 0.0, "0", runtime.PROTOCOL)
        Path(self.directory, "node.json").write_text(json.dumps(asdict(facts)))
        while True:
            self.look_after_pool()
            select.select([server.descriptor], [], [], 0.01)
            server.serve(idle=0.001)

    def look_after_pool(self) -> None:
        if self.pool is not None and os.waitpid(self.pool, os.WNOHANG)[0]:
            self.pool = None
            time.sleep(self.delay)
        if self.pool is None and not self.stopped:
            self.pool = fork(self.run_pool)

    def run_pool(self) -> None:
        PoolHandler(self.directory, self.size, self.spinning).run(self.name)

    def on_gone(self, peer: ServerConn) -> None:
        pass

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        request = pickling.loads(body)
        if isinstance(request, ListPools):
            peer.send(frames.REPLY, ref, pickling.dumps([] if self.stopped else [self.name]))
            return
        if request == "stop":
            self.stopped = True
        elif isinstance(request, float):
            self.delay = request
        peer.send(frames.REPLY, ref, pickling.dumps(self.pool))


class Standin:
    """A stand-in system in a directory of its own: `with Standin(size=4) as standin: Pool(standin.endpoint, "db")`."""

    def __init__(self, size: int = 2, name: str = "db", spinning: bool = True) -> None:
        self.directory = tempfile.mkdtemp(prefix="aps-", dir=os.environ.get("ACTORPOOL_RUNTIME_DIR"))
        self.name = name
        self.endpoint = Endpoint(self.directory, spinning)
        seconds = spinwait.spin_seconds(spinning)
        command = [sys.executable, "-m", "tests.client.standin", self.directory, name, str(size), str(seconds)]
        self.process = subprocess.Popen(command, cwd=ROOT)
        self.wait_for_pool()

    def wait_for_pool(self) -> None:
        """Return once the pool serves."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(NotDelivered):
                ClientConn(self.endpoint.pool(self.name)).close()
                return
            time.sleep(0.002)
        raise AssertionError("the stand-in did not start")

    def manager(self, request: Any) -> Any:
        """Ask the manager; any request is answered with the pid of the pool."""
        return drive(ManagerAsker(self.endpoint).ask(THREADS, request))

    def kill_pool(self) -> None:
        """SIGKILL the pool's process; it is started again."""
        os.kill(self.manager("pid"), signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL everything at once, as the death of a node does."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Standin:
        return self

    def __exit__(self, *_: Any) -> None:
        self.kill()
        client.forget(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)


if __name__ == "__main__":
    ManagerHandler(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])).run()
