"""What each verb of a pool over hosts does, as plans; `commands` carries them out for threads and for event loops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from actorpool.cluster.calls import DOWN, RAISED, REFUSED, STRANGER, FarCall, is_refusal
from actorpool.cluster.client import Client
from actorpool.cluster.commands import Await, Here, Pause, Plan
from actorpool.cluster.engine import Lost
from actorpool.config import check_request
from actorpool.core.cluster.choice import attempts
from actorpool.core.cluster.figures import ClusterStatus, merged
from actorpool.errors import CallTimeout, CheckoutTimeout, LeaseExpired, PoolDown, SystemDown, WorkerDied
from actorpool.serialization import pickling
from actorpool.serialization.exceptions import load_error

RETRY = 0.02
"""Seconds between two looks for a host while there is none."""
GRACE = 2.0
"""Seconds that an answer may take beyond the limits of what was asked, so that the pool's own verdict wins."""
LOOKING = 10.0
"""Seconds for a host to tell figures."""
STARTING = 60.0
"""Seconds that the shares of a pool may take to start, to change or to stop, beyond the pool's checkout timeout."""


class Refused(Exception):
    """Nothing was run there. `error` is for the caller if no other host takes it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


# -- leases of other hosts --------------------------------------------------------------------------------------


class Grant:
    """A lease at another host's agent, as its holder sees it.

    Attributes:
        number: names it at the agent.
        host, host_name: where it is.
        facts: what the lease there says of itself.
        open: it has not ended.
    """

    def __init__(self, client: Client, pool: str, host: str, number: str, facts: dict[str, Any]) -> None:
        self.client = client
        self.pool = pool
        self.host = host
        self.host_name = client.host_name(host)
        self.number = number
        self.facts = facts
        self.open = True

    def expired(self) -> LeaseExpired:
        """The error of a lease that is used after its end."""
        text = "is over: checked in, taken back, or its worker, its pool or its host was lost"
        name = f"lease {self.facts['id']} of host {self.host_name}"
        return LeaseExpired(f"pool {self.pool!r}: {name} {text}", pool=self.pool)

    def give_back(self) -> bool:
        """End it without waiting; whether there was anything to end."""
        if not self.open:
            return False
        self.open = False
        try:
            self.client.agent(self.host).ask("checkin", self.number)
        except Lost:
            pass
        return True


# -- plans --------------------------------------------------------------------------------------------------------


class Plans:
    """How each verb of one pool is carried out.

    Args:
        client: of this process.
        pool: the pool's name.
    """

    def __init__(self, client: Client, pool: str) -> None:
        self.client = client
        self.pool = pool

    def near(
        self, call: FarCall, checkout_timeout: float | None, call_timeout: float | None
    ) -> tuple[Here, bool] | None:
        """The call as one of this host's own pool, which needs no plan; None: it goes elsewhere.

        Returns:
            The call, and whether no other host has workers, so that it waits for one; else `run` is to be tried next.
        """
        client, shares = self.client, self.client.view.shares.get(self.pool, {})
        if client.engine.here not in shares or not client.choice.usable(client.engine.here):
            return None
        own = client.local(self.pool, client.engine.here)
        if own is None:
            return None
        alone = len(shares) == 1
        limits = {"call_timeout": call_timeout, "checkout_timeout": checkout_timeout if alone else 0.0}
        return Here(own, call.verb, *call.here(limits)), alone

    def goes_on(self, error: BaseException, alone: bool) -> bool:
        """Whether a call that was met with this by `near` is one for `run` now: nothing was run, and there is a way."""
        return self._refused(error) and (not alone or isinstance(error, DOWN))

    def run(
        self,
        call: FarCall,
        checkout_timeout: float | None,
        call_timeout: float | None,
        host: str | None,
        asked: float | None = None,
    ) -> Plan[Any]:
        """Run something in a worker, here or on another host.

        Args:
            asked: when (`time.monotonic()`) this host's own pool was asked, as `near` says; None: it was not.
        """
        check_request("call", call_timeout=call_timeout, checkout_timeout=checkout_timeout)
        limits = {"call_timeout": call_timeout}

        def at(target: str, seconds: float, block: bool) -> Plan[Any]:
            own = self.client.local(self.pool, target)
            here = {**limits, "checkout_timeout": seconds}
            if own is not None:
                return self._here(own, call.verb, *call.here(here))
            declared = self.client.declaration(self.pool)
            longest = declared.call_timeout if call_timeout is None else call_timeout
            patience = None if longest is None else seconds + longest + GRACE
            return self._far(target, call, call.far(here), patience, longest)

        timeout = self.client.declaration(self.pool).checkout_timeout if checkout_timeout is None else checkout_timeout
        return (yield from self._placed(at, timeout, True, host, None, asked))

    def checkout(self, block: bool, timeout: float | None, key: Any, host: str | None) -> Plan[Any]:
        """Lease a worker: a lease of this host's own pool, or a `Grant`."""
        if timeout is not None:
            check_request("checkout", timeout=timeout)
        extra = {} if key is None else {"key": key}

        def at(target: str, seconds: float, waits: bool) -> Plan[Any]:
            options = {**extra, "block": waits and block, "timeout": seconds if waits else None}
            own = self.client.local(self.pool, target)
            if own is not None:
                return self._here(own, "checkout", (), options)
            return self._lend(target, options, seconds)

        longest = self.client.declaration(self.pool).checkout_timeout if timeout is None else timeout
        return (yield from self._placed(at, longest, block, host, key))

    def _placed(
        self,
        at: Callable[[str, float, bool], Plan[Any]],
        timeout: float,
        block: bool,
        host: str | None,
        key: Any,
        asked: float | None = None,
    ) -> Plan[Any]:
        """Ask hosts in order for an idle worker, then wait at the first; go on while hosts are lost and time is left.

        Args:
            at: the plan for one host, for so many seconds; the last argument: whether it is to wait there.
        """
        began = time.monotonic() if asked is None else asked
        deadline = began + timeout
        while True:
            error: BaseException | None = None
            hosts = self.client.candidates(self.pool, host, key)
            for target, waits in attempts(hosts, asked is not None and hosts[:1] == [self.client.engine.here]):
                left = max(deadline - time.monotonic(), 0.0)
                try:
                    return (yield from at(target, left if waits else 0.0, waits))
                except Refused as refusal:
                    error = refusal.error
            if error is not None and not isinstance(error, DOWN):
                raise error
            if not block or time.monotonic() >= deadline:
                raise error or self.client.nobody(self.pool, time.monotonic() - began)
            asked = None
            yield Pause(RETRY)

    def _here(self, own: Any, verb: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Plan[Any]:
        try:
            return (yield Here(own, verb, args, kwargs))
        except Exception as error:
            if not self._refused(error):
                raise
            raise Refused(error) from None

    def _refused(self, error: BaseException) -> bool:
        """Whether this host's own pool says with it that it ran nothing."""
        if isinstance(error, SystemDown):
            self.client.forget_local()
        return is_refusal(error)

    # -- far ------------------------------------------------------------------------------------------------------

    def _ask(self, target: str, patience: float | None, name: str, operation: str, *args: Any) -> Plan[Any]:
        """A far call, after an introduction where the agent wants one."""
        while True:
            try:
                answer = yield Await(self.client.agent(target).ask(operation, *args), patience)
                if answer[0] != STRANGER:
                    return answer
                yield Await(self.client.introduce(target), LOOKING)
            except Lost as loss:
                self.client.suspect(target)
                raise self._lost(target, name, loss) from None

    def _lost(self, target: str, name: str, loss: Lost) -> Exception:
        where = f"pool {self.pool!r}: host {self.client.host_name(target)}"
        if not loss.sent:
            return Refused(PoolDown(f"{where} does not answer, and {name} was not started ({loss})", pool=self.pool))
        text = f"{where}, its agent or the way to it was lost during {name}, which may or may not have taken effect"
        return WorkerDied(f"{text}; it is not run again by itself ({loss})", pool=self.pool)

    def _value(self, kind: str, value: Any) -> Any:
        if kind == REFUSED:
            raise Refused(load_error(value))
        if kind == RAISED:
            raise load_error(value)
        return pickling.loads(value)

    def _far(
        self, target: str, call: FarCall, payload: bytes, patience: float | None, longest: float | None
    ) -> Plan[Any]:
        try:
            kind, value = yield from self._ask(
                target, patience, call.name, "perform", self.client.id, self.pool, call.verb, payload
            )
        except TimeoutError:
            raise self._too_long(call.name, target, longest) from None
        return self._value(kind, value)

    def _too_long(self, name: str, target: str, longest: float | None) -> CallTimeout:
        host = self.client.host_name(target)
        text = f"pool {self.pool!r}: host {host} has not answered {name} within its limits (call_timeout {longest} s)"
        return CallTimeout(f"{text}; it is cancelled there", pool=self.pool, waited=longest)

    def _lend(self, target: str, options: dict[str, Any], seconds: float) -> Plan[Grant]:
        number = self.client.number()
        answer = None
        try:
            args = (self.client.id, number, self.pool, options)
            answer = yield from self._ask(target, seconds + GRACE, "the checkout", "checkout", *args)
        except TimeoutError:
            text = f"pool {self.pool!r}: host {self.client.host_name(target)} has not answered within {seconds:.2f} s"
            raise Refused(CheckoutTimeout(text, pool=self.pool, waited=seconds)) from None
        except WorkerDied as error:  # a lease that nobody knows of is no loss: another host may lend one
            raise Refused(PoolDown(str(error), pool=self.pool)) from None
        finally:
            if answer is None:  # a grant that is on its way would be nobody's
                Grant(self.client, self.pool, target, number, {}).give_back()
        return Grant(self.client, self.pool, target, number, self._value(*answer))

    def perform(self, grant: Grant, call: FarCall, call_timeout: float | None) -> Plan[Any]:
        """Run something on the worker of a far lease."""
        if not grant.open:
            raise grant.expired()
        declared = self.client.view.declared.get(self.pool)
        longest = declared.call_timeout if call_timeout is None and declared else call_timeout
        payload = call.far({"call_timeout": call_timeout})
        patience = None if longest is None else longest + GRACE
        try:
            kind, value, facts = yield from self._ask(
                grant.host, patience, call.name, "lease", grant.number, call.verb, payload
            )
        except TimeoutError:
            grant.give_back()
            raise self._too_long(call.name, grant.host, longest) from None
        except Refused as refusal:
            grant.open = False
            raise WorkerDied(str(refusal.error), pool=self.pool) from None
        except BaseException:  # lost, or cancelled by the caller: what the session holds is not known
            grant.give_back()
            raise
        if facts is None:
            grant.open = False
        else:
            grant.facts = facts
        try:
            return self._value(kind, value)
        except Refused as refusal:
            raise refusal.error from None

    def asked(self, operation: str, *args: Any) -> Plan[None]:
        """Ask the coordinator something that it answers by an error or None."""
        try:
            error = yield Await(self.client.coordinator.ask(operation, *args), STARTING + GRACE)
        except (Lost, TimeoutError) as loss:
            text = f"the coordinator of cluster {self.client.name!r} does not answer ({loss}): try again"
            raise PoolDown(text, pool=self.pool) from None
        if error is not None:
            raise error

    # -- all hosts ------------------------------------------------------------------------------------------------

    def everywhere(
        self, verb: str, *args: Any, host: str | None = None, patience: float | None = LOOKING
    ) -> Plan[dict[str, Any]]:
        """Use a verb on each host of the pool, or on one; by host's id its result, or the error it was met with."""
        self.client.declaration(self.pool)
        node = None if host is None else self.client.node_id(host)
        targets = list(self.client.view.shares.get(self.pool, {})) if node is None else [node]
        payload = pickling.dumps((args, {}))
        asked: dict[str, Any] = {}
        own = {target: local for target in targets if (local := self.client.local(self.pool, target)) is not None}
        for target in targets:
            if target not in own:
                try:
                    asked[target] = self.client.agent(target).ask("look", self.pool, verb, payload)
                except Lost as loss:
                    asked[target] = loss
        results: dict[str, Any] = {}
        for target in targets:
            try:
                if target in own:
                    results[target] = yield Here(own[target], verb, args, {})
                elif isinstance(asked[target], Lost):
                    raise asked[target]
                else:
                    results[target] = self._value(*(yield Await(asked[target], patience)))
            except Lost as loss:
                self.client.suspect(target)
                text = f"pool {self.pool!r}: host {self.client.host_name(target)} does not answer: {loss}"
                results[target] = PoolDown(text, pool=self.pool)
            except Refused as refusal:
                results[target] = refusal.error
            except (Exception, TimeoutError) as error:
                results[target] = error
        return results

    def summed(self, results: Mapping[str, Any]) -> ClusterStatus:
        """The statuses of all hosts as one; None of a host that does not answer."""
        name = self.client.host_name
        told = {name(host): None if isinstance(one, BaseException) else one for host, one in results.items()}
        return merged(self.pool, told)

    def end_session(self, key: Any) -> Plan[bool]:
        """End what a worker keeps under a key, on the host that the key belongs to."""
        self.client.declaration(self.pool)
        hosts = self.client.candidates(self.pool, None, key)
        results = (yield from self.everywhere("end_session", key, host=hosts[0])) if hosts else {}
        self.require(results)
        return any(results.values())

    def named(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Results by host's name; what was no result is left out."""
        return {
            self.client.host_name(host): result
            for host, result in results.items()
            if not isinstance(result, BaseException)
        }

    def require(self, results: Mapping[str, Any]) -> None:
        """Raise the first error there is; of several hosts, the text names all."""
        errors = {self.client.host_name(host): error for host, error in results.items() if isinstance(error, Exception)}
        if errors:
            raise next(iter(errors.values()))

    def at_hosts(self, results: Mapping[str, Any]) -> list[Any]:
        """Lists of all hosts as one, each item with its host's name."""
        return [replace(item, host=name) for name, items in self.named(results).items() for item in items]
