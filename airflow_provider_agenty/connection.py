"""How Agenty is reached: what a connection says, checked and converted."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from airflow_provider_agenty.exceptions import AgentyInputError

DEFAULT_BASE_URL = "https://api.agenty.com/v2"
DEFAULT_CONNECT_TIMEOUT = 10.0
DEFAULT_READ_TIMEOUT = 60.0
DEFAULT_MAX_ATTEMPTS = 5
AUTHENTICATIONS = ("header", "query")

_PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})
_KEY = re.compile(r"[!-~]+")
_PATH = re.compile(r"[A-Za-z0-9._~/-]+")
_LONGEST_LABEL = 63
_EXTRA_FIELDS = ("auth", "timeout", "proxies", "verify", "max_attempts")

# Airflow reads what is neither JSON nor a URI as the path of a URI, without its first character.
_PART_OF_A_CONNECTION = re.compile(r"onn_type|genty:?//|_CONN_\w+=|^\s*(\w+\s+)?\w+=.*(\{|//)", re.DOTALL)
_OPENING = re.compile(r"""[\s\\\ufeff\u200b]*["'`\u2018-\u201d{]""")


@dataclass(frozen=True)
class Settings:
    """
    What it takes to talk to Agenty.

    :param base_url: Where the API is, without a trailing slash.
    :param key: The API key.
    :param authentication: Where the key goes: ``header`` (default) or ``query``.
    :param connect_timeout: Seconds to wait for a connection. Default 10.
    :param read_timeout: Seconds to wait for the next bytes of an answer. Default 60.
    :param proxies: A proxy's URL by scheme, as ``requests`` takes it; empty: what the environment says.
    :param verify: Whether TLS certificates are checked (default), or the path of a CA bundle.
    :param max_attempts: How often a read is tried, the first try counted. Default 5.
    """

    base_url: str
    key: str = field(repr=False)
    authentication: str = "header"
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    read_timeout: float = DEFAULT_READ_TIMEOUT
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    max_attempts: int = DEFAULT_MAX_ATTEMPTS

    @classmethod
    def from_fields(
        cls,
        *,
        password: str | None,
        host: str | None = None,
        port: int | str | None = None,
        schema: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Settings:
        """
        Read the fields of a connection, each of which may be text, since a connection URI gives only text.

        :param password: The API key; whitespace around it is removed.
        :param host: The base URL, with or without scheme, port and path. Default ``https://api.agenty.com/v2``.
        :param port: The port, unless the host names it.
        :param schema: ``http`` or ``https``: the scheme. Anything else: the path.
        :param extra: ``auth``, ``timeout``, ``proxies``, ``verify``, ``max_attempts``. A name that is missing is read
            from ``extra__agenty__auth`` and so on.
        :raises AgentyInputError: naming the field that can't be used. Its value, which may be a key put into the
            wrong field, is not repeated.
        """
        values = _read_extra(extra or {})
        try:
            connect_timeout, read_timeout = _read_timeout(values.get("timeout"))
            return cls(
                base_url=_read_base_url(host, port, schema),
                key=_read_key(password),
                authentication=_read_authentication(values.get("auth", "header")),
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                proxies=_read_proxies(values.get("proxies")),
                verify=_read_verify(values.get("verify", True)),
                max_attempts=_read_max_attempts(values.get("max_attempts", DEFAULT_MAX_ATTEMPTS)),
            )
        except AgentyInputError as error:
            refusal = error
        fields = {"host": host, "port": port, "schema": schema, "password": password}
        raise _misread_connection(fields, extra or {}) or refusal


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a URL: what two URLs have in common when they lead to one server."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
    return parts.scheme.lower(), (parts.hostname or "").lower(), port


def is_loopback(host: str | None) -> bool:
    """Return whether a host is this machine itself."""
    name = (host or "").strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _read_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are set. Airflow 2 kept them under longer names, and its form still shows those."""
    values = {}
    for name in _EXTRA_FIELDS:
        for key in (f"extra__agenty__{name}", name):
            if extra.get(key) not in (None, ""):
                values[name] = extra[key]
    return values


def _misread_connection(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> AgentyInputError | None:
    """Return the refusal of a connection that Airflow put whole into one of its fields, if it seems to be one."""
    texts = {name: str(value) for name, value in fields.items() if value is not None}
    misread = [name for name, text in texts.items() if _is_misread(text)]
    if any(_PART_OF_A_CONNECTION.search(text) for item in extra.items() for text in item if isinstance(text, str)):
        misread.append("extra")
    if not misread:
        return None
    return AgentyInputError(
        f"The connection's {misread[0]} can't be used: are there quotes or an encoding around it, or is a whole "
        "connection in it? Give Airflow the JSON or the URI alone, encoded once, without NAME= before it and without "
        "quotes around it (docker's --env-file keeps them)."
    )


def _is_misread(text: str) -> bool:
    return _OPENING.match(text) is not None or _PART_OF_A_CONNECTION.search(text) is not None


def _read_key(password: str | None) -> str:
    key = (password or "").strip()
    if not key:
        raise AgentyInputError(
            "The connection has no API key. Put the key, made in Agenty under Settings, API keys, into its password."
        )
    if not _KEY.fullmatch(key) or _is_misread(key):
        raise AgentyInputError(
            "The API key in the connection's password holds a character that no key has (a space, a line break, "
            "or one outside ASCII). Copy it again."
        )
    return key


def _read_base_url(host: str | None, port: int | str | None, schema: str | None) -> str:
    host = (host or "").strip()
    scheme, path = "https", ""
    if schema and schema.strip():
        if schema.strip().lower() in {"http", "https"}:
            scheme = schema.strip().lower()
        else:
            path = _check_path(schema.strip())
    if not host:
        host = DEFAULT_BASE_URL if port in (None, "", 443, "443") and not path else "api.agenty.com"
    parts = _split_host(host, scheme)
    number = parts.port if parts.port is not None else _read_port(port)
    path = parts.path.strip("/") or path.strip("/") or "v2"
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise AgentyInputError(
            "The connection's host asks for plain http to another machine: anybody on the way could read the API key. "
            "Use https; http is for this machine alone."
        )
    if number == {"http": 80, "https": 443}[parts.scheme]:
        number = None
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{name}{f':{number}' if number is not None else ''}/{path}"


def _check_path(path: str) -> str:
    if not _PATH.fullmatch(path) or ".." in path:
        raise AgentyInputError(
            "The connection's schema is neither http, nor https, nor the path of the API, such as v2. Correct it, or "
            "leave it empty."
        )
    return path


def _split_host(host: str, scheme: str) -> SplitResult:
    if "://" not in host:
        if host.count(":") > 1 and not host.startswith("["):
            host = f"[{host}]"
        host = f"{scheme}://{host}"
    with contextlib.suppress(ValueError):
        parts = urlsplit(host)
        if (
            parts.scheme.lower() in {"http", "https"}
            and _is_host_name(parts.hostname)
            and "@" not in parts.netloc
            and not parts.query
            and not parts.fragment
            and not re.search(r"[\s\\]", host)
            and parts.port != 0
        ):
            return parts
    raise AgentyInputError(
        "The connection's host is not a URL that can be used. It looks like https://api.agenty.com/v2: a host with, "
        "if need be, scheme http or https, port and path, and neither user, query nor fragment."
    )


def _is_host_name(name: str | None) -> bool:
    if not name:
        return False
    if ":" in name:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
    if any(len(label) > _LONGEST_LABEL for label in name.split(".")):
        return False
    return re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?", name.lower()) is not None and ".." not in name


def _read_port(port: int | str | None) -> int | None:
    if port is None or port == "":
        return None
    number = _to_number(port)
    if number is None or number != int(number) or not 0 < number < 65536:
        raise AgentyInputError("The connection's port is not a number from 1 to 65535.")
    return int(number)


def _read_authentication(value: Any) -> str:
    text = str(value).strip().lower()
    if text not in AUTHENTICATIONS:
        raise AgentyInputError("auth in the connection's extra is not known. It is 'header' (the default) or 'query'.")
    return text


def _read_timeout(value: Any) -> tuple[float, float]:
    refusal = AgentyInputError(
        "timeout in the connection's extra can't be used. It is a number of seconds above 0, or "
        '{"connect": 10, "read": 60}.'
    )
    value = _from_json(value)
    if value is None:
        return DEFAULT_CONNECT_TIMEOUT, DEFAULT_READ_TIMEOUT
    if isinstance(value, Mapping):
        if not set(value) <= {"connect", "read"}:
            raise refusal
        seconds = (
            _to_number(value.get("connect", DEFAULT_CONNECT_TIMEOUT)),
            _to_number(value.get("read", DEFAULT_READ_TIMEOUT)),
        )
    else:
        seconds = (_to_number(value), _to_number(value))
    connect, read = seconds
    if connect is None or read is None or not (0 < connect < 86_400 and 0 < read < 86_400):
        raise refusal
    return connect, read


def _read_proxies(value: Any) -> dict[str, str]:
    refusal = AgentyInputError(
        "proxies in the connection's extra can't be used. It is the URL of a proxy, or one by scheme: "
        '{"https": "http://proxy.example:3128"}.'
    )
    value = _from_json(value)
    if value is None:
        return {}
    proxies = {"http": value, "https": value} if isinstance(value, str) else value
    if not isinstance(proxies, Mapping):
        raise refusal
    for scheme, url in proxies.items():
        if not isinstance(scheme, str) or not isinstance(url, str) or not _is_proxy(url):
            raise refusal
    # To requests, an environment's proxy for a scheme would come before the connection's for all.
    fallback = proxies.get("all")
    return {**({"http": fallback, "https": fallback} if fallback else {}), **proxies}


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0
    except ValueError:
        return False
    return parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and port_is_valid


def _read_verify(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    text = str(value).strip()
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() in known:
        return known[text.lower()]
    # pathlib raises where a text is too long for a path.
    if not os.path.exists(text):  # noqa: PTH110
        raise AgentyInputError(
            "verify in the connection's extra is neither true, false nor the path of a CA bundle that exists here."
        )
    return text


def _read_max_attempts(value: Any) -> int:
    number = _to_number(value)
    if number is None or number != int(number) or number < 1:
        raise AgentyInputError("max_attempts in the connection's extra is not a whole number of at least 1.")
    return int(number)


def _from_json(value: Any) -> Any:
    """Decode what came as text although it is an object or a number."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _to_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == number and abs(number) != float("inf") else None
