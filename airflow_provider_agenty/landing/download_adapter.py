"""How the requests of a download are sent: for exactly what the link says, and answered within a time."""

from __future__ import annotations

import http.client
import io
import socket
import time
from types import TracebackType
from typing import Any

import requests
from requests.adapters import HTTPAdapter


class TooSlow(TimeoutError):  # noqa: N818 - reads as what it is
    """Something came within each read timeout, but not enough within the time that there was."""


class TimeLimit:
    """
    How long a server may be waited for until it has brought enough.

    Only time spent inside of ``with`` counts: what is done with the content in between is not the server's fault.

    :param seconds: the time.
    :param read_timeout: how long a single read may take, in seconds.
    """

    def __init__(self, seconds: float, read_timeout: float) -> None:
        self._seconds = seconds
        self._read_timeout = read_timeout
        self._spent = self._entered = 0.0

    def renew(self) -> None:
        """Begin to count anew: enough has come."""
        self._spent = 0.0
        self._entered = time.monotonic()

    def __enter__(self) -> None:
        self._entered = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._spent += time.monotonic() - self._entered

    def time_for_a_read(self) -> float:
        """
        Return how many seconds the next read may take.

        :raises TooSlow: if there is no time left.
        """
        left = self._seconds - self._spent - (time.monotonic() - self._entered)
        if left <= 0:
            raise TooSlow
        return min(left, self._read_timeout)


class DownloadAdapter(HTTPAdapter):
    """
    Asks for :attr:`target`, whatever path the URL of a request has.

    requests and urllib3 write paths and queries anew (``%7E``, ``%2f``, ``//`` at the beginning), which a signature
    does not survive, and log them. So they are given the URL of the server only.

    :param time_limit: what answers are read within.
    """

    def __init__(self, time_limit: TimeLimit) -> None:
        super().__init__()
        self.time_limit = time_limit
        self.target = "/"

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool of connections for a request, the connections being ours."""
        pool: Any = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        if not issubclass(pool.ConnectionCls, _Connection):
            pool.ConnectionCls = type("DownloadConnection", (_Connection, pool.ConnectionCls), {"adapter": self})
        return pool


class _Connection(http.client.HTTPConnection):
    """Mixed into urllib3's connections, TLS and proxies or not."""

    adapter: DownloadAdapter

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        # Without a tunnel, a proxy wants the URL of the server before the target.
        super().putrequest(method, url.removesuffix("/") + self.adapter.target, *args, **kwargs)

    def response_class(  # type: ignore[override]
        self, sock: socket.socket, *args: Any, **kwargs: Any
    ) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **kwargs)
        response.fp = io.BufferedReader(_TimedReader(response.fp.detach(), sock, self.adapter.time_limit))
        return response


class _TimedReader(io.RawIOBase):
    """A timeout of a socket is for each read; this one is for all of them, headers and chunk sizes included."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, time_limit: TimeLimit) -> None:
        self._raw = raw
        self._socket = sock
        self._time_limit = time_limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._time_limit.time_for_a_read())
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            self._time_limit.time_for_a_read()  # says so if there is no time left for another one
            raise

    def close(self) -> None:
        self._raw.close()
        super().close()
