"""
The one way to open HTTP sessions: timeouts always set, the key only to its own host, no netrc, nothing in any log.

A session reads answers until the deadline in force (see :mod:`airflow_provider_agenty.api.deadline`) and no longer.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import logging
import math
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from airflow_provider_agenty import __version__
from airflow_provider_agenty.api.deadline import seconds_left
from airflow_provider_agenty.connection import Settings, is_loopback, origin

KEY_HEADER = "X-Agenty-ApiKey"
KEY_PARAMETER = "apikey"
CONNECTIONS = 16  # that are kept open: at least as many as there are pages fetched ahead
USER_AGENT = f"airflow-provider-agenty/{__version__}"


class KeyAuth(AuthBase):
    """Puts the API key into requests to the API's own host, and into no other."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.key
        self._in_query = settings.authentication == "query"
        self._origin = origin(settings.base_url)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the key, if the request goes to the API."""
        if request.url and origin(request.url) == self._origin:
            if self._in_query:
                request.prepare_url(request.url, {KEY_PARAMETER: self._key})
            else:
                request.headers[KEY_HEADER] = self._key
        return request


class NoAuth(AuthBase):
    """Adds nothing. A session without any authentication would look into netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add nothing."""
        return request


class _ReaderWithDeadline(io.RawIOBase):
    """Reads from a connection until the deadline in force: a read timeout alone begins anew with each byte."""

    def __init__(self, raw: Any, connection: Any) -> None:
        self._raw = raw
        self._connection = connection
        self._timeout = connection.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = seconds_left()
        if left <= 0:
            raise TimeoutError("the deadline of the request has passed")
        finite = [seconds for seconds in (self._timeout, left) if seconds is not None and not math.isinf(seconds)]
        self._connection.settimeout(min(finite, default=None))
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.settimeout(self._timeout)  # it may be used again
        self._raw.close()
        super().close()


class _ResponseWithDeadline(http.client.HTTPResponse):
    """An answer that is read until the deadline in force, from its status line to its last byte."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if not math.isinf(seconds_left()):
            self.fp = io.BufferedReader(_ReaderWithDeadline(self.fp.detach(), sock))


@functools.cache
def _reading_with_deadline(connection_class: type[Any]) -> type[Any]:
    return type(connection_class.__name__, (connection_class,), {"response_class": _ResponseWithDeadline})


class AdapterWithDeadline(HTTPAdapter):
    """Reads answers until the deadline in force, whether they come directly or through a proxy of any kind."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool for a request, whose connections read with a deadline."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _reading_with_deadline(type(pool).ConnectionCls)
        return pool


_asking: ContextVar[bool] = ContextVar("agenty_asking", default=False)


def _is_not_asking(_: logging.LogRecord) -> bool:
    return not _asking.get()


# At DEBUG it writes each address that is asked, and so the key in a query and the signature of a link. Airflow masks
# them in a task's log, and nobody does where the record is printed elsewhere.
for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.response", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_is_not_asking)


def _allowed_proxies(url: str | None, proxies: Any) -> Any:
    # A proxy would be sent the key in clear, and could not reach this machine's loopback anyway.
    return {} if is_loopback(urlsplit(url or "").hostname) else proxies


class Session(requests.Session):
    """
    A :class:`requests.Session` with the settings of a connection.

    Timeouts, TLS and proxies of the connection apply to each request that does not name its own. They win over the
    environment's. With the key, no redirect is followed: two clients need not agree on what is the same host.

    :param authenticated: Whether requests to the API's host carry the key. A URL may be a path below the base URL.
    """

    def __init__(self, settings: Settings, *, authenticated: bool) -> None:
        super().__init__()
        self._settings = settings
        self._authenticated = authenticated
        self.auth = KeyAuth(settings) if authenticated else NoAuth()
        self.headers["User-Agent"] = USER_AGENT
        for scheme in ("https://", "http://"):
            self.mount(scheme, AdapterWithDeadline(pool_maxsize=CONNECTIONS))

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, as :meth:`requests.Session.request` does, with the connection's defaults."""
        settings = self._settings
        kwargs.setdefault("timeout", (settings.connect_timeout, settings.read_timeout))
        if isinstance(url, str) and url.startswith("/"):
            url = settings.base_url + url
        return super().request(method, url, *args, **kwargs)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Put the connection's proxies and TLS setting before the environment's, also for a prepared request."""
        settings = self._settings
        if verify is None and settings.verify is not True:
            verify = settings.verify
        merged = super().merge_environment_settings(url, {**settings.proxies, **(proxies or {})}, stream, verify, cert)
        return {**merged, "proxies": _allowed_proxies(url, merged["proxies"])}

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request, as :meth:`requests.Session.send` does, without a line in urllib3's log."""
        kwargs["proxies"] = _allowed_proxies(request.url, kwargs.get("proxies"))
        token = _asking.set(True)
        try:
            return super().send(request, **kwargs)
        finally:
            _asking.reset(token)

    def get_redirect_target(self, response: requests.Response) -> str | None:
        """Return where a redirect leads; with a key nowhere."""
        return None if self._authenticated else super().get_redirect_target(response)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:  # noqa: ARG002
        """Authenticate the request that follows a redirect, never with what netrc holds."""
        if isinstance(self.auth, AuthBase):
            self.auth(prepared_request)
