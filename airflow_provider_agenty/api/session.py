"""The one way to open HTTP sessions: timeouts always set, the key only to its own host, no netrc."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from airflow_provider_agenty import __version__
from airflow_provider_agenty.api.settings import Settings, is_loopback, origin

KEY_HEADER = "X-Agenty-ApiKey"
KEY_PARAMETER = "apikey"
CONNECTIONS = 16
"""How many connections are kept open: at least as many as there are pages fetched ahead."""

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


class Session(requests.Session):
    """
    A :class:`requests.Session` with the settings of a connection.

    Timeouts, TLS and proxies of the connection apply to each request that does not name its own; they win
    over the environment's, which apply where the connection says nothing. With the key, no redirect is
    followed to another host.

    :param settings: The settings.
    :param authenticated: Whether requests to the API's host carry the key; a URL may then be a path
        below the API's base URL, such as ``/jobs``.
    """

    def __init__(self, settings: Settings, *, authenticated: bool) -> None:
        super().__init__()
        self._settings = settings
        self._authenticated = authenticated
        self.auth = KeyAuth(settings) if authenticated else NoAuth()
        self.headers["User-Agent"] = USER_AGENT
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))

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
        if is_loopback(urlsplit(url).hostname):
            # A proxy would be sent the key in clear, and could not reach this machine's loopback anyway.
            merged["proxies"] = {}
        return merged

    def rebuild_proxies(self, prepared_request: requests.PreparedRequest, proxies: Any) -> Any:
        """Choose the proxy of a request that follows a redirect: none to this machine."""
        chosen = super().rebuild_proxies(prepared_request, proxies)  # type: ignore[no-untyped-call]
        return {} if is_loopback(urlsplit(prepared_request.url or "").hostname) else chosen

    def get_redirect_target(self, response: requests.Response) -> str | None:
        """Return where a redirect leads; with a key, only if it does not lead away from the host that was asked."""
        target = super().get_redirect_target(response)
        if target is None or not self._authenticated:
            return target
        try:
            leads_away = origin(urljoin(response.url, target)) != origin(response.url)
        except ValueError:
            leads_away = True
        return None if leads_away else target

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:  # noqa: ARG002
        """Authenticate the request that follows a redirect, never with what netrc holds."""
        if isinstance(self.auth, AuthBase):
            self.auth(prepared_request)
