"""One perishable link, read as checked bytes, resumed when it is cut."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urljoin

from airflow_provider_agenty.landing.content_encoding import DamagedEncoding, UnknownEncoding, decoder_for
from airflow_provider_agenty.landing.error_page import HEAD_LENGTH, page_instead_of_file
from airflow_provider_agenty.landing.errors import LandingError, StartOver
from airflow_provider_agenty.landing.links import secrets_in, split_link
from airflow_provider_agenty.landing.network_trouble import describe_trouble
from airflow_provider_agenty.landing.progress import readable_size
from airflow_provider_agenty.log import Log

if TYPE_CHECKING:
    import requests

READ_SIZE = 2 * 1024 * 1024  # after each read the interpreter is waited for, which is busy counting records
_PROGRESS_FROM = 64 * 1024  # what an attempt must bring for the attempts to be counted anew
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_LINK_REFUSED = (400, 401, 403, 404, 410)  # 400: what S3 says to an expired token
_WORTH_WAITING = (408, 425, 429)
_FIRST_PAUSE = 0.5  # seconds; doubled each time
_LONGEST_PAUSE = 30.0
_LONGEST_RETRY_AFTER = 120.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class HttpDownload:
    """
    The content behind a link, as an iterable of chunks of bytes.

    The bytes are those of the file, a ``Content-Encoding`` undone and nothing else. A cut download goes on where
    it was cut if the server can do that, and else raises :class:`StartOver`: iterate anew then. A link that is
    refused is replaced. All of that is bounded.

    :param get_link: fetches a link, called right before it is used, and again for each one that is refused.
    :param session: a session without any key; its proxies and certificates apply.
    :param expected: what the link leads to, for messages: ``"The result of job 7"``.
    :param attempts: how many requests in a row may fail without bringing anything, and how often the download may
        begin from its first byte; default 5.
    :param secret: told of each text that must not be seen in logs, before it can be: queries of links.
    :param log: where attempts are told of.
    :param timeout: seconds to wait for a connection and for each read; default 10 and 60.
    :param may_be_empty: whether no content at all is fine; default ``False``.
    """

    def __init__(
        self,
        get_link: Callable[[], str],
        session: requests.Session,
        *,
        expected: str,
        attempts: int = 5,
        secret: Callable[[str], None] = lambda _: None,
        log: Log,
        timeout: tuple[float, float] = (10.0, 60.0),
        may_be_empty: bool = False,
    ) -> None:
        self._get_link = get_link
        self._session = session
        self._expected = expected
        self._attempts = attempts
        self._secret = secret
        self._log = log
        self._timeout = timeout
        self._may_be_empty = may_be_empty
        self._link: str | None = None
        self._host = "the download host"
        self._failures = 0
        self._beginnings = 0
        self._opened: requests.Response | None = None
        self._body: _Body | None = None

    @property
    def length(self) -> int | None:
        """How many bytes the content has; ``None`` before the first chunk and where the server does not say."""
        if self._body is None or self._body.encoding not in ("", "identity"):
            return None
        return self._body.total

    def __iter__(self) -> Iterator[bytes]:
        """
        Read the content from its first byte.

        :return: an iterator of chunks of at most 1 MiB, most of them as large as the system's network buffers.
        :raises StartOver: if it must be read anew.
        :raises LandingError: if it can't be had, or is no file.
        """
        answer, self._opened = self._opened or self._open({}), None
        self._beginnings += 1
        self._body = body = _Body.begun(answer)
        content_type = answer.headers.get("Content-Type", "")
        with contextlib.closing(self._decoded(answer, body)) as content:
            yield from self._checked(content, content_type)

    def _checked(self, content: Iterable[bytes], content_type: str) -> Iterator[bytes]:
        chunks = iter(content)
        head = b""
        while len(head) < HEAD_LENGTH and (chunk := next(chunks, b"")):
            head += chunk
        if not head and not self._may_be_empty:
            raise LandingError(
                f"{self._expected} came from {self._host} without a single byte, not even a header line. "
                "Nothing was landed; try again.",
                retryable=True,
            )
        if page := page_instead_of_file(content_type, head):
            raise LandingError(
                f"{self._expected}: {self._host} answered with {page} instead of the file. "
                "Nothing was landed; try again, and look for the file in Agenty if it stays so.",
                retryable=True,
            )
        yield head
        yield from chunks

    def _decoded(self, answer: requests.Response, body: _Body) -> Generator[bytes, None, None]:
        decoder = unknown = damage = None
        try:
            decoder = decoder_for(body.encoding)
        except UnknownEncoding:
            unknown = body.encoding
        if decoder is None:
            answer.close()
            raise LandingError(
                f"{self._expected} came from {self._host} in the encoding {unknown!r}, which was not asked for and "
                "is not understood. Nothing was landed."
            )
        with contextlib.closing(self._wire(answer, body)) as wire:
            try:
                for data in wire:
                    yield from decoder.decode(data)
                if body.offset:
                    decoder.finish()
            except DamagedEncoding as error:
                damage = str(error)
        if damage:
            self._start_over(damage)

    def _wire(self, answer: requests.Response, body: _Body) -> Generator[bytes, None, None]:
        while trouble := (yield from self._read(answer, body)):
            self._after_failure(trouble)
            answer = self._resumed(body)

    def _read(self, answer: requests.Response, body: _Body) -> Generator[bytes, None, str | None]:
        """Yield one answer's bytes as they are on the wire; return what cut them short, if anything did."""
        before = body.offset
        trouble = None
        with contextlib.closing(answer):
            while trouble is None:
                piece, trouble = _read_piece(answer)
                if not piece:
                    break
                body.offset += len(piece)
                if body.offset - before >= _PROGRESS_FROM:
                    self._failures = 0
                yield piece
        if trouble is None and body.total is not None and body.offset != body.total:
            trouble = "the connection ended early"
        return trouble

    def _resumed(self, body: _Body) -> requests.Response:
        """Ask for the rest of a body; begin anew where it can't be had or may be another body's."""
        if body.offset == 0:
            raise StartOver
        if body.validator is None:
            self._start_over("the download was cut, and its server can't resume it")
        answer = self._open({"Range": f"bytes={body.offset}-", "If-Range": body.validator})
        if answer.status_code != 206 or not body.goes_on_with(answer):
            self._keep_if_whole(answer)
            self._start_over("the download was cut, and its server sent something else than the rest of it")
        self._log.info("%s: going on after %s", self._expected, readable_size(body.offset))
        return answer

    def _keep_if_whole(self, answer: requests.Response) -> None:
        if answer.status_code == 200:
            self._opened = answer
        else:
            answer.close()

    def _start_over(self, why: str) -> NoReturn:
        if self._beginnings >= self._attempts:
            if self._opened is not None:
                self._opened.close()
            raise self._given_up(f"{why}, for the {self._beginnings}th time")
        self._log.warning("%s: %s; beginning anew", self._expected, why)
        raise StartOver

    def _open(self, headers: dict[str, str]) -> requests.Response:
        """Request the link until it gives a body, or the answer to a range; replace it where it is refused."""
        while True:
            answer, trouble = self._follow(headers)
            wait = None
            if answer is not None:
                status = answer.status_code
                if status == 200 or (headers and status in (206, 416)):
                    return answer
                wait = _retry_after(answer)
                answer.close()
                trouble = f"it answered HTTP {status}"
                if status in _LINK_REFUSED:
                    self._link = None
                elif status not in _WORTH_WAITING and status < 500:
                    raise LandingError(
                        f"{self._expected} could not be downloaded: {self._host} answered HTTP {status}, which is "
                        "no file. Nothing was landed."
                    )
            self._after_failure(trouble or "", wait)

    def _follow(self, headers: dict[str, str]) -> tuple[requests.Response | None, str | None]:
        """Send one request and follow its redirects; give the answer, or what prevented it."""
        if self._link is None:
            self._link = self._get_link()
        url = self._link
        for _ in range(_MOST_REDIRECTS + 1):
            answer, trouble = self._send(url, headers)
            if answer is None or answer.status_code not in _REDIRECTS:
                return answer, trouble
            target = self._session.get_redirect_target(answer)
            answer.close()
            if not target:
                return None, f"it answered HTTP {answer.status_code} without saying where to go"
            url = urljoin(url, target)
        raise LandingError(
            f"{self._expected} could not be downloaded: more than {_MOST_REDIRECTS} redirects, the last one from "
            f"{self._host}. Nothing was landed."
        )

    def _send(self, url: str, headers: dict[str, str]) -> tuple[requests.Response | None, str | None]:
        import requests

        parts = split_link(url)
        self._host = parts.hostname or self._host
        for secret in secrets_in(parts):
            self._secret(secret)
        answer = trouble = None
        try:
            request = self._session.prepare_request(
                requests.Request(
                    "GET",
                    url,
                    headers={"Accept": "*/*", "Accept-Encoding": "identity", **headers},
                    # Anything but None keeps the login of a netrc file out.
                    auth=None if parts.username else _no_login,
                )
            )
            # requests may have quoted the link anew, and that is what urllib3 logs.
            for secret in secrets_in(split_link(request.url or url)):
                self._secret(secret)
            # Left alone, requests lets the environment's certificates win over those of the session.
            verify = None if self._session.verify is True else self._session.verify
            settings = self._session.merge_environment_settings(request.url or url, {}, True, verify, None)
            answer = self._session.send(request, timeout=self._timeout, allow_redirects=False, **settings)
        except (requests.RequestException, OSError, ValueError) as error:
            trouble = describe_trouble(error)
        return answer, trouble

    def _after_failure(self, trouble: str, retry_after: float | None = None) -> None:
        self._failures += 1
        if self._failures >= self._attempts:
            raise self._given_up(trouble)
        pause = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._failures - 1)))  # noqa: S311
        if retry_after is not None:
            pause = max(pause, min(retry_after, _LONGEST_RETRY_AFTER))
        self._log.warning(
            "%s, from %s: %s; trying again in %.1f s (attempt %d of %d)",
            self._expected,
            self._host,
            trouble,
            pause,
            self._failures + 1,
            self._attempts,
        )
        time.sleep(pause)

    def _given_up(self, trouble: str) -> LandingError:
        came = ""
        if self._body is not None:
            total = "" if self._body.total is None else f" of {self._body.total}"
            came = f" {self._body.offset}{total} bytes had come."
        return LandingError(
            f"{self._expected} could not be downloaded from {self._host}: {trouble} ({self._attempts} attempts)."
            f"{came} Nothing was landed; try again.",
            retryable=True,
        )


@dataclass
class _Body:
    """The body that is being read: how far, and what tells it from another one."""

    total: int | None
    encoding: str
    etag: str | None
    validator: str | None
    offset: int = 0

    @classmethod
    def begun(cls, answer: requests.Response) -> _Body:
        headers = answer.headers
        length = headers.get("Content-Length", "")
        chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        etag = headers.get("ETag")
        return cls(
            total=int(length) if length.isascii() and length.isdigit() and not chunked else None,
            encoding=headers.get("Content-Encoding", "").strip().lower(),
            etag=etag,
            validator=etag if etag and etag.startswith('"') else _strong_date(answer),
        )

    def goes_on_with(self, answer: requests.Response) -> bool:
        """Tell whether an answer to a range is the rest of this body, and note what it says about the length."""
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if not found or int(found[1]) != self.offset:
            return False
        total = None if found[2] == "*" else int(found[2])
        if self.total is None:
            self.total = total
        return (
            total in (None, self.total)
            and answer.headers.get("Content-Encoding", "").strip().lower() == self.encoding
            and answer.headers.get("ETag", self.etag) == self.etag
        )


def _strong_date(answer: requests.Response) -> str | None:
    """Give ``Last-Modified`` where RFC 9110 lets it identify a body: at least a second before the answer."""
    changed, now = answer.headers.get("Last-Modified"), answer.headers.get("Date")
    try:
        gap = parsedate_to_datetime(now or "") - parsedate_to_datetime(changed or "")
    except (ValueError, TypeError):
        return None
    return changed if gap.total_seconds() >= 1 else None


def _read_piece(answer: requests.Response) -> tuple[bytes, str | None]:
    from urllib3.exceptions import HTTPError

    trouble = None
    try:
        # read1 gives what has come: nothing of it is lost when the connection breaks in the next moment.
        return answer.raw.read1(READ_SIZE, decode_content=False), None
    except (HTTPError, OSError, ValueError) as error:
        trouble = describe_trouble(error)
    return b"", trouble


def _retry_after(answer: requests.Response) -> float | None:
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
