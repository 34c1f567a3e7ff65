"""One perishable link, read as checked bytes, resumed when it is cut."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.landing.content_encoding import (
    DamagedEncoding,
    UnknownEncoding,
    compressions_in,
    decoder_for,
    names_in,
)
from airflow_provider_agenty.landing.error_page import HEAD_LENGTH, page_instead_of_file
from airflow_provider_agenty.landing.links import Link, read_link, secrets_in
from airflow_provider_agenty.landing.network_trouble import describe_trouble
from airflow_provider_agenty.landing.progress import readable_size
from airflow_provider_agenty.log import Log

if TYPE_CHECKING:
    import requests

_READ_SIZE = 1024 * 1024
_PROGRESS_FROM = 64 * 1024  # what an attempt must bring for the attempts, and its time, to be counted anew
_READ_TIMEOUTS_FOR_PROGRESS = 4  # how many of them a server may take to bring that much
_LARGEST_ANYWAY = 64 * 1024 * 1024  # bytes of a result, however few rows it has
_LARGEST_ROW = 4 * 1024 * 1024  # bytes that each row may add to that; fields may hold whole pages
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_LINK_REFUSED = (400, 401, 403, 404, 410)  # 400: what S3 says to an expired token
_WORTH_WAITING = (202, 204, 206, 408, 425, 429)  # 202, 204: not ready; 206: a part, though all was asked for
_FIRST_PAUSE = 0.5  # seconds; doubled each time
_LONGEST_PAUSE = 30.0
_LONGEST_RETRY_AFTER = 120.0
# What the standard library raises at headers and framing that are not what they should be.
_BROKEN_ANSWER = (HTTPException, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_STRONG_ETAG = re.compile(r'"[!#-~]{0,1000}"')
_LONGEST_DATE = 100  # characters
_LONGEST_NAME_SHOWN = 100


class _StartOver(Exception):  # noqa: N818 - not an error: the download begins anew
    """What came so far is void."""


class HttpDownload:
    """
    The content behind a link, as an iterable of chunks of bytes.

    The bytes are those of the file, a ``Content-Encoding`` undone and nothing else. A cut download goes on where
    it was cut if the server can do that, and else begins anew. A link that is
    refused is replaced. All of that is bounded.

    :param get_link: fetches a link, called right before it is used, and again for each one that is refused.
    :param session: a session without any key; its proxies and certificates apply.
    :param expected: what the link leads to, for messages: ``"The result of job 7"``.
    :param attempts: how many requests in a row may fail without bringing anything, and how often the download may
        begin from its first byte; default 5.
    :param secret: told of each text that must not be seen in logs, before the link it is in is used.
    :param log: where attempts are told of.
    :param timeout: seconds to wait for a connection and for each read; default 10 and 60. Less than 64 KiB in four
        times the second counts as a failed request.
    :param may_be_empty: whether no content at all is fine; default ``False``.
    :param expected_rows: how many rows there should be. Content that is larger than they can explain, 64 MiB and
        4 MiB for each row, is given up. Default ``None``: any size.
    :param schemes_to_this_machine: the schemes with which links and redirects may lead to loopback; default: none.
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
        expected_rows: int | None = None,
        schemes_to_this_machine: Collection[str] = (),
    ) -> None:
        from airflow_provider_agenty.landing.download_adapter import DownloadAdapter, TimeLimit

        self._get_link = get_link
        self._session = session
        self._expected = expected
        self._attempts = attempts
        self._secret = secret
        self._log = log
        self._timeout = timeout
        self._may_be_empty = may_be_empty
        self._expected_rows = expected_rows
        self._schemes_to_this_machine = schemes_to_this_machine
        self._time_limit = TimeLimit(_READ_TIMEOUTS_FOR_PROGRESS * timeout[1], timeout[1])
        self._adapter = DownloadAdapter(self._time_limit)
        for scheme in ("https://", "http://"):
            session.mount(scheme, self._adapter)  # closed with the session
        self._link: str | None = None
        self._host = "the download host"
        self._failures = 0
        self._beginnings = 0
        self._opened: requests.Response | None = None
        self._body: _Body | None = None

    @property
    def length(self) -> int | None:
        """How many bytes the content has; ``None`` before the first chunk and where the server does not say."""
        if self._body is None or compressions_in(self._body.encoding):
            return None
        return self._body.total

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
        answer, self._opened = self._opened or self._open({}), None
        self._beginnings += 1
        self._body = body = _Body.begun(answer, self._body)
        content_type = answer.headers.get("Content-Type", "")
        with contextlib.closing(answer), contextlib.closing(self._decoded(answer, body)) as content:
            self._refuse_if_too_large(body.total or 0)
            yield from self._checked(self._bounded(content), content_type)

    def _bounded(self, content: Iterable[bytes]) -> Iterator[bytes]:
        size = 0
        for chunk in content:
            size += len(chunk)
            self._refuse_if_too_large(size)
            yield chunk

    def _refuse_if_too_large(self, size: int) -> None:
        if self._expected_rows is None:
            return
        largest = _LARGEST_ANYWAY + self._expected_rows * _LARGEST_ROW
        if size > largest:
            raise AgentyExportError(
                f"{self._expected} came from {self._host} with more than {readable_size(largest)}, which is far more "
                f"than its number of rows ({self._expected_rows}) can explain. Nothing was landed; compare the export "
                "with the result in Agenty.",
            )

    def _checked(self, content: Iterable[bytes], content_type: str) -> Iterator[bytes]:
        chunks = iter(content)
        head = b""
        while len(head) < HEAD_LENGTH and (chunk := next(chunks, b"")):
            head += chunk
        if not head and not self._may_be_empty:
            raise AgentyExportError(
                f"{self._expected} came from {self._host} without a single byte, not even a header line. "
                "Nothing was landed; try again.",
            )
        if page := page_instead_of_file(content_type, head):
            raise AgentyExportError(
                f"{self._expected}: {self._host} answered with {page} instead of the file. "
                "Nothing was landed; try again, and look for the file in Agenty if it stays so.",
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
            raise AgentyExportError(
                f"{self._expected} came from {self._host} in the encoding {_shortened(unknown)!r}, which was not asked "
                "for and is not understood. Nothing was landed."
            )
        if names_in(body.encoding) != compressions_in(body.encoding):
            self._log.warning(
                "%s came in the encoding %r, part of which is no compression: that was ignored.",
                self._expected,
                _shortened(body.encoding),
            )
        with contextlib.closing(self._wire(answer, body)) as wire:
            try:
                for data in wire:
                    yield from decoder.decode(data)
                    if decoder.surplus:
                        self._log.warning(
                            "%s: there is something else behind the end of the compressed content; it was ignored.",
                            self._expected,
                        )
                        break
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
        since_renewal = 0
        trouble = None
        with contextlib.closing(answer):
            while trouble is None:
                with self._time_limit:
                    piece, trouble = _read_piece(answer)
                if not piece:
                    break
                body.offset += len(piece)
                since_renewal += len(piece)
                self._refuse_if_too_large(body.offset)
                if body.end is not None and body.offset > body.end:
                    self._start_over("its server sent more than it had announced")
                if body.offset - before >= _PROGRESS_FROM:
                    self._failures = 0
                if since_renewal >= _PROGRESS_FROM:
                    since_renewal = 0
                    self._time_limit.renew()
                yield piece
        if trouble is None and body.total is not None and body.offset != body.total:
            trouble = "the connection ended early"
        return trouble

    def _resumed(self, body: _Body) -> requests.Response:
        """Ask for the rest of a body; begin anew where it can't be had or may be another body's."""
        if body.offset == 0:
            raise _StartOver
        if body.validator is None:
            self._start_over("the download was cut, and its server can't resume it")
        answer = self._open({"Range": f"bytes={body.offset}-", "If-Range": body.validator})
        if answer.status_code != 206 or not body.goes_on_with(answer):
            if answer.status_code == 200 and body.is_begun_anew_by(answer):
                self._opened = answer
            else:
                answer.close()
            self._start_over("the download was cut, and its server sent something else than the rest of it")
        self._log.info("%s: going on after %s", self._expected, readable_size(body.offset))
        return answer

    def _start_over(self, why: str) -> NoReturn:
        if self._beginnings >= self._attempts:
            if self._opened is not None:
                self._opened.close()
            raise self._given_up(f"{why}, for the {self._beginnings}th time")
        self._log.warning("%s: %s; beginning anew", self._expected, why)
        raise _StartOver

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
                if status == 200:
                    contradiction = _contradiction(answer, self._body)
                    if contradiction is None:
                        return answer
                    trouble = contradiction
                wait = _retry_after(answer)
                answer.close()
                if status in _LINK_REFUSED:
                    self._link = None
                elif status not in (200, *_WORTH_WAITING) and status < 500:
                    raise AgentyExportError(
                        f"{self._expected} could not be downloaded: {self._host} answered HTTP {status}, which is "
                        "no file. Nothing was landed."
                    )
            self._after_failure(trouble or "", wait)

    def _follow(self, headers: dict[str, str]) -> tuple[requests.Response | None, str | None]:
        """Send one request and follow its redirects; give the answer, or what prevented it."""
        if self._link is None:
            self._link = self._get_link()
        self._time_limit.renew()
        text = self._link
        for _ in range(_MOST_REDIRECTS + 1):
            link = read_link(text, schemes_to_this_machine=self._schemes_to_this_machine)
            answer, trouble = self._send(link, headers)
            if answer is None or answer.status_code not in _REDIRECTS:
                return answer, trouble
            answer.close()
            location = answer.headers.get("Location", "").strip()
            if not location:
                return None, f"it answered HTTP {answer.status_code} without saying where to go"
            text = link.redirected(location)
        raise AgentyExportError(
            f"{self._expected} could not be downloaded: more than {_MOST_REDIRECTS} redirects, the last one from "
            f"{self._host}. Nothing was landed."
        )

    def _send(self, link: Link, headers: dict[str, str]) -> tuple[requests.Response | None, str | None]:
        import requests
        from urllib3.exceptions import HTTPError

        self._host = link.host
        for secret in secrets_in(link.text):
            self._secret(secret)
        answer = trouble = None
        try:
            request = self._session.prepare_request(
                requests.Request(
                    "GET",
                    f"{link.server}/",
                    headers={"Accept": "*/*", "Accept-Encoding": "identity", **headers},
                    # Anything but None keeps the login of a netrc file out.
                    auth=None if link.has_login else _no_login,
                )
            )
            # Left alone, requests lets the environment's certificates win over those of the session.
            verify = None if self._session.verify is True else self._session.verify
            settings: Any = self._session.merge_environment_settings(request.url, {}, True, verify, None)
            self._adapter.target = link.target
            with self._time_limit:
                # Not by the session, which reads the whole body of a redirect.
                answer = self._adapter.send(request, timeout=self._timeout, **settings)
            self._session.cookies.update(answer.cookies)
        except (requests.RequestException, HTTPError, OSError, *_BROKEN_ANSWER) as error:
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

    def _given_up(self, trouble: str) -> AgentyExportError:
        came = ""
        if self._body is not None:
            total = "" if self._body.total is None else f" of {self._body.total}"
            came = f" {self._body.offset}{total} bytes had come."
        return AgentyExportError(
            f"{self._expected} could not be downloaded from {self._host}: {trouble} ({self._attempts} attempts)."
            f"{came} Nothing was landed; try again.",
        )


@dataclass
class _Body:
    """The body that is being read: how far, and what tells it from another one."""

    total: int | None
    end: int | None  # where the answer ends that it is read from
    encoding: str
    etag: str | None
    validator: str | None
    offset: int = 0

    @classmethod
    def begun(cls, answer: requests.Response, before: _Body | None) -> _Body:
        """Begin with a whole answer; what was known about the same body before is still known."""
        found = _content_range(answer)
        total = _length(answer)
        if total is None and found:
            total = found[2]
        body = cls(
            total=total,
            end=total,
            encoding=_encoding(answer),
            etag=answer.headers.get("ETag"),
            validator=_validator(answer),
        )
        if body.total is None and before is not None and body.is_the_same_as(before):
            body.total = body.end = before.total
        return body

    def is_the_same_as(self, other: _Body) -> bool:
        return self.validator is not None and (self.validator, self.encoding) == (other.validator, other.encoding)

    def goes_on_with(self, answer: requests.Response) -> bool:
        """Tell whether an answer to a range is the rest of this body, and note what it says about the length."""
        found = _content_range(answer)
        if found is None:
            return False
        first, last, total = found
        if self.total is None:
            self.total = total
        self.end = last + 1
        return (
            first == self.offset
            and total in (None, self.total)
            and first <= last
            and (self.total is None or last < self.total)
            and _length(answer) in (None, last + 1 - first)
            and _encoding(answer) == self.encoding
            and answer.headers.get("ETag", self.etag) == self.etag
            and (self.etag is not None or answer.headers.get("Last-Modified", self.validator) == self.validator)
        )

    def is_begun_anew_by(self, answer: requests.Response) -> bool:
        """Tell whether an answer of 200 to a range is a whole body beyond doubt: another one, or as long as this."""
        if _contradiction(answer, self) is not None:
            return False
        is_another = None not in (etag := answer.headers.get("ETag"), self.etag) and etag != self.etag
        return is_another or (self.total is not None and _length(answer) == self.total)


def _contradiction(answer: requests.Response, before: _Body | None) -> str | None:
    """Say what is wrong with an answer of 200, by its own headers and by what is known of the same body."""
    if "Content-Length" in answer.headers and _length(answer) is None and not _is_chunked(answer):
        return "it announced a length that is none"
    if "Content-Range" in answer.headers:
        found = _content_range(answer)
        if found is None or found[0] != 0 or found[2] != found[1] + 1 or _length(answer) not in (None, found[2]):
            return "it sent a part of the file as if it were the whole"
    body = _Body.begun(answer, None)
    known = before.total if before is not None and body.is_the_same_as(before) else None
    if None not in (known, body.total) and body.total != known:
        return "it announced another length than before for the same file"
    return None


def _is_chunked(answer: requests.Response) -> bool:
    return "chunked" in answer.headers.get("Transfer-Encoding", "").lower()


def _length(answer: requests.Response) -> int | None:
    """Give the length of an answer's body. Of several values, as of several headers, all must be the same."""
    values = {value.strip() for value in answer.headers.get("Content-Length", "").split(",")}
    value = values.pop()
    return int(value) if not values and not _is_chunked(answer) and _NUMBER.fullmatch(value) else None


def _content_range(answer: requests.Response) -> tuple[int, int, int | None] | None:
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return found and (int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3]))


def _encoding(answer: requests.Response) -> str:
    return answer.headers.get("Content-Encoding", "").strip().lower()


def _validator(answer: requests.Response) -> str | None:
    """
    Give what RFC 9110 lets identify a body, byte for byte.

    That is a strong ``ETag``, or a ``Last-Modified`` that is at least a second older than the answer.
    """
    etag = answer.headers.get("ETag", "")
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    changed = answer.headers.get("Last-Modified", "")
    moment, now = _date(changed), _date(answer.headers.get("Date", ""))
    return changed if moment and now and now - moment >= timedelta(seconds=1) else None


def _date(value: str) -> datetime | None:
    """Read a date of HTTP; what is none, or can't be compared with others, is ``None``."""
    if len(value) > _LONGEST_DATE or not value.isprintable():
        return None
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except _BROKEN_ANSWER:
        return None


def _read_piece(answer: requests.Response) -> tuple[bytes, str | None]:
    from urllib3.exceptions import HTTPError

    trouble = None
    try:
        # read1 gives what has come: nothing of it is lost when the connection breaks in the next moment.
        return answer.raw.read1(_READ_SIZE, decode_content=False), None
    except (HTTPError, OSError, *_BROKEN_ANSWER) as error:
        trouble = describe_trouble(error)
    return b"", trouble


def _retry_after(answer: requests.Response) -> float | None:
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    moment = _date(value)
    return None if moment is None else max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _shortened(text: str | None) -> str | None:
    return text and text[:_LONGEST_NAME_SHOWN]


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
