"""PostgreSQL through psycopg 3. psycopg is imported by `open`, in the worker, not before.

`reset` costs nothing when nothing of the session can have changed, one round trip when something can, and gives up
a connection that is broken, so that it is opened anew.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actorpool._validation import nearest
from actorpool.errors import ActorPoolError, InvalidConfig, PermanentError
from actorpool.workers.arguments import misspelt
from actorpool.workers.base import method, pool_size
from actorpool.workers.login_errors import login_error, without_quoted
from actorpool.workers.sql import SqlWorker

if TYPE_CHECKING:
    import psycopg

    from actorpool.workers.postgres_session import PgConnection, Settings

log = logging.getLogger("actorpool")

Conninfo = str | Mapping[str, Any] | Callable[[], str | Mapping[str, Any]]

_RESERVED = {
    "autocommit": "is always on outside a transaction; use begin() or transaction()",
    "cursor_factory": "belongs to the worker; set it on the connection in configure",
    "row_factory": "is no argument of the connection; set it on the connection in configure",
    "context": "is no argument of the connection; register adapters in configure",
}
_LOST = re.compile(r"08...|57P0[1-5]|25P03")
"""SQLSTATEs of connections that ended: class 08, shutdowns, and the server's idle timeouts."""
_LIMITS = (
    "SELECT name, setting FROM pg_settings "
    "WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
)
_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"


class PostgresWorker(SqlWorker):
    """One PostgreSQL session; `run(fn)` gets the `psycopg.Connection`, in autocommit mode.

    An interrupt cancels the running statement on the server; the connection is kept.

    Args:
        conninfo: a libpq connection string or URL, a dict of its parameters, or a callable that gives either and is
            asked at every connect, for passwords that change. A login refused with what a callable gave is retried.
        prepared_statement_cache_size: most prepared statements kept by the connection; 0 is none.
        prepare_threshold: a statement is prepared when it is run for this many times and once more; 0: at once,
            None: never (behind a pooler in transaction mode).
        connect_timeout: longest wait for a connection, and for the answer to a check or a reset, seconds.
        configure: called with every new connection, and again when its settings had to be reset.
        statement_timeout: the server cancels a statement after this many seconds; None: as the server is set up.
        nodes: how many nodes share the server, for `size="auto"`.
        **kwargs: further parameters of libpq: `host`, `user`, `password`, `application_name`, ...

    Raises:
        InvalidConfig: names every bad argument.
    """

    def __init__(
        self,
        conninfo: Conninfo = "",
        prepared_statement_cache_size: int = 1000,
        prepare_threshold: int | None = 5,
        connect_timeout: float = 5.0,
        configure: Callable[[psycopg.Connection[Any]], Any] | None = None,
        statement_timeout: float | None = None,
        nodes: int = 1,
        log_queries: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(log_queries=log_queries)
        problems = misspelt(PostgresWorker, kwargs) | {name: _RESERVED[name] for name in _RESERVED if name in kwargs}
        kinds: Any = (str, Mapping)
        if not isinstance(conninfo, kinds) and not callable(conninfo):
            problems["conninfo"] = "must be a string, a dict or a callable that gives one"
        for name, value, low, optional in (
            ("prepared_statement_cache_size", prepared_statement_cache_size, 0, False),
            ("prepare_threshold", prepare_threshold, 0, True),
            ("connect_timeout", connect_timeout, 0.001, False),
            ("statement_timeout", statement_timeout, 0, True),
            ("nodes", nodes, 1, False),
        ):
            if not (value is None and optional) and not _is_number(value, low):
                problems[name] = f"must be a number of at least {low}{' or None' * optional}, not {value!r}"
        if problems:
            raise InvalidConfig(type(self).__name__, problems)
        self._conninfo = conninfo
        self._parameters = kwargs
        self.cache_size = prepared_statement_cache_size
        self.prepare_threshold = prepare_threshold if self.cache_size else None
        self.connect_timeout = connect_timeout
        self.configure = configure
        self.statement_timeout = statement_timeout
        self.nodes = nodes
        self._session: PgConnection | None = None
        self._counters: Any = None
        self._made: Settings  # what the connection object was set to before `configure` ...
        self._settled: Settings  # ... and after it
        self._handed_out = False

    def __repr__(self) -> str:
        if self._session is None or self._session.closed:
            return "<PostgresWorker, not connected>"
        info = self._session.info
        return f"<PostgresWorker {info.user}@{info.host}:{info.port}/{info.dbname} backend {info.backend_pid}>"

    # -- hooks --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and configure.

        Raises:
            PermanentError: the driver is missing, or the connection string, login or database is wrong.
            psycopg.OperationalError: the server cannot be reached now.
        """
        self._session = self._connect()
        try:
            if self._timeout_setting():
                self._session.round_trip(self._timeout_setting(), self.connect_timeout)
            self._configure()
        except BaseException:
            self.close()
            raise
        self._connected()

    def _connect(self) -> PgConnection:
        try:
            import psycopg

            from actorpool.workers.postgres_session import Counters, PgConnection, Settings
        except ImportError as error:
            raise PermanentError(
                f"{type(self).__name__} needs psycopg 3 with libpq ({error}): pip install 'psycopg[binary]>=3.2,<3.4'",
                cause=error,
            ) from error
        text = self._connection_string()
        try:
            session = PgConnection.connect(text, autocommit=True, prepare_threshold=self.prepare_threshold)
        except psycopg.OperationalError as error:
            raise self._refused(error) or error from None
        self._counters = session.statements.counters = self._counters or Counters()
        session.prepared_max = self.cache_size
        self._made = Settings(session)
        return session

    def _connection_string(self) -> str:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
        from psycopg.pq import Conninfo

        given = self._conninfo() if callable(self._conninfo) else self._conninfo
        ours = {"fallback_application_name": "actorpool", "connect_timeout": max(math.ceil(self.connect_timeout), 1)}
        try:
            parameters = dict(given) if isinstance(given, Mapping) else conninfo_to_dict(given)
            return make_conninfo("", **{**ours, **parameters, **self._parameters})
        except (psycopg.ProgrammingError, TypeError) as error:
            # libpq quotes what it cannot read, which may hold the password: neither its text nor the cause may travel.
            told = str(error).strip()
            unknown = re.search(r'invalid connection option "(.*)"', told)
            if unknown is None:
                told = without_quoted(told)
            elif near := nearest(unknown[1], (option.keyword.decode() for option in Conninfo.get_defaults())):
                told = f"{told} (did you mean {near!r}?)"
            raise PermanentError(
                f"{type(self).__name__}: bad connection parameters: {told}; "
                'give conninfo="postgresql://user@host:5432/dbname" or "host=... dbname=...", or keywords of libpq'
            ) from None

    def _refused(self, error: psycopg.OperationalError) -> PermanentError | None:
        why = login_error(str(error))
        if why is None or (why.login and callable(self._conninfo)):
            return None
        text = f"{type(self).__name__}: PostgreSQL refused the connection: {error}; {why.advice}"
        return PermanentError(text, cause=error)

    def _configure(self) -> None:
        from actorpool.workers.postgres_session import Settings

        session = self._live
        if self.configure is not None:
            self.configure(session)
        self._settled = Settings(session)
        self._handed_out = session.dirty = False

    def _timeout_setting(self) -> str:
        if self.statement_timeout is None:
            return ""
        return f"SET statement_timeout = {math.ceil(self.statement_timeout * 1000)}"

    def check(self) -> None:
        """One empty query, answered within `connect_timeout` seconds."""
        self._live.round_trip("", self.connect_timeout)

    def needs_check(self) -> bool:
        """The server has said something unasked: good-bye, mostly."""
        return self._live.has_news()

    def reset(self) -> None:
        """Roll back with a warning, undo settings, temporary tables, locks and cursors; free when there is nothing.

        Raises:
            psycopg.OperationalError: the connection is closed, broken or still busy; it is opened anew.
        """
        session = self._live
        self._drop_cursors()
        self._forget_levels()
        settings_lost = session.clean(self.connect_timeout, self._timeout_setting())
        if settings_lost:
            self._session = session.renewed(self._made)
            self._configure()
        elif self._handed_out:
            self._session = session.renewed(self._settled)
            self._handed_out = False

    def close(self) -> None:
        """Disconnect; the server rolls back what is open."""
        session, self._session = self._session, None
        self._cursors.clear()
        if session is not None:
            session.close()

    @property
    def connection(self) -> Any:
        """The `psycopg.Connection` of this lease; the next one finds a new object."""
        self._handed_out = True
        return super().connection

    @property
    def _live(self) -> PgConnection:
        if self._session is None:
            import psycopg

            raise psycopg.OperationalError("the connection is closed")
        return self._session

    def is_disconnect(self, error: BaseException) -> bool:
        """Whether the session is gone; never so for an error of a statement."""
        if self._session is None or self._session.closed:
            return True
        return bool(_LOST.fullmatch(getattr(error, "sqlstate", None) or ""))

    @classmethod
    def auto_size(cls, **worker_args: Any) -> int:
        """This node's share of the server's `max_connections`, less what it reserves for superusers and roles.

        A server that cannot be asked now counts as one with 100 connections, 20 of them reserved, with a warning.
        """
        worker = cls(**worker_args)
        try:
            worker.open()
            settings = {name: int(value) for name, value in worker.execute(_LIMITS) if value.isdigit()}
            most = settings.pop("max_connections")  # poolers and what else speaks the protocol may not show it
        except PermanentError:
            raise
        except Exception as error:
            log.warning('size="auto": the server does not say (%r); taking 100 connections, 20 reserved', error)
            return pool_size(nodes=worker.nodes)
        finally:
            worker.close()
        return pool_size(most, sum(settings.values()), worker.nodes)

    # -- the driver ---------------------------------------------------------------------------------------

    def _execute(self, query: str, params: Any) -> Any:
        return self._live.statement(query, params)

    def _executemany(self, query: str, rows: Sequence[Any]) -> int:
        return self._live.many(query, rows)

    def _stream(self, query: str, params: Any, batch: int) -> Any:
        return self._live.stream(query, params, self._cursor_name)

    def _begin(self, isolation: str | None, read_only: bool, deferrable: bool = False, **options: Any) -> None:
        if options:
            raise ValueError(f"begin() takes isolation, read_only and deferrable, not {', '.join(options)}")
        words = ["BEGIN"]
        if isolation:
            words.append(f"ISOLATION LEVEL {isolation}")
        if read_only:
            words.append("READ ONLY")
        if deferrable:
            words.append("DEFERRABLE")
        self._live.round_trip(" ".join(words))

    def _commit(self) -> None:
        self._live.commit_or_say()

    def _rollback(self) -> None:
        self._live.round_trip("ROLLBACK")  # psycopg's own would forget the prepared statements

    def _savepoint(self, statement: str) -> None:
        self._live.round_trip(statement)

    def _enclose(self, on: bool) -> None:
        self._live.before_statement = self._refuse_control if on else None

    @property
    def in_transaction(self) -> bool:
        return self._session is not None and self._session.in_transaction

    @method
    def clear_cache(self) -> None:
        """Forget all prepared statements, here and on the server (DEALLOCATE ALL)."""
        self._live.drop_plans(self.connect_timeout)

    @method
    def stats(self) -> dict[str, Any]:
        """As every SQL worker's; here statements of `run(fn)` are counted too, and the cache is psycopg's own."""
        counters, session = self._counters, self._session
        cache = {
            "queries_executed": counters.queries if counters else 0,
            "errors": counters.errors if counters else 0,
            "cache_hits": counters.hits if counters else 0,
            "cache_misses": counters.misses if counters else 0,
            "cache_size": session.statements.size if session else 0,
        }
        return {**super().stats(), **cache}

    @method
    def session_count(self) -> int:
        """Sessions of the current database, from `pg_stat_activity`.

        Raises:
            ActorPoolError: a transaction is open, which is not to be disturbed.
            psycopg.Error: the server cannot be asked, or did not answer within `connect_timeout` seconds.
        """
        if self.in_transaction:
            raise ActorPoolError("session_count() asks between transactions only: one is open")
        (result,) = self._live.round_trip(_SESSIONS, self.connect_timeout)
        return int(result.get_value(0, 0) or 0)


def _is_number(value: Any, low: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= low
