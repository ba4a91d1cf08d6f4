"""How a shared pool's decisions are carried out: one function for each effect, run in the pool's process.

Those that pools of both kinds have are in `pools.effects`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from actorpool import _scrubbing
from actorpool._protocol import orders as orders_module
from actorpool._protocol import shared
from actorpool.core import effects as fx
from actorpool.core.shared import effects
from actorpool.pools import effects as common
from actorpool.pools.shell import SharedPoolShell
from actorpool.serialization import pickling
from actorpool.thespian_adapter.shell import log
from actorpool.transport import frames

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def run(pool: SharedPoolShell, effect: effects.Run) -> None:
    """Have a worker run a call."""
    worker, call, ahead = effect
    hand = pool.worker_handles.hand(worker)
    when = frames.AHEAD if ahead else frames.AT_ONCE
    if hand.peer is not None:
        hand.peer.send(frames.PERFORM, call.number, call.payload, when)
        if hand.peer.refused:
            pool.refused.setdefault(worker, call.number)
    else:
        pool.send(hand.address, shared.Perform(call.number, when + call.payload))


def deliver(pool: SharedPoolShell, effect: effects.Deliver) -> None:
    """Pass a worker's answer on."""
    call, reply, loan = effect
    way: Any = call.ref
    if loan is None:
        way.deliver(reply)
    else:
        connection = call.connection
        assert connection is not None
        assert connection.worker is not None
        seal = pool.worker_handles.hand(connection.worker.id).seal(loan.number)
        way.lend(reply, loan.number, seal, connection.pid, pickling.dumps(tuple(connection.meters)))


def answer(pool: SharedPoolShell, effect: fx.Answer) -> None:
    """Answer a request, or a call that failed; its ref is the way back."""
    value = effect.value
    if not pool.is_process and isinstance(value, dict):  # of `map`: what does not travel is not opened on arrival
        value = {id: one.open() if isinstance(one, shared.OpaqueResult) else one for id, one in value.items()}
    effect.ref.answer(value)


def start(pool: SharedPoolShell, effect: fx.Start) -> None:
    """Create the process of a connection."""
    worker, worker_args = effect.spec
    with contextlib.suppress(Exception):  # it is told by the worker, which opens them as well
        pool.worker_handles.secretive |= _scrubbing.hide_arguments(worker_args.open())
    init = orders_module.Init(
        pool=pool.name,
        worker_id=effect.worker,
        worker=worker,
        worker_args=worker_args,
        check_on_checkout=None,
        directory=pool.directory,
        parent=pool.myAddress,
        spin=pool.spin,
        max_message=pool.max_message,
    )
    pool.worker_handles.start(effect.worker, init, None)


def interrupt(pool: SharedPoolShell, effect: effects.Interrupt) -> None:
    """Break into the call that a worker runs."""
    pool.worker_handles.interrupt(effect.worker)
    pool.worker_handles.tell(effect.worker, shared.Interrupt(effect.number))


def note(pool: SharedPoolShell, effect: effects.Log) -> None:
    """Write a line to the log."""
    log.log(_LEVELS[effect.level], "%s", effect.text)


def stopped(pool: SharedPoolShell, _effect: fx.Stopped) -> None:
    """The pool was asked to stop, and no worker is left."""
    log.info("Stopped shared pool: %s", pool.name)
    pool.telemetry.event("pool.stopped", {}, {"shared": True})


EFFECTS: dict[type, Callable[[SharedPoolShell, Any], None]] = {
    effects.Run: run,
    effects.Deliver: deliver,
    effects.Interrupt: interrupt,
    effects.Log: note,
    fx.Answer: answer,
    fx.Start: start,
    fx.Open: common.open_,
    fx.Recall: common.recall,
    fx.Stop: common.stop,
    fx.Kill: common.kill,
    fx.Emit: common.emit,
    fx.Stopped: stopped,
}
