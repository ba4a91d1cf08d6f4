"""How a pool's decisions are carried out: one function for each effect, run in the pool's process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actorpool._protocol import orders
from actorpool.core import effects as fx
from actorpool.pools.shell import BasePoolShell, PoolShell
from actorpool.serialization.pickling import Pickled
from actorpool.thespian_adapter.shell import log


def granted(pool: PoolShell, effect: Any) -> None:
    """The holder has a worker."""
    effect.holder.granted(pool, effect)


def use_local(_pool: PoolShell, effect: Any) -> None:
    """The holder is to share what its own process has."""
    effect.holder.use_local(effect)


def refused(pool: PoolShell, effect: Any) -> None:
    """The holder gets none."""
    effect.holder.refused(pool, effect)


def ended(pool: PoolShell, effect: Any) -> None:
    """A lease ended without a checkin."""
    effect.holder.ended(pool, effect)


def start(pool: PoolShell, effect: fx.Start) -> None:
    """Create a worker's process."""
    config = pool.config
    init = orders.Init(
        pool=pool.name,
        worker_id=effect.worker,
        worker=Pickled.of(config.worker),
        worker_args=Pickled.of(config.worker_args),
        check_on_checkout=config.check_on_checkout,
        directory=pool.directory,
        parent=pool.myAddress,
        spin=pool.spin,
        max_message=pool.max_message,
        observed=pool.telemetry.hub.wants("call.done"),
        slot=pool.pages.take(effect.worker),
        limits=config.limits,
    )
    pool.worker_handles.start(effect.worker, init, config.placement)


def open_(pool: BasePoolShell, effect: fx.Open) -> None:
    """Have a worker connect."""
    pool.worker_handles.tell(effect.worker, orders.Open())


def close(pool: PoolShell, effect: fx.Close) -> None:
    """Have a worker disconnect."""
    pool.worker_handles.tell(effect.worker, orders.Close())


def check(pool: PoolShell, effect: fx.Check) -> None:
    """Have a worker check its connection."""
    pool.worker_handles.tell(effect.worker, orders.Check())


def recall(pool: BasePoolShell, effect: fx.Recall) -> None:
    """Have a worker end its sticky lease, or its loan."""
    pool.worker_handles.tell(effect.worker, orders.Recall(effect.lease, effect.first))


def revoke(pool: PoolShell, effect: fx.Revoke) -> None:
    """Take a worker back."""
    # The signal first: its flag is then up before the message can be read, and cleared by the message.
    pool.worker_handles.interrupt(effect.worker)
    pool.worker_handles.tell(effect.worker, orders.Revoke(effect.lease, effect.keep))


def stop(pool: BasePoolShell, effect: fx.Stop) -> None:
    """End a worker's process."""
    if effect.interrupt:
        pool.worker_handles.interrupt(effect.worker)
    pool.worker_handles.stop(effect.worker)


def kill(pool: BasePoolShell, effect: fx.Kill) -> None:
    """End a worker's process by force."""
    pool.worker_handles.kill(effect.worker)


def emit(pool: BasePoolShell, effect: fx.Emit) -> None:
    """Tell an event."""
    if effect.name in _LEAKS:
        log.warning("pool %s: %s: %s %s", pool.name, _LEAKS[effect.name], effect.metadata, effect.measurements)
    elif effect.name == "breaker.opened":
        log.warning("pool %s: the circuit breaker has opened: %s", pool.name, effect.metadata["reason"])
    of_worker = effect.name.startswith("worker.")
    metadata = pool.worker_handles.with_pid(effect.metadata) if of_worker else effect.metadata
    pool.telemetry.event(effect.name, effect.measurements, metadata)


def answer(pool: BasePoolShell, effect: fx.Answer) -> None:
    """Answer an administrative request; its ref is the asker."""
    effect.ref.answer(effect.value)


def ready(pool: PoolShell, effect: fx.Ready) -> None:
    """The pool counts as started."""
    log.info("Started connection pool: %s", pool.name)
    pool.telemetry.event("pool.started", {"size": pool.core.life.size, "max_overflow": pool.core.life.max_overflow}, {})
    pool.started()


def fail(pool: PoolShell, effect: fx.Fail) -> None:
    """The pool ends with an error, which is its supervisor's to judge, and to tell where the pool has not started."""
    if pool.core.life.started:
        log.error("pool %s: %s", pool.name, effect.error)
        pool.telemetry.event("supervisor.gave_up", {}, {"error": str(effect.error)})
        pool.stop(effect.error)
    else:
        pool.start_failed(effect.error)


def stopped(pool: PoolShell, _effect: fx.Stopped) -> None:
    """The pool was asked to stop, and no worker is left."""
    log.info("Stopped connection pool: %s", pool.name)
    pool.telemetry.event("pool.stopped", {}, {})
    for asker in pool.core.life.stoppers:
        asker.answer(None)
    pool.core.life.stoppers.clear()


def keep(pool: PoolShell, effect: fx.Keep) -> None:
    """Have a successor begin as this pool is now, should this process be killed."""
    pool.remember_also(kept=effect)


_LEAKS = {"pool.leak": "leak", "pool.leak_returned": "a leak came back"}

EFFECTS: dict[type, Callable[[PoolShell, Any], None]] = {
    fx.Granted: granted,
    fx.UseLocal: use_local,
    fx.Refused: refused,
    fx.Ended: ended,
    fx.Start: start,
    fx.Open: open_,
    fx.Close: close,
    fx.Check: check,
    fx.Recall: recall,
    fx.Revoke: revoke,
    fx.Stop: stop,
    fx.Kill: kill,
    fx.Emit: emit,
    fx.Answer: answer,
    fx.Ready: ready,
    fx.Fail: fail,
    fx.Stopped: stopped,
    fx.Keep: keep,
}
