"""Links that are secrets: where they may lead, how they are sent, and what may be said about them."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from airflow_provider_agenty.airflow_compat import mask_secret
from airflow_provider_agenty.api.models import unwrap
from airflow_provider_agenty.api.request import Answer
from airflow_provider_agenty.api.session import AdapterWithDeadline
from airflow_provider_agenty.exceptions import AgentyExportError

_LINK = re.compile(
    r"(?P<scheme>https?)://(?P<login>[\w.~!$&'()*+,;=:%-]*@)?(?P<host>[\w.~-]{1,253}|\[[\da-f:.]{2,45}\])"
    r"(?P<port>:\d{0,5})?(?P<target>[/?][^#]*)?(#.*)?",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SENT_AS_THEY_ARE = "".join(map(chr, range(0x21, 0x7F)))  # all that a request line may hold
_NAMES_OF_THIS_MACHINE = {"localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback"}

# Airflow replaces a mask wherever it occurs. A short one, a plain word or the name of a file would hide our own
# messages: the id of an agent, the path of what was landed.
_SHORTEST_MASK = 16
_SHORTEST_PASSWORD_MASKED = 8
_MAY_BE_A_SECRET = re.compile(r"(?=.*\d)(?=.*[A-Za-z])\S*")
_FILE_NAME = re.compile(r".*\.[A-Za-z0-9]{1,5}(\.gz)?")


@dataclass(frozen=True)
class Link:
    """A link that may be followed; of its parts only the host may be shown."""

    text: str
    server: str  # scheme, login, host and port
    host: str
    has_login: bool
    target: str  # path and query, to the letter

    def redirected(self, location: str) -> str:
        """Return where a ``Location`` leads, unchecked, without changing how it is written."""
        # http.client reads headers as Latin-1.
        location = quote(location.strip().encode("latin-1", "replace"), safe=_SENT_AS_THEY_ARE)
        if _HAS_SCHEME.match(location):
            return location
        if location.startswith("//"):
            return f"{self.server.partition(':')[0]}:{location}"
        if location.startswith("/"):
            return self.server + location
        return urljoin(self.server + self.target, location)


def link_in(answer: Answer) -> str:
    """Return the link in an answer of ``GET /jobs/{job_id}/export``; Airflow's logs hide what is secret in it."""
    values = unwrap(answer.json())
    link = (values.get("downloadlink") or values.get("downloadLink")) if isinstance(values, dict) else None
    if not isinstance(link, str) or not _is_link(link):
        raise answer.unexpected("holds no download link")
    for secret in secrets_in(link):
        mask_secret(secret)
    return link


def _is_link(text: str) -> bool:
    # Less strict than for a URL of a DAG's: a signed link is Agenty's, and may have a space in it.
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def read_link(text: str, *, schemes_to_this_machine: Collection[str] = ()) -> Link:
    """Take a link apart, if it may be followed: over https, and to no place where only the worker's services are."""
    found = _LINK.fullmatch(text) if isinstance(text, str) else None
    if not found or int((found["port"] or "")[1:] or 0) > 65535:
        raise AgentyExportError(
            "The download link (a secret, not shown here) is not an http or https URL. Tell Agenty."
        )
    scheme, host = found["scheme"].lower(), found["host"].strip("[]").lower()
    address = _address(host)
    at_this_machine = _is_this_machine(host, address)
    if scheme == "http" and not (at_this_machine and "http" in schemes_to_this_machine):
        raise AgentyExportError(
            f"The download link leads to {host} over plain http, which anyone on the way can read and change. The link "
            "was not followed. Tell Agenty."
        )
    if (at_this_machine and scheme not in schemes_to_this_machine) or (
        address is not None and (address.is_unspecified or address.is_link_local)
    ):
        raise AgentyExportError(
            f"The download link leads to {host}, where only services of the worker itself can be. The link was not "
            "followed. Tell Agenty."
        )
    target = quote(found["target"] or "/", safe=_SENT_AS_THEY_ARE, errors="surrogatepass")
    return Link(
        text=text,
        server=f"{scheme}://{found['login'] or ''}{found['host']}{found['port'] or ''}",
        host=host,
        has_login=bool(found["login"]),
        target=target if target.startswith("/") else f"/{target}",
    )


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is, in each spelling that the system takes for one: ``127.1``, ``2130706433``."""
    try:
        found = socket.getaddrinfo(host.rstrip("."), None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        address = ip_address(found[0][4][0])
    except (OSError, ValueError):
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_this_machine(host: str, address: IPv4Address | IPv6Address | None) -> bool:
    if address is not None:
        return address.is_loopback
    name = host.rstrip(".")
    return name in _NAMES_OF_THIS_MACHINE or name.endswith(".localhost")


def secrets_in(link: str) -> list[str]:
    """Return what to mask of a link: its password, what looks like a secret, and a query that holds such a thing."""
    address, _, query = link.partition("#")[0].partition("?")
    server, *values = address.partition("://")[2].split("/")
    password = server.rpartition("@")[0].partition(":")[2]
    pieces = [piece.partition("=") for piece in re.split("[&;]", query)]
    values += [value or name for name, _, value in pieces]
    found = [value for value in (*values, *map(unquote, values)) if _is_secret(value)]
    if any(secret in query for secret in found):
        found.append(query)
    if len(password) >= _SHORTEST_PASSWORD_MASKED:
        found += [password, unquote(password)]
    return list(dict.fromkeys(found))


def _is_secret(value: str) -> bool:
    return (
        len(value) >= _SHORTEST_MASK
        and _MAY_BE_A_SECRET.fullmatch(value) is not None
        and not _FILE_NAME.fullmatch(unquote(value))
    )


class LinkAdapter(AdapterWithDeadline):
    """
    Asks for :attr:`target`, whatever path the URL of a request has.

    requests and urllib3 write paths and queries anew (``%7E``, ``%2f``, ``//`` at the beginning), which a signature
    does not survive, and log them. So they are given the URL of the server only.
    """

    target = "/"

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool for a request, whose connections ask for the target."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = type("LinkConnection", (_LinkConnection, pool.ConnectionCls), {"adapter": self})
        return pool


class _LinkConnection(http.client.HTTPConnection):
    """Mixed into urllib3's connections, TLS and proxies or not."""

    adapter: LinkAdapter

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        # Without a tunnel, a proxy wants the URL of the server before the target.
        super().putrequest(method, url.removesuffix("/") + self.adapter.target, *args, **kwargs)
