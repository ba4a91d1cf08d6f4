"""HTTP through httpx, which is imported by `open`, in the worker, not before.

A status that is not 2xx is an answer, not an error. Nothing that leaves the worker shows a secret: not its `repr`,
not `get_status`, and errors travel without the request, as its headers hold them.
"""

from __future__ import annotations

import json as jsonlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from actorpool.errors import CallTimeout, InvalidConfig, MethodNotFound, PermanentError
from actorpool.workers.arguments import given_instead, misspelt
from actorpool.workers.base import Worker, method

if TYPE_CHECKING:
    import httpx

    from actorpool.workers.http_client import Client

_SECRET = re.compile(
    r"auth|cookie|credential|csrf|jwt|key|passwd|password|secret|session|signature|token|xsrf", re.IGNORECASE
)
"""Names of headers with values that are not shown, and not sent to another host."""
_CHUNK = 1 << 16
_OPTIONS = (
    "verify", "cert", "trust_env", "http1", "proxy", "mounts", "cookies", "params", "limits", "event_hooks",
    "transport", "default_encoding",
)  # fmt: skip


class Headers(dict[str, str]):
    """Headers of an answer: names in lower case, looked up in any case; repeated ones are joined by commas."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or `default`."""
        return super().get(name.lower(), default)


@dataclass(frozen=True)
class Response:
    """An answer; plain data, so it travels.

    Attributes:
        status_code: the HTTP status, whatever it is.
        headers: looked up in any case.
        body: the bytes; empty after `download`.
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=Headers)
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status_code < 300

    @property
    def text(self) -> str:
        """The body as text, in the charset that the answer names, else UTF-8."""
        found = re.search(r'charset="?([\w.:-]+)', self.headers.get("content-type", ""))
        try:
            return self.body.decode(found.group(1) if found else "utf-8", errors="replace")
        except LookupError:  # a charset that Python does not know
            return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body, decoded. Raises `ValueError` when it is no JSON."""
        return jsonlib.loads(self.body)


class HttpWorker(Worker):
    """An HTTP client with a base URL; its connections are kept open between calls; `run(fn)` gets the `httpx.Client`.

    Cookies that a server sets live as long as the lease.

    Args:
        base_url: `http://` or `https://`; the paths of calls are appended to it.
        timeout: seconds without a sign of life (connecting, sending, receiving) before a call fails.
        headers: sent with every call; those of a call override them. `User-Agent` is `actorpool` unless given.
        max_redirects: followed at most; 0 gives back the redirect itself.
        auth: `(user, password)`, or an `httpx.Auth`.
        http2: speak HTTP/2 where the server does (needs the extra `http2`).
        health_path: what `check` asks for; a status of 500 or more, or none, is unhealthy. None: nothing is asked.
        **options: for `httpx.Client`: `verify`, `cert`, `proxy`, `cookies`, `trust_env`, ...

    Raises:
        InvalidConfig: names every bad argument.
    """

    def __init__(
        self,
        base_url: Any = None,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        max_redirects: int = 5,
        auth: Any = None,
        http2: bool = False,
        health_path: str | None = None,
        **options: Any,
    ) -> None:
        problems = {"base_url": _bad_url(base_url), **misspelt(HttpWorker, options, _OPTIONS)}
        if base_url is None and options:
            problems["base_url"] = f"{problems['base_url']}{given_instead(options)}"
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            problems["timeout"] = f"must be a number above 0, not {timeout!r}"
        if isinstance(max_redirects, bool) or not isinstance(max_redirects, int) or max_redirects < 0:
            problems["max_redirects"] = f"must be a whole number of at least 0, not {max_redirects!r}"
        kind: Any = Mapping
        if not isinstance(headers or {}, kind):
            problems["headers"] = f"must be a dict, not {type(headers).__name__}"
        found = {name: text for name, text in problems.items() if text}
        if found:
            raise InvalidConfig(type(self).__name__, found)
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.headers = {"User-Agent": "actorpool", **(headers or {})}
        self.max_redirects = max_redirects
        self.http2 = http2
        self.health_path = health_path
        self._auth = auth
        self._options = options
        self._made: Client  # never used: what that of each lease is made from
        self._client: Client | None = None
        self._opened_at: float | None = None
        self._requests = self._errors = 0
        self._last_request_at: float | None = None

    def __repr__(self) -> str:
        return f"<HttpWorker {_without_login(self.base_url)}>"

    # -- hooks --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the client; it does not connect yet.

        Raises:
            PermanentError: httpx or HTTP/2 support is missing, or it refuses an option.
        """
        try:
            from actorpool.workers.http_client import Client, InvalidURL
        except ImportError as error:
            raise PermanentError(f"{self!r}: {error}; pip install 'httpx'", cause=error) from error
        try:
            self._made = Client(
                self.base_url,
                _SECRET,
                self.headers,
                timeout=self.timeout,
                follow_redirects=self.max_redirects > 0,
                max_redirects=self.max_redirects,
                auth=self._auth,
                http2=self.http2,
                **self._options,
            )
        except ImportError as error:
            needed = "actorpool[http2]" if self.http2 else "httpx[socks]"
            raise PermanentError(f"{self!r}: {error}; pip install '{needed}'", cause=error) from error
        except (TypeError, ValueError, InvalidURL) as error:
            told = re.sub(r"//[^/@]*@", "//***@", str(error))  # a proxy's URL may hold a password
            raise PermanentError(f"{self!r}: httpx.Client refuses an option: {told}; correct worker_args") from None
        self._client = self._made.renewed()
        self._opened_at = time.monotonic()

    def check(self) -> None:
        """Ask `health_path`, where there is one. Raises what httpx raises, or `ConnectionError` for a 5xx."""
        if self.health_path is not None:
            answer = self._live.get(self._url(self.health_path, None))
            if answer.status_code >= 500:
                raise ConnectionError(f"{self!r}: {self.health_path} answered {answer.status_code}")

    def reset(self) -> None:
        """Close answers that were not read; a client as new, without cookies. Connections stay open.

        A client that `fn` has closed is made anew, with its connections.
        """
        client = self._live
        client.end_streams()
        if client.is_closed:
            self.close()
            self.open()
        else:
            self._client = self._made.renewed()

    def close(self) -> None:
        """Close the client and its connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @property
    def connection(self) -> httpx.Client:
        """The `httpx.Client`."""
        return self._live

    @property
    def _live(self) -> Client:
        if self._client is None:
            raise ConnectionError(f"{self!r} is closed")
        return self._client

    def is_disconnect(self, error: BaseException) -> bool:
        """Never: the client connects anew by itself, and one refused call says nothing about the next."""
        return False

    # -- calls --------------------------------------------------------------------------------------------

    @method
    def get(self, path: str, params: Any = None, headers: Mapping[str, str] | None = None) -> Response:
        """GET; `params` are appended to a query that the path may have. Raises as `request`."""
        return self.request("GET", path, params=params, headers=headers)

    @method
    def post(
        self, path: str, body: Any = None, params: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """POST; text and bytes go as they are, any other body as JSON. Raises as `request`."""
        if body is None or isinstance(body, (str, bytes)):
            return self.request("POST", path, params=params, headers=headers, content=body)
        return self.request("POST", path, params=params, headers=headers, json=body)

    @method
    def request(
        self,
        method: str,
        path: str,
        *,
        params: Any = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        data: Mapping[str, Any] | None = None,
        content: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Any request.

        Args:
            json, data, content: the body: a value sent as JSON, a form, or text or bytes as they are.
            timeout: seconds, instead of the worker's.

        Raises:
            CallTimeout: no sign of life for that long; `cause` is httpx's error.
            httpx.HTTPError: the request failed in another way, redirects beyond `max_redirects` included.
        """
        body = {"json": json, "data": data, "content": content}
        with self._counting(method, path, timeout):
            answer = self._live.request(method, self._url(path, params), headers=headers, **body, **_given(timeout))
        return Response(answer.status_code, _headers(answer), answer.content)

    @method
    def download(
        self,
        path: str,
        to: str | os.PathLike[str],
        params: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Response:
        """GET into the file `to` of the worker's host, in bounded memory; the file appears when it is complete.

        A status that is not 2xx writes no file, and its body is in the answer. Raises as `request`, and `OSError`.
        """
        part = f"{os.fspath(to)}.{os.getpid()}.part"
        with (
            self._counting("GET", path, timeout),
            self._live.stream("GET", self._url(path, params), headers=headers, **_given(timeout)) as answer,
        ):
            if not answer.is_success:
                return Response(answer.status_code, _headers(answer), answer.read())
            try:
                with open(part, "wb") as file:
                    for chunk in answer.iter_bytes(_CHUNK):
                        file.write(chunk)
                os.replace(part, to)
            except BaseException:
                if os.path.exists(part):
                    os.unlink(part)
                raise
        return Response(answer.status_code, _headers(answer))

    @method
    def get_status(self) -> dict[str, Any]:
        """Settings and counters; secrets are masked. `last_request_at` is a Unix time, `uptime` seconds."""
        return {
            "base_url": _without_login(self.base_url),
            "timeout": self.timeout,
            "headers": {name: "***" if _SECRET.search(name) else value for name, value in self.headers.items()},
            "stats": {
                "requests_made": self._requests,
                "last_request_at": self._last_request_at,
                "errors": self._errors,
            },
            "uptime": 0.0 if self._opened_at is None else time.monotonic() - self._opened_at,
        }

    @contextmanager
    def _counting(self, method: str, path: str, timeout: float | None) -> Iterator[None]:
        """Count one request, and make httpx's timeouts ours."""
        from actorpool.workers.http_client import TimeoutException, without_request

        self._requests += 1
        self._last_request_at = time.time()
        begun = time.monotonic()
        try:
            yield
        except TimeoutException as error:
            self._errors += 1
            limit = self.timeout if timeout is None else timeout
            raise CallTimeout(
                f"{method} {self._shown(path)}: {type(error).__name__} after {limit:g} s without a sign of life; "
                "raise timeout= of the call or of the worker",
                waited=time.monotonic() - begun,
                cause=without_request(error),
            ) from error
        except Exception as error:
            self._errors += 1
            without_request(error, f"{method} {self._shown(path)}")
            raise

    def find_method(self, name: str) -> Callable[..., Any] | None:
        """None: there is no such method. Raises `MethodNotFound` where it can say more than that."""
        if name in ("put", "patch", "delete", "head", "options"):
            text = f"{type(self).__name__} has no method {name!r}: call request({name.upper()!r}, path, json=...)"
            raise MethodNotFound(text)
        return super().find_method(name)

    def _url(self, path: str, params: Any) -> str:
        from httpx import QueryParams

        if "://" in path.partition("?")[0]:
            raise ValueError(f"expected a path below {_without_login(self.base_url)}, not a URL")
        url = f"{self.base_url}/{path.lstrip('/')}" if path else self.base_url
        if not params:
            return url
        return f"{url}{'&' if '?' in url else '?'}{QueryParams(params)}"

    def _shown(self, path: str) -> str:
        path = path.partition("?")[0]  # a query may hold keys
        return f"{_without_login(self.base_url)}/{path.lstrip('/')}"


def _given(timeout: float | None) -> dict[str, Any]:
    return {} if timeout is None else {"timeout": timeout}


def _headers(answer: httpx.Response) -> Headers:
    return Headers((name.lower(), value) for name, value in answer.headers.items())


def _bad_url(url: Any) -> str | None:
    if url is None:
        return "is required: where requests go, such as https://api.example.com"
    if not isinstance(url, str):
        return f"must be a string, not {type(url).__name__}"
    if not url.strip():
        return "is empty: where requests go, such as https://api.example.com"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (it is read when it is asked for)
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme.lower() not in ("http", "https"):
        return "must begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if parts.query or parts.fragment:
        return "has a query or a fragment, to which no path can be appended: give params={...} with the calls"
    return None


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url
