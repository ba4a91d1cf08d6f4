"""The httpx client of an `HttpWorker`. Imports httpx."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import httpx
from httpx import InvalidURL, TimeoutException

__all__ = ["Client", "InvalidURL", "TimeoutException", "without_request"]

E = TypeVar("E", bound=BaseException)


class Defaults(NamedTuple):
    """What a client was made with."""

    base_url: httpx.URL
    headers: list[tuple[str, str]]
    cookies: httpx.Cookies
    params: httpx.QueryParams
    auth: Any
    timeout: httpx.Timeout


class Client(httpx.Client):
    """A client that can be put back to how it was made, whose errors do not carry the request, and that keeps secrets.

    Args:
        home: the URL that the secrets are for; a redirect to another host gets none of them.
        secrets: headers with their values. (httpx itself holds back only `Authorization`.)
        **options: for `httpx.Client`.
    """

    def __init__(self, home: str, secrets: dict[str, str], **options: Any) -> None:
        super().__init__(base_url=home, **options)
        self._home = httpx.URL(home)
        self._secrets = secrets
        hooks = self.event_hooks
        self.event_hooks = {**hooks, "request": [self._keep_secrets, *hooks["request"]]}

    def _keep_secrets(self, request: httpx.Request) -> None:
        url, home = request.url, self._home
        upgraded = url.host == home.host and url.scheme == "https"
        if upgraded or (url.scheme, url.host, url.port) == (home.scheme, home.host, home.port):
            return
        for name, value in self._secrets.items():
            if request.headers.get(name) == value:
                del request.headers[name]

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """As httpx's own, for every kind of request."""
        try:
            return super().send(request, **options)
        except httpx.RequestError as error:
            raise without_request(error)  # noqa: B904 (it is the same error)

    def defaults(self) -> Defaults:
        """What `restore` brings back."""
        cookies = httpx.Cookies(self.cookies)
        return Defaults(self.base_url, self.headers.multi_items(), cookies, self.params, self.auth, self.timeout)

    def restore(self, was: Defaults) -> None:
        """Undo what calls have changed; connections stay open."""
        self.base_url, self.params, self.auth, self.timeout = was.base_url, was.params, was.auth, was.timeout
        if self.headers.multi_items() != was.headers:
            self.headers = httpx.Headers(was.headers)
        self.cookies = httpx.Cookies(was.cookies)


def without_request(error: E, asked: str = "") -> E:
    """The error without its request, whose headers may hold secrets, so that it may travel.

    Args:
        asked: what was asked for, to be told in its place; httpx's own texts do not say it.
    """
    if isinstance(error, httpx.RequestError):
        error.request = None  # type: ignore[assignment]
        if asked:
            error.args = (f"{asked}: {error}",)
    return error
