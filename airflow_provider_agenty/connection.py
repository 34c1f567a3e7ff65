"""
The fields of an Agenty connection, and what they say, checked.

Airflow reads the fields while it starts, so nothing of Airflow is imported before a connection is read.
"""

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

CONNECTION_TYPE = "agenty"
HOOK_NAME = "Agenty"
DEFAULT_CONNECTION = "agenty_default"

DEFAULT_BASE_URL = "https://api.agenty.com/v2"
DEFAULT_CONNECT_TIMEOUT = 10.0
DEFAULT_READ_TIMEOUT = 60.0
DEFAULT_MAX_ATTEMPTS = 5
AUTHENTICATIONS = ("header", "query")

# Port is shown because Airflow 3.3.1 and 3.3.2 refuse to test a connection that has none. Extra is shown, although it
# has nothing but what the fields below it have, because the "Test" of Airflow 2.11 does nothing in a form without it.
HIDDEN_FIELDS = ("login", "schema")
LABELS = {"password": "API key", "host": "Base URL"}

_PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_KEY = re.compile(r"[!-~]+")
_PATH = re.compile(r"[A-Za-z0-9._~/-]+")
_HOST_NAME = re.compile(r"(?![-.])([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}(?<!-)\.?")
_LONGEST_TIMEOUT = 86_400

# Airflow reads what is neither JSON nor a URI as the path of a URI, without its first character.
_PART_OF_A_CONNECTION = re.compile(r"onn_type|genty:?//|_CONN_\w+=|^\s*(\w+\s+)?\w+=.*(\{|//)", re.DOTALL)
_OPENING = re.compile(r"""[\s\\\ufeff\u200b]*["'`\u2018-\u201d{]""")
_MISREAD = (
    "The connection's {} can't be used: are there quotes or an encoding around it, or is a whole connection in it? "
    "Give Airflow the JSON or the URI alone, encoded once, without NAME= before it and without quotes around it "
    "(docker's --env-file keeps them)."
)


# The form


@dataclass(frozen=True)
class ExtraField:
    """A field of the form that is kept in the connection's extra, with the JSON Schema of its value."""

    name: str
    label: str
    description: str  # It says the default: not every version shows placeholders.
    placeholder: str
    schema: Mapping[str, Any]


EXTRA_FIELDS = (
    ExtraField(
        "auth",
        "Authentication",
        "Where the API key goes: header (the default) or query. A key in the query can end up in the logs of proxies.",
        "header",
        {"type": ["string", "null"], "enum": list(AUTHENTICATIONS)},
    ),
    ExtraField(
        "timeout",
        "Timeouts",
        "Seconds to wait for a connection, and then for the next bytes of an answer: a number for both, or JSON. "
        'Default: {"connect": 10, "read": 60}',
        '{"connect": 10, "read": 60}',
        {"type": ["string", "number", "object", "null"]},
    ),
    ExtraField(
        "proxies",
        "Proxies",
        'The URL of a proxy, or JSON with one by scheme, such as {"https": "http://proxy.example:3128"}. Default: what '
        "HTTPS_PROXY and NO_PROXY in the environment say.",
        "http://proxy.example:3128",
        {"type": ["string", "object", "null"]},
    ),
    ExtraField(
        "verify",
        "TLS verification",
        "true (the default), false, or the path of a file of CA certificates, which has to be on every machine of "
        "Airflow.",
        "true",
        {"type": ["string", "null"], "examples": ["true", "false"]},
    ),
    ExtraField(
        "max_attempts",
        "Attempts",
        "How often a read is tried before it counts as failed, the first try counted. Default: 5",
        "5",
        {"type": ["integer", "null"]},
    ),
)

PLACEHOLDERS = {
    "password": "Made in Agenty under Settings, API keys",
    "host": DEFAULT_BASE_URL,
    "port": "443",
    **{each.name: each.placeholder for each in EXTRA_FIELDS},
}


def connection_type_info() -> dict[str, Any]:
    """Return the connection type as the provider's metadata describes it."""
    return {
        "connection-type": CONNECTION_TYPE,
        "hook-class-name": "airflow_provider_agenty.hooks.agenty.AgentyHook",
        "hook-name": HOOK_NAME,
        "ui-field-behaviour": {name.replace("_", "-"): value for name, value in field_behaviour().items()},
        "conn-fields": {
            each.name: {"label": each.label, "description": each.description, "schema": dict(each.schema)}
            for each in EXTRA_FIELDS
        },
    }


def field_behaviour() -> dict[str, Any]:
    """Return labels, placeholders and hidden fields as a hook describes them before Airflow 3.2."""
    return {"hidden_fields": list(HIDDEN_FIELDS), "relabeling": dict(LABELS), "placeholders": dict(PLACEHOLDERS)}


def form_widgets() -> dict[str, Any]:
    """Return the extra fields as a hook describes them before Airflow 3.2, where the form is made with wtforms."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import IntegerField, StringField
    from wtforms.validators import Optional, any_of

    class TextOrJsonWidget(BS3TextFieldWidget):  # type: ignore[misc]
        """Shows an object as the JSON that it was made from, so that it can be saved again."""

        def __call__(self, field: Any, **attributes: Any) -> Any:
            if isinstance(field.data, dict):
                attributes["value"] = json.dumps(field.data)
            return super().__call__(field, **attributes)

    def widget(each: ExtraField) -> Any:
        field_class = IntegerField if "integer" in each.schema["type"] else StringField
        validators = [Optional(), *([any_of(each.schema["enum"])] if "enum" in each.schema else [])]
        return field_class(each.label, widget=TextOrJsonWidget(), validators=validators, description=each.description)

    return {each.name: widget(each) for each in EXTRA_FIELDS}


# What a connection says


@dataclass(frozen=True)
class Settings:
    """
    The settings of a connection to Agenty.

    :param base_url: The address of the API, without a trailing slash.
    :param key: The API key.
    :param authentication: The place of the key in a request: ``header`` (default) or ``query``.
    :param connect_timeout: Seconds to wait for a connection. Default 10.
    :param read_timeout: Seconds to wait for the next bytes of an answer. Default 60.
    :param proxies: A proxy's URL by scheme, as ``requests`` takes it; empty: what the environment says.
    :param verify: Whether TLS certificates are checked (default), or the path of a CA bundle.
    :param max_attempts: The number of times that a read is tried, the first one counted. Default 5.
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
        :raises AgentyInputError: naming the field, without its value: that may be a key in the wrong place.
        """
        from airflow_provider_agenty.exceptions import AgentyInputError

        extra = extra or {}
        values = _read_extra(extra)
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
        except _FieldError as error:
            refusal = str(error)
        misread = _misread_field({"host": host, "port": port, "schema": schema, "password": password}, extra)
        raise AgentyInputError(refusal if misread is None else _MISREAD.format(misread))


class _FieldError(Exception):
    """A field of the connection can't be used."""


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a URL: what two URLs have in common when they lead to one server."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme.lower())
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
    for each in EXTRA_FIELDS:
        for key in (f"extra__agenty__{each.name}", each.name):
            if extra.get(key) not in (None, ""):
                values[each.name] = extra[key]
    return values


def _misread_field(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> str | None:
    """Return the field into which Airflow seems to have put a whole connection; ``None`` if there is none."""
    for name, value in fields.items():
        if value is not None and _is_misread(str(value)):
            return name
    texts = [text for item in extra.items() for text in item if isinstance(text, str)]
    return "extra" if any(_PART_OF_A_CONNECTION.search(text) for text in texts) else None


def _is_misread(text: str) -> bool:
    return _OPENING.match(text) is not None or _PART_OF_A_CONNECTION.search(text) is not None


def _read_key(password: str | None) -> str:
    key = (password or "").strip()
    if not key:
        raise _FieldError(
            "The connection has no API key. Put the key, made in Agenty under Settings, API keys, into its password."
        )
    if not _KEY.fullmatch(key) or _is_misread(key):
        raise _FieldError(
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
    parts = _split_host(host or "https://api.agenty.com", scheme)
    number = parts.port if parts.port is not None else _read_port(port)
    path = parts.path.strip("/") or path.strip("/") or "v2"
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise _FieldError(
            "The connection's host asks for plain http to another machine: anybody on the way could read the API key. "
            "Use https; http is for this machine alone."
        )
    if number == _DEFAULT_PORTS[parts.scheme]:
        number = None
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{name}{f':{number}' if number is not None else ''}/{path}"


def _check_path(path: str) -> str:
    if not _PATH.fullmatch(path) or ".." in path:
        raise _FieldError(
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
            and _is_host_name((parts.hostname or "").lower())
            and "@" not in parts.netloc
            and not parts.query
            and not parts.fragment
            and not re.search(r"[\s\\]", host)
            and parts.port != 0
        ):
            return parts
    raise _FieldError(
        "The connection's host is not a URL that can be used. It looks like https://api.agenty.com/v2: a host with, "
        "if need be, scheme http or https, port and path, and neither user, query nor fragment."
    )


def _is_host_name(name: str) -> bool:
    if ":" not in name:
        return _HOST_NAME.fullmatch(name) is not None
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _read_port(port: int | str | None) -> int | None:
    if port is None or port == "":
        return None
    number = _to_whole_number(port)
    if number is None or not 0 < number < 65536:
        raise _FieldError("The connection's port is not a number from 1 to 65535.")
    return number


def _read_authentication(value: Any) -> str:
    text = str(value).strip().lower()
    if text not in AUTHENTICATIONS:
        raise _FieldError("auth in the connection's extra is not known. It is 'header' (the default) or 'query'.")
    return text


def _read_timeout(value: Any) -> tuple[float, float]:
    refusal = _FieldError(
        "timeout in the connection's extra can't be used. It is a number of seconds above 0, or "
        '{"connect": 10, "read": 60}.'
    )
    value = _from_json(value)
    if value is None:
        return DEFAULT_CONNECT_TIMEOUT, DEFAULT_READ_TIMEOUT
    given = value if isinstance(value, Mapping) else {"connect": value, "read": value}
    if not set(given) <= {"connect", "read"}:
        raise refusal
    connect = _to_number(given.get("connect", DEFAULT_CONNECT_TIMEOUT))
    read = _to_number(given.get("read", DEFAULT_READ_TIMEOUT))
    if connect is None or read is None or not (0 < connect < _LONGEST_TIMEOUT and 0 < read < _LONGEST_TIMEOUT):
        raise refusal
    return connect, read


def _read_proxies(value: Any) -> dict[str, str]:
    refusal = _FieldError(
        "proxies in the connection's extra can't be used. It is the URL of a proxy, or one by scheme: "
        '{"https": "http://proxy.example:3128"}.'
    )
    value = _from_json(value)
    if value is None:
        return {}
    proxies = {"http": value, "https": value} if isinstance(value, str) else value
    if not isinstance(proxies, Mapping) or not all(isinstance(url, str) and _is_proxy(url) for url in proxies.values()):
        raise refusal
    # To requests, an environment's proxy for a scheme would come before the connection's for all.
    fallback = proxies.get("all")
    return {**({"http": fallback, "https": fallback} if fallback else {}), **proxies}


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _read_verify(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    text = str(value).strip()
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
    if known is not None:
        return known
    # pathlib raises where a text is too long for a path.
    if not os.path.exists(text):  # noqa: PTH110
        raise _FieldError(
            "verify in the connection's extra is neither true, false nor the path of a CA bundle that exists here."
        )
    return text


def _read_max_attempts(value: Any) -> int:
    number = _to_whole_number(value)
    if number is None or number < 1:
        raise _FieldError("max_attempts in the connection's extra is not a whole number of at least 1.")
    return number


def _from_json(value: Any) -> Any:
    """Decode what came as text although it is an object or a number."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _to_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == number and abs(number) != float("inf") else None


def _to_whole_number(value: Any) -> int | None:
    number = _to_number(value)
    return int(number) if number is not None and number == int(number) else None
