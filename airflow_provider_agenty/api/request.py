"""One request and its answer: sent, read within its bounds, classified, decoded, retried where that is harmless."""

from __future__ import annotations

import io
import re
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import requests

from airflow_provider_agenty.api.deadline import seconds_left, time_limit
from airflow_provider_agenty.api.models import Job, holds_job
from airflow_provider_agenty.api.retry import RetryPolicy
from airflow_provider_agenty.api.session import Session
from airflow_provider_agenty.api.validation import (
    LARGEST_ANSWER,
    LONGEST_NAME,
    clean_text,
    read_json,
    read_retry_after,
)
from airflow_provider_agenty.connection import Settings
from airflow_provider_agenty.exceptions import (
    AgentyAnswerTooLargeError,
    AgentyAuthError,
    AgentyError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyUnavailableError,
    AgentyUnexpectedAnswerError,
)

READ_TIMEOUTS_PER_REQUEST = 4
"""A request as a whole takes at most the connect timeout and so many read timeouts."""

_SHOWN_CHARACTERS = 200
_LOOKED_AT = 16 * 1024
_BEHIND_HOST = re.compile(r"(\w{1,10}:(?:\\?/){2}[^/\\\s\"'<>?#]{1,300})[^\s\"'<>]+")
_LONGEST_MESSAGE = 1_000
_LONGEST_DETAIL = 250
_MOST_DETAILS = 10
_READ_AT_ONCE = 256 * 1024
# A step of decompression makes up to a thousand bytes of each.
_COMPRESSED_READ_AT_ONCE = 8 * 1024
# Others, and several at once, could make far more of each byte.
_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})


@dataclass(frozen=True)
class Answer:
    """What came back: the call it answers, its status, its headers and its body."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    key: str = field(default="", repr=False)

    @property
    def call(self) -> str:
        """The call, for messages: ``GET /jobs/7``."""
        return f"{self.method} {self.path}"

    def json(self) -> Any:
        """
        Return the decoded body, as :func:`~airflow_provider_agenty.api.validation.read_json` does.

        :raises AgentyUnexpectedAnswerError: if the body is not JSON.
        """
        try:
            return read_json(self.body, key=self.key)
        except ValueError:
            pass
        raise self.unexpected("is not JSON")

    def clean(self, text: str) -> str:
        """
        Return a text of the answer for people, as :func:`~airflow_provider_agenty.api.validation.clean_text` does.

        :param text: The text.
        """
        return clean_text(text, key=self.key)

    def read_job(self, values: Any) -> Job:
        """
        Return a job in the decoded body.

        :param values: The body, or the part of it that is the job.
        :raises AgentyUnexpectedAnswerError: if it is none.
        """
        if not holds_job(values):
            raise self.unexpected("holds no job: job_id or status is missing")
        return Job.from_answer(values, clean=self.clean)

    def job(self, job_id: int | None = None) -> Job:
        """
        Return the job in the body.

        :param job_id: The job that was asked for. Default: any.
        :raises AgentyUnexpectedAnswerError: if the body holds no job, or another one.
        """
        job = self.read_job(self.json())
        if job_id is not None and job.job_id != job_id:
            raise self.unexpected(f"holds another job, {job.job_id}")
        return job

    @property
    def holds_job(self) -> bool:
        """Whether the body holds a job, whatever the status says."""
        try:
            return holds_job(read_json(self.body))
        except ValueError:
            return False

    @property
    def says_html(self) -> bool:
        """Whether the headers say that the body is a web page, such as the one a proxy asks for a login with."""
        return "html" in self.headers.get("Content-Type", "").lower()

    @property
    def is_whole_page(self) -> bool:
        """Whether the body begins as a web page does."""
        return self.body[:_SHOWN_CHARACTERS].lstrip().lower().startswith((b"<!doctype html", b"<html"))

    def unexpected(self, what: str) -> AgentyUnexpectedAnswerError:
        """
        Make the error that says in which way this answer is not what the API promises.

        :param what: The rest of the sentence that begins with "the answer".
        """
        return AgentyUnexpectedAnswerError(
            f"{self.call}: the answer (HTTP {self.status}) {what}. It begins: '{self.beginning()}'"
        )

    def beginning(self) -> str:
        """Return the first characters of the body, of a URL in it no more than the host."""
        # As much as is looked at, so that no secret is cut in two.
        text = self.body[:_LOOKED_AT].decode("utf-8", errors="replace")
        return clean_text(_BEHIND_HOST.sub(r"\1/***", text), key=self.key, longest=_SHOWN_CHARACTERS)


class Transport:
    """
    Sends requests to the API.

    :param settings: Where to, with which key and how patiently.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.session = Session(settings, authenticated=True)
        self.retry_policy = RetryPolicy(max_attempts=settings.max_attempts)

    def close(self) -> None:
        """Close the session and its connections."""
        self.session.close()

    def read(self, path: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        """
        Ask for something, again if need be: a read can be repeated without harm.

        :param path: The path below the base URL, such as ``/jobs``.
        :param parameters: What goes into the query.
        :raises AgentyError: as the answer, or its absence, deserves.
        """
        return self.retry_policy.call(
            lambda: self._accept(self._exchange("GET", path, parameters=parameters)),
            again_if=lambda error: error.passing,
        )

    def send(
        self, method: str, path: str, body: Any = None, *, refusal_may_answer: bool = False, repeatable: bool = False
    ) -> Answer:
        """
        Send something that changes the account: again only if Agenty certainly did not act on it.

        :param method: The HTTP method.
        :param path: The path below the base URL.
        :param body: What is sent as JSON.
        :param refusal_may_answer: Whether an answer with a status 4xx is handed back rather than raised.
        :param repeatable: Whether acting on it twice is the same as once, so that it is sent again as a read is.
        :raises AgentyError: as the answer, or its absence, deserves.
        """

        def attempt() -> Answer:
            answer = self._exchange(method, path, body=body)
            is_refusal = 400 <= answer.status < 500 and answer.status != HTTPStatus.TOO_MANY_REQUESTS
            if refusal_may_answer and is_refusal:
                return answer
            return self._accept(answer)

        return self.retry_policy.call(
            attempt, again_if=lambda error: error.passing and (repeatable or not error.acted_on)
        )

    def _exchange(
        self, method: str, path: str, *, parameters: Mapping[str, Any] | None = None, body: Any = None
    ) -> Answer:
        handled = sys.exception()
        settings = self.settings
        with time_limit(settings.connect_timeout + READ_TIMEOUTS_PER_REQUEST * settings.read_timeout):
            if not seconds_left():
                raise AgentyUnavailableError(
                    f"{method} {path}: not asked, there is no time left", kind="timeout", acted_on=False, passing=False
                )
            request = None
            try:
                request = self.session.prepare_request(
                    requests.Request(
                        method,
                        settings.base_url + path,
                        params=parameters,
                        json=body,
                        headers={"Accept-Encoding": "gzip, deflate"},
                    )
                )
                return self._receive(method, path, request)
            except AgentyAnswerTooLargeError:
                raise
            # An odd answer makes requests, urllib3 and http.client raise what they do not document.
            except Exception as error:
                failure = describe_failure(error, method, path, settings, handled, sent=request is not None)
        # Raised out here: the text of requests' exception holds the URL, and so perhaps the key.
        raise failure

    def _receive(self, method: str, path: str, request: requests.PreparedRequest) -> Answer:
        settings = self.settings
        options = self.session.merge_environment_settings(request.url, {}, True, None, None)
        left = seconds_left()
        timeout = (min(settings.connect_timeout, left), min(settings.read_timeout, left))
        response = self.session.send(request, timeout=timeout, allow_redirects=False, **options)
        with response:
            encoding = response.headers.get("Content-Encoding", "").strip().lower()
            if encoding not in _ENCODINGS:
                raise requests.exceptions.ContentDecodingError
            body = io.BytesIO()
            for piece in response.iter_content(_COMPRESSED_READ_AT_ONCE if encoding else _READ_AT_ONCE):
                body.write(piece)
                if body.tell() > LARGEST_ANSWER:
                    raise AgentyAnswerTooLargeError(
                        f"{method} {path}: the answer (HTTP {response.status_code}) is larger than "
                        f"{LARGEST_ANSWER // 1024**2} MiB, which is the most that is read of one"
                    )
        return Answer(method, path, response.status_code, response.headers, body.getvalue(), settings.key)

    def _accept(self, answer: Answer) -> Answer:
        """Return the answer if it is one, raise what it means otherwise."""
        if 200 <= answer.status < 300:
            return answer
        raise read_refusal(answer)


def read_refusal(answer: Answer) -> AgentyError:
    """Return the error that an answer other than 2xx stands for."""
    status = answer.status
    if 300 <= status < 400:
        host = answer.clean(_host_of(answer.headers.get("Location", "")) or "somewhere else")[:LONGEST_NAME]
        return AgentyUnexpectedAnswerError(
            f"{answer.call}: the answer (HTTP {status}) is a redirect to {host}, which is not followed so that the key "
            "stays with the API. Check the connection's host"
        )
    message, details = _read_complaint(answer)
    said = "; ".join(part for part in (message, *details) if part)
    sentence = f"{answer.call}: {_phrase(status)}" + (f": {said}" if said else "")
    if status == HTTPStatus.UNAUTHORIZED:
        return AgentyAuthError(
            f"{sentence}. Agenty does not know the API key: check it in the connection, where it is the password."
        )
    if status == HTTPStatus.FORBIDDEN:
        return AgentyAuthError(f"{sentence}. The API key may not do this: check its role in Agenty.")
    if status == HTTPStatus.NOT_FOUND:
        return AgentyNotFoundError(
            f"{sentence}. The account of this API key has nothing there: check the id, and the connection's host."
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
        return AgentyUnavailableError(
            sentence,
            kind="status",
            acted_on=status != HTTPStatus.TOO_MANY_REQUESTS,
            passing=status != HTTPStatus.NOT_IMPLEMENTED,
            retry_after=read_retry_after(answer.headers.get("Retry-After")),
            status=status,
        )
    return AgentyRequestError(sentence, message=message, details=details, status=status)


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _phrase(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _read_complaint(answer: Answer) -> tuple[str, tuple[str, ...]]:
    """Return Agenty's message and its details, in whichever of their shapes they came."""
    try:
        complaint = read_json(answer.body, key=answer.key)
    except ValueError:
        is_page = answer.says_html or answer.body[:_SHOWN_CHARACTERS].lstrip()[:1] == b"<"
        return ("" if is_page else answer.beginning()), ()
    if not isinstance(complaint, Mapping):
        return "", ()
    texts = (complaint.get(name) for name in ("message", "error_message", "error"))
    message = next((text for text in texts if isinstance(text, str) and text), "")
    details = [text for text in _read_details(complaint.get("details")) if isinstance(text, str) and text]
    return (
        clean_text(message, key=answer.key, longest=_LONGEST_MESSAGE),
        tuple(clean_text(detail, key=answer.key, longest=_LONGEST_DETAIL) for detail in details[:_MOST_DETAILS]),
    )


def _read_details(details: Any) -> Iterator[Any]:
    items = details.values() if isinstance(details, Mapping) else details if isinstance(details, list) else ()
    for item in items:
        yield item.get("error_message") or item.get("message") if isinstance(item, Mapping) else item


def describe_failure(
    error: Exception,
    method: str,
    path: str,
    settings: Settings,
    handled: BaseException | None = None,
    *,
    sent: bool,
) -> AgentyUnavailableError:
    """
    Say in words why there is no answer.

    :param error: What was raised; its text is not repeated, since it may hold the key.
    :param method: The HTTP method.
    :param path: The path, without the query.
    :param settings: The settings that were used.
    :param handled: What the caller was handling before the request, and is no part of what happened to it.
    :param sent: Whether the request could be made, so that it may have been sent.
    """
    call = f"{method} {path}"
    host = urlsplit(settings.base_url).hostname
    causes = list(_causes(error, handled))

    def found(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    if not sent or isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return AgentyUnavailableError(
            f"{call}: the request could not be made ({type(error).__name__}). Check host and proxies of the connection",
            kind="connection",
            acted_on=False,
            passing=False,
        )
    if type(error) is OSError:
        # What requests says of a CA bundle that is not there: its path.
        return AgentyUnavailableError(
            f"{call}: {error}. Check verify in the connection's extra, or REQUESTS_CA_BUNDLE in the environment",
            kind="tls",
            acted_on=False,
            passing=False,
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return AgentyUnavailableError(
            f"{call}: the proxy could not be used to reach {host}. Check proxies in the connection's extra, or "
            "HTTPS_PROXY in the environment",
            kind="proxy",
            acted_on=False,
        )
    if found(ssl.SSLCertVerificationError):
        return AgentyUnavailableError(
            f"{call}: the TLS certificate of {host} could not be verified ({_certificate_problem(causes)}). Where a "
            "proxy or a CA of your own stands between, give verify in the connection's extra the path of its bundle",
            kind="tls",
            acted_on=False,
            passing=False,
        )
    if found(socket.gaierror) or any(type(cause).__name__ == "NameResolutionError" for cause in causes):
        return AgentyUnavailableError(
            f"{call}: the name {host} could not be resolved (DNS). Check the connection's host and the network",
            kind="name",
            acted_on=False,
        )
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return AgentyUnavailableError(
            f"{call}: no connection to {host} within {settings.connect_timeout:g} s (timeout). Check the connection's "
            "host, and whether a firewall or a proxy stands between",
            kind="timeout",
            acted_on=False,
        )
    if found(ConnectionRefusedError):
        return AgentyUnavailableError(
            f"{call}: {host} refused the connection. Check the connection's host and port",
            kind="refused",
            acted_on=False,
        )
    if any(type(cause).__name__ == "NewConnectionError" for cause in causes):
        return AgentyUnavailableError(
            f"{call}: no connection to {host} could be made", kind="connection", acted_on=False
        )
    if not seconds_left():
        return AgentyUnavailableError(
            f"{call}: the answer of {host} was not complete in time (timeout). Where answers take longer, raise "
            "timeout in the connection's extra",
            kind="timeout",
            acted_on=True,
            waited_for_answer=True,
        )
    if isinstance(error, requests.exceptions.Timeout) or found(TimeoutError):
        return AgentyUnavailableError(
            f"{call}: no answer from {host} within {settings.read_timeout:g} s (timeout). Where answers take longer, "
            "raise timeout in the connection's extra",
            kind="timeout",
            acted_on=True,
            waited_for_answer=True,
        )
    if isinstance(error, requests.exceptions.SSLError):
        return AgentyUnavailableError(
            f"{call}: the TLS connection to {host} failed. Check the connection's host and port: what answers there "
            "may speak no TLS",
            kind="tls",
            acted_on=True,
        )
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return AgentyUnavailableError(
            f"{call}: the answer of {host} is compressed in a way that can't be undone. Check the connection's host, "
            "and whether a proxy stands between",
            kind="connection",
            acted_on=True,
        )
    return AgentyUnavailableError(
        f"{call}: the connection to {host} broke before the whole answer had come",
        kind="connection",
        acted_on=True,
    )


def _certificate_problem(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message or "no reason given"
    return "no reason given"


def _causes(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and all that it wraps, as argument, reason, cause or context, but for one handled before."""
    pending: list[Any] = [error]
    seen = {id(handled)}
    while pending:
        current = pending.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]
