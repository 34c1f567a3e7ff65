"""A sandbox in another process, controlled over its own routes."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_agenty.sandbox.commands import encode_arguments
from airflow_provider_agenty.sandbox.controls import Controls
from airflow_provider_agenty.sandbox.front import CONTROL_PREFIX, KEY_HEADER

if TYPE_CHECKING:
    import ssl

_ERRORS: dict[str, type[Exception]] = {
    "LookupError": LookupError,
    "PermissionError": PermissionError,
    "TypeError": TypeError,
    "ValueError": ValueError,
}


class RemoteSandbox(Controls):
    """
    The sandbox at an address, with the same methods as :class:`Sandbox`.

    :param url: its address, with or without ``/v2``.
    :param key: its API key.
    :param timeout: seconds that a control call may take.
    :param context: TLS context for an ``https`` address; ``None``: Python's default.
    :raises OSError: it cannot be reached.
    :raises PermissionError: the key is not its key.
    """

    def __init__(self, url: str, key: str, *, timeout: float = 30.0, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._timeout = timeout
        self._context = context
        self.key = key
        about = self._command("info")
        self.url: str = about["url"]
        self.download_url: str = about["download_url"]
        self.forbidden_key: str = about["forbidden_key"]
        self._connection: dict[str, Any] = about["connection"]

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection to it."""
        return dict(self._connection)

    def _command(self, name: str, /, **arguments: Any) -> Any:
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)
            if self._secure
            else http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        )
        try:
            body = json.dumps(encode_arguments(arguments))
            headers = {"Content-Type": "application/json", KEY_HEADER: self.key}
            connection.request("POST", f"{CONTROL_PREFIX}/{name}", body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise _ERRORS.get(answer.get("error", ""), RuntimeError)(answer.get("message", "The sandbox failed."))
        return answer["result"]
