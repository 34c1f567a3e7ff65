"""Errors of a connection in words that carry no link."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator


def describe_trouble(error: BaseException) -> str:
    """
    Say what happened to a connection.

    The texts of requests' and urllib3's errors hold the whole URL, so none of them is used.

    :param error: what requests, urllib3 or the system raised.
    :return: a clause, as in ``"the connection was refused"``.
    """
    chain = list(_with_reasons(error))
    for inner in chain:
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"the certificate was not accepted ({inner.verify_message})"
        if isinstance(inner, socket.gaierror):
            return "the host name could not be resolved"
        if isinstance(inner, ConnectionRefusedError):
            return "the connection was refused"
    names = {name for inner in chain for name in (kind.__name__ for kind in type(inner).__mro__)}
    for name, words in _BY_NAME.items():
        if name in names:
            return words
    return "the connection was cut"


# By name, because importing requests and urllib3 takes longer than all the rest of this package.
_BY_NAME = {
    "TooSlow": "less than 64 KiB came in four times the read timeout",
    "NameResolutionError": "the host name could not be resolved",
    "ProxyError": "the proxy did not let it through",
    "ConnectTimeout": "no connection came about in time",
    "ConnectTimeoutError": "no connection came about in time",
    "ReadTimeout": "no byte came in time",
    "ReadTimeoutError": "no byte came in time",
    "TimeoutError": "no byte came in time",
    "SSLError": "the TLS connection failed",
    "InvalidURL": "the link is not a valid URL",
    "LocationParseError": "the link is not a valid URL",
    "InvalidHeader": "a header of the request is not valid",
}


def _with_reasons(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        related = (*current.args, getattr(current, "reason", None), current.__cause__, current.__context__)
        waiting.extend(inner for inner in related if isinstance(inner, BaseException))
