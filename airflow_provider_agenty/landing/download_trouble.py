"""Says in words that carry no link what is wrong with a download."""

from __future__ import annotations

import re
import socket
import ssl

import requests
import urllib3

from airflow_provider_agenty.api.request import causes_of

HEAD_LENGTH = 2048  # bytes; enough for what storage services say first
_PAGE_TYPES = ("text/html", "application/xhtml+xml", "text/xml", "application/xml")
_JSON_TYPE = re.compile(r"application/(?:[\w.-]+\+)?json")
_JSON_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{]")
_PAGE_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:[!?]|[A-Za-z])")
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z]{1,60})</Code>")

NO_BYTE_IN_TIME = "no byte came in time"
_TROUBLE: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "the host name could not be resolved"),
    (ConnectionRefusedError, "the connection was refused"),
    (requests.exceptions.ProxyError, "the proxy did not let it through"),
    (requests.exceptions.ConnectTimeout, "no connection came about in time"),
    (requests.exceptions.ReadTimeout, NO_BYTE_IN_TIME),
    (urllib3.exceptions.ReadTimeoutError, NO_BYTE_IN_TIME),
    (TimeoutError, NO_BYTE_IN_TIME),
    (requests.exceptions.SSLError, "the TLS connection failed"),
    (ssl.SSLError, "the TLS connection failed"),
    (requests.exceptions.InvalidURL, "the link is not a valid URL"),
    (requests.exceptions.InvalidHeader, "a header of the request is not valid"),
)


def describe_trouble(error: BaseException) -> str:
    """Say what happened to a connection. The texts of requests' and urllib3's errors hold the whole URL."""
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate was not accepted ({cause.verify_message})"
    for kind, words in _TROUBLE:
        if any(isinstance(cause, kind) for cause in causes):
            return words
    return "the connection was cut"


def page_instead_of_file(content_type: str, head: bytes) -> str | None:
    """Say what a body with status 200 is by its first bytes, if that is an error page rather than a file."""
    kind = content_type.split(";")[0].strip().lower()
    if _JSON_TYPE.fullmatch(kind) and _JSON_START.match(head):
        # Neither alone: some stores give any file a type of their own, and a file may begin with a brace or a bracket.
        return "a JSON document"
    if kind not in _PAGE_TYPES and not _PAGE_START.match(head):
        return None
    language = "HTML" if "html" in kind or b"<html" in head.lower() else "XML"
    code = _ERROR_CODE.search(head)
    return f"an {language} page" + (f" with the code {code[1].decode()}" if code else "")
