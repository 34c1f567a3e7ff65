"""Links that are secrets: what may be asked of them and what may be said about them."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from airflow_provider_agenty.landing.errors import LandingError


def split_link(link: str) -> SplitResult:
    """
    Take a link apart, if it is one that may be followed.

    :param link: the link.
    :return: its parts.
    :raises LandingError: if it is none, or if it leads over plain http to another machine. Never quotes it.
    """
    parts = _split(link)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise LandingError("The download link is not an http or https URL; it is a secret and is not shown here.")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise LandingError(
            f"The download leads to {parts.hostname} over plain http, which anyone on the way can read and change: "
            "only https is followed. Nothing was asked of that host."
        )
    return parts


def _split(link: str) -> SplitResult | None:
    try:
        parts = urlsplit(link)
        parts.port  # noqa: B018 - raises where the port is none
    except (ValueError, TypeError, AttributeError):
        return None
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def secrets_in(parts: SplitResult) -> list[str]:
    """
    Name what must not be seen of a link.

    :param parts: the link's parts.
    :return: its query and its password, as far as it has them.
    """
    return [secret for secret in (parts.query, parts.password) if secret]
