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
    read_date,
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

_PASSING_REFUSALS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_SHOWN_CHARACTERS = 200
_LOOKED_AT = 16 * 1024
_BEHIND_HOST = re.compile(r"(\w{1,10}:(?:\\?/){2}[^/\\\s\"'<>?#]{1,300})[^\s\"'<>]+")
_LONGEST_MESSAGE = 1_000
_LONGEST_DETAIL = 250
_MOST_DETAILS = 10
_READ_AT_ONCE = 256 * 1024
_COMPRESSED_READ_AT_ONCE = 8 * 1024  # decompression makes up to a thousand bytes of each
# Others, and several at once, could make far more of each byte.
_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})


@dataclass(frozen=True)
class Answer:
    """An answer of Agenty: the call, the status, the headers and the body."""

    call: str  # for messages: ``GET /jobs/7``
    status: int
    headers: Mapping[str, str]
    body: bytes
    key: str = field(default="", repr=False)

    def json(self) -> Any:
        """Return the decoded body, its texts free of the key."""
        try:
            return read_json(self.body, key=self.key)
        except ValueError:
            pass
        raise self.unexpected("is not JSON")

    def clean(self, text: str) -> str:
        """Return a text of the answer for people, as :func:`clean_text` does."""
        return clean_text(text, key=self.key)

    def read_job(self, values: Any) -> Job:
        """Return the job that is a part of the decoded body."""
        if not holds_job(values):
            raise self.unexpected("holds no job: job_id or status is missing")
        return Job.from_answer(values, clean=self.clean, answered_at=read_date(self.headers.get("Date")))

    def job(self, job_id: int | None = None) -> Job:
        """Return the job in the body, which must be the one that was asked for."""
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
        """Whether the headers say that the body is a web page, such as a proxy's login."""
        return "html" in self.headers.get("Content-Type", "").lower()

    @property
    def is_whole_page(self) -> bool:
        """Whether the body begins as a web page does."""
        return self.body[:_SHOWN_CHARACTERS].lstrip().lower().startswith((b"<!doctype html", b"<html"))

    def unexpected(self, what: str) -> AgentyUnexpectedAnswerError:
        """Make the error that says in which way "the answer" is not what the API promises."""
        return AgentyUnexpectedAnswerError(
            f"{self.call}: the answer (HTTP {self.status}) {what}. It begins: '{self.beginning()}'"
        )

    def beginning(self) -> str:
        """Return the first characters of the body; of a URL in it no more than the host."""
        # More than is shown is cleaned, so that no secret is cut in two.
        text = self.body[:_LOOKED_AT].decode("utf-8", errors="replace")
        return clean_text(_BEHIND_HOST.sub(r"\1/***", text), key=self.key, longest=_SHOWN_CHARACTERS)


class Transport:
    """Sends requests to the API, with the key, the patience and the limits of a connection."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.session = Session(settings, authenticated=True)
        self.retry_policy = RetryPolicy(max_attempts=settings.max_attempts)

    def close(self) -> None:
        """Close the session and its connections."""
        self.session.close()

    def read(self, path: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        """Ask for something, again if need be: a read can be repeated without harm."""
        return self.retry_policy.call(
            lambda: _accept(self._exchange("GET", path, parameters=parameters)),
            again_if=lambda error: error.passing,
        )

    def send(
        self, method: str, path: str, body: Any = None, *, refusal_may_hold_job: bool = False, repeatable: bool = False
    ) -> Answer:
        """
        Send something that changes the account: again only if Agenty certainly did not act on it.

        :param refusal_may_hold_job: Whether a job in an answer with a status 4xx is an answer.
        :param repeatable: Whether acting on it twice is the same as once, so that it is sent again as a read is.
        """

        def attempt() -> Answer:
            answer = self._exchange(method, path, body=body)
            is_refusal = 400 <= answer.status < 500 and answer.status != HTTPStatus.TOO_MANY_REQUESTS
            return answer if refusal_may_hold_job and is_refusal and answer.holds_job else _accept(answer)

        return self.retry_policy.call(
            attempt, again_if=lambda error: error.passing and (repeatable or not error.acted_on)
        )

    def _exchange(
        self, method: str, path: str, *, parameters: Mapping[str, Any] | None = None, body: Any = None
    ) -> Answer:
        """Send one request and read its answer."""
        call, settings, handled = f"{method} {path}", self.settings, sys.exception()
        with time_limit(settings.connect_timeout + READ_TIMEOUTS_PER_REQUEST * settings.read_timeout):
            if not seconds_left():
                raise AgentyUnavailableError(
                    f"{call}: not sent, because no time was left", kind="timeout", acted_on=False, passing=False
                )
            prepared = None
            try:
                request = requests.Request(
                    method,
                    settings.base_url + path,
                    params=parameters,
                    json=body,
                    headers={"Accept-Encoding": "gzip, deflate"},
                )
                prepared = self.session.prepare_request(request)
                return self._receive(call, prepared)
            except AgentyAnswerTooLargeError:
                raise
            # An odd answer makes requests, urllib3 and http.client raise what they do not document.
            except Exception as error:
                failure = _describe_failure(error, call, settings, handled, sent=prepared is not None)
        # Raised out here: the text of requests' exception holds the URL, and so perhaps the key.
        raise failure

    def _receive(self, call: str, request: requests.PreparedRequest) -> Answer:
        settings, left = self.settings, seconds_left()
        options = self.session.merge_environment_settings(request.url, {}, True, None, None)
        timeout = (min(settings.connect_timeout, left), min(settings.read_timeout, left))
        with self.session.send(request, timeout=timeout, allow_redirects=False, **options) as response:
            return Answer(call, response.status_code, response.headers, _read_bounded(call, response), settings.key)


def _read_bounded(call: str, response: requests.Response) -> bytes:
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise requests.exceptions.ContentDecodingError
    body = io.BytesIO()
    for piece in response.iter_content(_COMPRESSED_READ_AT_ONCE if encoding else _READ_AT_ONCE):
        body.write(piece)
        if body.tell() > LARGEST_ANSWER:
            raise AgentyAnswerTooLargeError(
                f"{call}: the answer (HTTP {response.status_code}) is larger than {LARGEST_ANSWER // 1024**2} MiB, "
                "which is the most that is read of one"
            )
    return body.getvalue()


def _accept(answer: Answer) -> Answer:
    """Return an answer that is none of Agenty's errors; raise the one that it is otherwise."""
    if 200 <= answer.status < 300:
        return answer
    raise _redirect(answer) if 300 <= answer.status < 400 else _refusal(answer)


def _redirect(answer: Answer) -> AgentyUnexpectedAnswerError:
    try:
        host = urlsplit(answer.headers.get("Location", "")).hostname
    except ValueError:
        host = None
    where = answer.clean(host or "somewhere else")[:LONGEST_NAME]
    return AgentyUnexpectedAnswerError(
        f"{answer.call}: the answer (HTTP {answer.status}) is a redirect to {where}, which is not followed so that the "
        "key stays with the API. Check the connection's host"
    )


def _refusal(answer: Answer) -> AgentyError:
    status = answer.status
    message, details = _read_complaint(answer)
    said = "; ".join(part for part in (message, *details) if part)
    sentence = f"{answer.call}: HTTP {status}{_phrase(status)}" + (f": {said}" if said else "")
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
    if status in _PASSING_REFUSALS or status >= 500:
        return AgentyUnavailableError(
            sentence,
            kind="status",
            acted_on=status not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.TOO_EARLY),
            passing=status != HTTPStatus.NOT_IMPLEMENTED,
            retry_after=read_retry_after(answer.headers.get("Retry-After")),
            status=status,
        )
    return AgentyRequestError(sentence, message=message, details=details, status=status)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


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


def _describe_failure(
    error: Exception, call: str, settings: Settings, handled: BaseException | None, *, sent: bool
) -> AgentyUnavailableError:
    """Say in words why there is no answer; the text of the error itself may hold the key."""
    if not sent or isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        text = f"the request could not be made ({type(error).__name__}). Check host and proxies of the connection"
        return AgentyUnavailableError(f"{call}: {text}", kind="connection", acted_on=False, passing=False)
    causes = list(causes_of(error, handled))
    host = urlsplit(settings.base_url).hostname
    reason = _why_not_sent(error, causes, host, settings)
    if reason is not None:
        kind, text = reason
        # A certificate that can't be verified now can't be verified later.
        return AgentyUnavailableError(f"{call}: {text}", kind=kind, acted_on=False, passing=kind != "tls")
    kind, text = _why_not_answered(error, causes, host, settings)
    return AgentyUnavailableError(f"{call}: {text}", kind=kind, waited_for_answer=kind == "timeout")


def _why_not_sent(
    error: Exception, causes: list[BaseException], host: str | None, settings: Settings
) -> tuple[str, str] | None:
    """Return what kept the request from Agenty, its kind and in words; ``None`` if it may have come there."""
    names = {type(cause).__name__ for cause in causes}
    certificate = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if type(error) is OSError:
        # requests raises this for a CA bundle that is not there, and names its path.
        return "tls", f"{error}. Check verify in the connection's extra, or REQUESTS_CA_BUNDLE in the environment"
    if isinstance(error, requests.exceptions.ProxyError):
        advice = "Check proxies in the connection's extra, or HTTPS_PROXY in the environment"
        return "proxy", f"the proxy could not be used to reach {host}. {advice}"
    if certificate is not None:
        problem = certificate.verify_message or "no reason given"
        return "tls", (
            f"the TLS certificate of {host} could not be verified ({problem}). Where a proxy or a CA of your own "
            "stands between, give verify in the connection's extra the path of its bundle"
        )
    if any(isinstance(cause, socket.gaierror) for cause in causes) or "NameResolutionError" in names:
        return "name", f"the name {host} could not be resolved (DNS). Check the connection's host and the network"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        advice = "Check the connection's host, and whether a firewall or a proxy stands between"
        return "timeout", f"no connection to {host} within {settings.connect_timeout:g} s (timeout). {advice}"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "refused", f"{host} refused the connection. Check the connection's host and port"
    if "NewConnectionError" in names:
        return "connection", f"no connection to {host} could be made"
    return None


def _why_not_answered(
    error: Exception, causes: list[BaseException], host: str | None, settings: Settings
) -> tuple[str, str]:
    """Return what kept Agenty's answer from us, its kind and in words."""
    advice = "Where answers take longer, raise timeout in the connection's extra"
    if not seconds_left():
        return "timeout", f"the answer of {host} was not complete in time (timeout). {advice}"
    if any(isinstance(cause, requests.exceptions.Timeout | TimeoutError) for cause in causes):
        return "timeout", f"no answer from {host} within {settings.read_timeout:g} s (timeout). {advice}"
    if isinstance(error, requests.exceptions.SSLError):
        advice = "Check the connection's host and port: what answers there may speak no TLS"
        return "tls", f"the TLS connection to {host} failed. {advice}"
    if isinstance(error, requests.exceptions.ContentDecodingError):
        advice = "Check the connection's host, and whether a proxy stands between"
        return "connection", f"the answer of {host} can't be decompressed. {advice}"
    return "connection", f"the connection to {host} broke before the whole answer had come"


def causes_of(error: BaseException, handled: BaseException | None = None) -> Iterator[BaseException]:
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
