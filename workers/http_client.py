"""The httpx client of an `HttpWorker`. Imports httpx."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
from httpx import InvalidURL, TimeoutException

__all__ = ["Client", "InvalidURL", "TimeoutException", "without_request"]

E = TypeVar("E", bound=BaseException)

_ASKED = "actorpool.asked"


class Guard:
    """Called with each request before it is sent, redirects included: takes out what is a secret of another host.

    httpx itself takes out `Authorization` and the cookies of a redirected request.

    Args:
        home: the URL that the worker's own secrets are for.
        secret: matches names of headers that are secrets.
        headers: those of the worker, with their values.
    """

    def __init__(self, home: httpx.URL, secret: re.Pattern[str], headers: Mapping[str, str]) -> None:
        self._home = home
        self._secret = secret
        self._own = {name: value for name, value in headers.items() if secret.search(name)}

    def __call__(self, request: httpx.Request) -> None:
        asked = request.extensions.get(_ASKED)  # the URL of the first request, which redirects take along
        if asked is None:
            request.extensions = {**request.extensions, _ASKED: request.url}
            if not _of_one_site(self._home, request.url):
                for name, value in self._own.items():
                    if request.headers.get(name) == value:
                        del request.headers[name]
        elif not _of_one_site(asked, request.url):
            for name in {*request.headers}:
                if self._secret.search(name) and name != "cookie":
                    del request.headers[name]


def _of_one_site(first: httpx.URL, url: httpx.URL) -> bool:
    if first.host == url.host and (first.scheme, url.scheme) == ("http", "https"):
        return True
    return (first.scheme, first.host, first.port) == (url.scheme, url.host, url.port)


_HOOKS: property = httpx.Client.event_hooks  # type: ignore[assignment]


class Client(httpx.Client):
    """A client that keeps secrets, raises errors without the request, and can be had as new at any time.

    Args:
        home: the URL that the secrets are for; another host gets none of them.
        secret: matches names of headers that are secrets.
        headers: sent with every request.
        **options: for `httpx.Client`.
    """

    def __init__(self, home: str, secret: re.Pattern[str], headers: Mapping[str, str], **options: Any) -> None:
        super().__init__(base_url=home, headers=headers, **options)
        self._streams: list[httpx.Response] = []
        self._guard = Guard(httpx.URL(home), secret, headers)
        self.event_hooks = self.event_hooks
        self._bind_cookies()

    def _bind_cookies(self) -> None:
        """Have cookies without a domain sent to the home host only, not to any."""
        host = self.base_url.host if "." in self.base_url.host else f"{self.base_url.host}.local"
        given, self.cookies = self.cookies, httpx.Cookies()
        for cookie in given.jar:
            cookie.domain = cookie.domain or host  # as `http.cookiejar` writes a host without dots
            self.cookies.jar.set_cookie(cookie)

    @property
    def event_hooks(self) -> dict[str, list[Any]]:
        """As httpx's own; the guard is always among them."""
        return _HOOKS.fget(self)  # type: ignore[misc, no-any-return]

    @event_hooks.setter
    def event_hooks(self, hooks: Mapping[str, list[Any]]) -> None:
        others = [hook for hook in hooks.get("request", ()) if hook is not self._guard]
        _HOOKS.fset(self, {**hooks, "request": [self._guard, *others]})  # type: ignore[misc]

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """As httpx's own, for every kind of request."""
        try:
            answer = super().send(request, **options)
        except httpx.RequestError as error:
            raise without_request(error)  # noqa: B904 (it is the same error)
        if options.get("stream"):
            self._streams = [stream for stream in self._streams if not stream.is_closed] + [answer]
        return answer

    def renewed(self) -> Client:
        """Another client on the same connections, set as this one is: later changes of it are its own.

        Called on one that was never used, so that each lease has a client as new without connecting anew.
        """
        fresh = copy.copy(self)
        fresh._streams = []
        fresh.headers, fresh.cookies, fresh.timeout = self.headers, self.cookies, self.timeout
        fresh.event_hooks = self.event_hooks
        return fresh

    def end_streams(self) -> None:
        """Close answers that were not read to their end; each holds a connection."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()


def without_request(error: E, asked: str = "") -> E:
    """The error without its request, so that it may travel: the headers may hold secrets.

    Args:
        asked: what was asked for, to be told in its place; httpx's own texts do not say it.
    """
    if isinstance(error, httpx.RequestError):
        error.request = None  # type: ignore[assignment]
        if asked:
            error.args = (f"{asked}: {error}",)
    return error
