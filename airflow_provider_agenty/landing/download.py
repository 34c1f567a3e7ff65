"""One perishable link, read as checked bytes, resumed when it is cut."""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import KW_ONLY, dataclass
from http.client import HTTPException
from typing import Any, NoReturn, TypeVar

import requests
from urllib3.exceptions import HTTPError

from airflow_provider_agenty.api.deadline import time_limit
from airflow_provider_agenty.api.validation import read_retry_after
from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.landing.body import Body, contradiction
from airflow_provider_agenty.landing.download_trouble import (
    HEAD_LENGTH,
    NO_BYTE_IN_TIME,
    describe_trouble,
    page_instead_of_file,
)
from airflow_provider_agenty.landing.links import Link, LinkAdapter, read_link, secrets_in
from airflow_provider_agenty.landing.progress import readable_size
from airflow_provider_agenty.log import Log

T = TypeVar("T")

_READ_SIZE = 1024 * 1024
# After so many bytes the attempts, and the time that the server has, are counted anew.
_PROGRESS_FROM = 64 * 1024
_READ_TIMEOUTS_FOR_PROGRESS = 4
# A result may have so many bytes, and so many more for each row: fields may hold whole pages.
_LARGEST_ANYWAY = 64 * 1024 * 1024
_LARGEST_ROW = 4 * 1024 * 1024
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_LINK_REFUSED = (400, 401, 403, 404, 410)  # 400: what S3 says to an expired token
_WORTH_WAITING = (202, 204, 206, 408, 425, 429)  # 202, 204: not ready; 206: a part, though all was asked for
_LONGEST_PAUSE = 30.0
_LONGEST_RETRY_AFTER = 120.0
_LONGEST_NAME_SHOWN = 100
# Connections raise the first ones. The standard library raises the others at headers and framing that are wrong.
_TROUBLE = (
    *(requests.RequestException, HTTPError, OSError, HTTPException),
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
)


class _StartOver(Exception):  # noqa: N818 - not an error: the download begins anew
    """All bytes that came so far are void."""


@dataclass(eq=False)
class HttpDownload:
    """
    The content behind a link, as an iterable of chunks of bytes, a ``Content-Encoding`` undone.

    A cut download goes on where it was cut if the server can do that, and else begins anew. A link that is refused
    is replaced. All of that is bounded.
    """

    get_link: Callable[[], str]  # called right before a link is used, and again for each one that is refused
    session: requests.Session  # without any key; its proxies and certificates apply
    _: KW_ONLY
    expected: str  # what the link leads to, for messages: "The result of job 7"
    log: Log
    attempts: int = 5  # how many requests in a row may bring nothing, and how often the download may begin
    first_pause: float = 0.5  # seconds at most before the second attempt; doubled each time
    secret: Callable[[str], None] = lambda _: None  # told of what must not be seen in logs, before it is used
    timeout: tuple[float, float] = (10.0, 60.0)  # seconds for a connection and for each read
    may_be_empty: bool = False
    expected_rows: int | None = None  # content that is larger than so many can explain is given up
    schemes_to_this_machine: Collection[str] = ()  # with which links and redirects may lead to loopback

    def __post_init__(self) -> None:
        self._adapter = LinkAdapter()
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, self._adapter)  # closed with the session
        self._link: str | None = None
        self._host = "the download host"
        self._failures = 0
        self._beginnings = 0
        self._seconds_left = 0.0
        self._body: Body | None = None

    @property
    def length(self) -> int | None:
        """The bytes of the content; ``None`` before the first chunk and where the server does not say."""
        return None if self._body is None or self._body.decoder.compression else self._body.total

    def __iter__(self) -> Iterator[bytes | None]:
        """Give the content in chunks of at most 1 MiB; ``None`` says that it begins anew from its first byte."""
        while True:
            try:
                yield from self._from_first_byte()
            except _StartOver:
                yield None
            else:
                return

    def _from_first_byte(self) -> Iterator[bytes]:
        answer = self._open({})
        self._beginnings += 1
        self._body = body = Body(answer)
        with contextlib.closing(answer):
            self._refuse_if_too_large(body.total or 0)
            chunks = self._decoded(answer, body)
            head = b""
            while len(head) < HEAD_LENGTH and (chunk := next(chunks, b"")):
                head += chunk
            if not head and not self.may_be_empty:
                raise AgentyExportError(
                    f"{self.expected} came from {self._host} without a single byte, not even a header line. "
                    "Nothing was landed. Try again."
                )
            if page := page_instead_of_file(answer.headers.get("Content-Type", ""), head):
                raise AgentyExportError(
                    f"{self.expected}: {self._host} answered with {page} instead of the file. "
                    "Nothing was landed. Try again. If it happens again, look for the file in Agenty."
                )
            yield head
            yield from chunks

    def _decoded(self, answer: requests.Response, body: Body) -> Iterator[bytes]:
        decoder = body.decoder
        encoding = body.encoding[:_LONGEST_NAME_SHOWN]
        if not decoder.is_known:
            raise AgentyExportError(
                f"{self.expected} came from {self._host} in the encoding {encoding!r}, which was not asked for and "
                "can't be decoded. Nothing was landed. Check whether a proxy stands between."
            )
        if decoder.ignores_some:
            self.log.warning(
                "%s came in the encoding %r. The part of it that is no compression was ignored",
                self.expected,
                encoding,
            )
        size = 0
        for data in self._wire(answer, body):
            for piece in decoder.decode(data):
                size += len(piece)
                self._refuse_if_too_large(size)
                yield piece
            if decoder.surplus:
                self.log.warning(
                    "%s has more bytes after the end of its compressed content. They were ignored",
                    self.expected,
                )
                return
        if body.offset and decoder.damage:
            self._start_over(decoder.damage)

    def _refuse_if_too_large(self, size: int) -> None:
        if self.expected_rows is None:
            return
        largest = _LARGEST_ANYWAY + self.expected_rows * _LARGEST_ROW
        if size > largest:
            raise AgentyExportError(
                f"{self.expected} came from {self._host} with more than {readable_size(largest)}, which is far more "
                f"than its number of rows ({self.expected_rows}) can explain. Nothing was landed. Compare the export "
                "with the result in Agenty."
            )

    def _wire(self, answer: requests.Response, body: Body) -> Iterator[bytes]:
        """Yield the bytes of a body as they are on the wire, from as many answers as it takes."""
        while trouble := (yield from self._read(answer, body)):
            self._after_failure(trouble)
            answer = self._open_rest(body)

    def _read(self, answer: requests.Response, body: Body) -> Generator[bytes, None, str | None]:
        """Yield one answer's bytes; return what cut them short, if anything did."""
        since_progress = 0
        # read1 gives what has come: nothing of it is lost when the connection breaks in the next moment.
        read = functools.partial(answer.raw.read1, _READ_SIZE, decode_content=False)
        with contextlib.closing(answer):
            while True:
                piece, trouble = self._in_time(read)
                if not piece:
                    break
                body.offset += len(piece)
                since_progress += len(piece)
                self._refuse_if_too_large(body.offset)
                if body.end is not None and body.offset > body.end:
                    self._start_over("its server sent more than it had announced")
                if since_progress >= _PROGRESS_FROM:
                    since_progress = self._failures = 0
                    self._renew_time()
                yield piece
        if trouble is None and body.total is not None and body.offset != body.total:
            return "the connection ended early"
        return trouble

    def _renew_time(self) -> None:
        self._seconds_left = _READ_TIMEOUTS_FOR_PROGRESS * self.timeout[1]

    def _in_time(self, ask: Callable[[], T]) -> tuple[T | None, str | None]:
        """
        Do what waits for the server, in the time that it has left; return what came, or the trouble in words.

        Only that time counts: what is done with the content in between is not the server's fault.
        """
        trouble = None
        began = time.monotonic()
        try:
            with time_limit(self._seconds_left):
                return ask(), None
        except _TROUBLE as error:
            trouble = describe_trouble(error)
        finally:
            self._seconds_left -= time.monotonic() - began
        if self._seconds_left <= 0 and trouble == NO_BYTE_IN_TIME:
            trouble = "less than 64 KiB came in four times the read timeout"
        return None, trouble

    def _start_over(self, why: str) -> NoReturn:
        if self._beginnings >= self.attempts:
            raise self._given_up(why)
        self.log.warning("%s: %s; downloading it from the start", self.expected, why)
        raise _StartOver

    def _open_rest(self, body: Body) -> requests.Response:
        """Ask for the rest of a body; begin anew where it can't be had or may be another body's."""
        if body.offset == 0:
            raise _StartOver
        if body.validator is None:
            self._start_over("the download was cut, and its server can't resume it")
        answer = self._open({"Range": f"bytes={body.offset}-", "If-Range": body.validator})
        if answer.status_code != 206 or not body.goes_on_with(answer):
            answer.close()
            self._start_over("the download was cut, and its server sent something else than the rest of it")
        self.log.info("%s: the download goes on after %s", self.expected, readable_size(body.offset))
        return answer

    def _open(self, headers: dict[str, str]) -> requests.Response:
        """Request the link until it gives a body, or the answer to a range; replace it where it is refused."""
        while True:
            answer, trouble = self._follow(headers)
            wait = None
            if answer is not None:
                status = answer.status_code
                if headers and status in (200, 206, 416):
                    return answer
                trouble = f"it answered HTTP {status}"
                if status == 200 and (trouble := contradiction(answer, self._body)) is None:
                    return answer
                wait = read_retry_after(answer.headers.get("Retry-After"))
                answer.close()
                if status in _LINK_REFUSED:
                    self._link = None
                elif status not in (200, *_WORTH_WAITING) and status < 500:
                    raise AgentyExportError(
                        f"{self.expected} could not be downloaded: {self._host} answered HTTP {status} instead of "
                        "the file. Nothing was landed. Try again."
                    )
            self._after_failure(trouble or "", wait)

    def _follow(self, headers: dict[str, str]) -> tuple[requests.Response | None, str | None]:
        """Send one request and follow its redirects; give the answer, or what prevented it."""
        if self._link is None:
            self._link = self.get_link()
        self._renew_time()
        text = self._link
        for _ in range(_MOST_REDIRECTS + 1):
            link = read_link(text, schemes_to_this_machine=self.schemes_to_this_machine)
            self._host = link.host
            for secret in secrets_in(link.text):
                self.secret(secret)
            answer, trouble = self._in_time(functools.partial(self._send, link, headers))
            if answer is None or answer.status_code not in _REDIRECTS:
                return answer, trouble
            answer.close()
            location = answer.headers.get("Location", "").strip()
            if not location:
                return None, f"it answered HTTP {answer.status_code} without saying where to go"
            text = link.redirected(location)
        raise AgentyExportError(
            f"{self.expected} could not be downloaded: more than {_MOST_REDIRECTS} redirects, the last one from "
            f"{self._host}. Nothing was landed."
        )

    def _send(self, link: Link, headers: dict[str, str]) -> requests.Response:
        request = self.session.prepare_request(
            requests.Request(
                "GET",
                f"{link.server}/",
                headers={"Accept": "*/*", "Accept-Encoding": "identity", **headers},
                # Anything but None keeps the login of a netrc file out.
                auth=None if link.has_login else lambda request: request,
            )
        )
        # Left alone, requests lets the environment's certificates win over those of the session.
        verify = None if self.session.verify is True else self.session.verify
        settings: Any = self.session.merge_environment_settings(request.url, {}, True, verify, None)
        self._adapter.target = link.target
        # Not by the session, which reads the whole body of a redirect.
        answer = self._adapter.send(request, timeout=self.timeout, **settings)
        self.session.cookies.update(answer.cookies)
        return answer

    def _after_failure(self, trouble: str, retry_after: float | None = None) -> None:
        self._failures += 1
        if self._failures >= self.attempts:
            raise self._given_up(trouble)
        pause = random.uniform(0, min(_LONGEST_PAUSE, self.first_pause * 2 ** (self._failures - 1)))  # noqa: S311
        if retry_after is not None:
            pause = max(pause, min(retry_after, _LONGEST_RETRY_AFTER))
        self.log.warning(
            "%s, from %s: %s; trying again in %.1f s (attempt %d of %d)",
            self.expected,
            self._host,
            trouble,
            pause,
            self._failures + 1,
            self.attempts,
        )
        time.sleep(pause)

    def _given_up(self, trouble: str) -> AgentyExportError:
        came = ""
        if self._body is not None:
            total = "" if self._body.total is None else f" of {self._body.total}"
            came = f" {self._body.offset}{total} bytes had come."
        return AgentyExportError(
            f"{self.expected} could not be downloaded from {self._host}: {trouble} ({self.attempts} attempts)."
            f"{came} Nothing was landed. Try again."
        )
