"""A download host on a real socket, whose answers and faults are scripted."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from airflow_provider_agenty.landing.download import HttpDownload
from airflow_provider_agenty.landing.land import ExportedFile, LandingOptions, land
from tests.loopback import LoopbackServer, read_head

LOG = logging.getLogger("landing-test")
SIGNATURE = "s3cr3t-signature"


@dataclass
class Request:
    path: str
    headers: dict[str, str]


@dataclass
class Answer:
    """
    One answer of the host.

    ``cut_after`` closes the connection after so many bytes of the body; ``reset`` does it rudely. ``length`` is
    what ``Content-Length`` says instead of the truth; ``None`` leaves it out. With ``ranges`` a ``Range`` is
    honoured while its ``If-Range`` is the ETag or the date of the answer. ``drip`` sends a byte each so many seconds.
    ``raw`` is sent instead of all the rest.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | str | None = "true"
    chunked: bool = False
    cut_after: int | None = None
    reset: bool = False
    ranges: bool = False
    stall: float = 0.0
    drip: float = 0.0
    raw: bytes | None = None

    def head_and_body(self, request: Request) -> tuple[bytes, bytes]:
        status, headers, body = self.status, dict(self.headers), self.body
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        validators = (headers.get("ETag"), headers.get("Last-Modified"))
        if self.ranges and asked and request.headers.get("if-range") in validators:
            start = int(asked[1])
            headers.setdefault("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            status, body = 206, body[start:]
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
            pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        elif self.length is not None:
            headers["Content-Length"] = str(len(body) if self.length == "true" else self.length)
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join([*lines, "Connection: close", "", ""])).encode(), body


class DownloadHost(LoopbackServer):
    """Serves scripted answers, one per request, the last one again and again."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self._context = context
        super().__init__()

    def link(self, name: str = "books.csv") -> str:
        scheme = "https" if self._context else "http"
        return f"{scheme}://127.0.0.1:{self.port}/{name}?signature={SIGNATURE}&n={len(self.requests)}"

    def answer(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            if self._context:
                connection = stack.enter_context(self._context.wrap_socket(connection, server_side=True))
            if not (head := read_head(connection)):
                return
            first, *lines = head.split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            request = Request(first.split(" ")[1], headers)
            self.requests.append(request)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            self._send(connection, answer, request)

    @staticmethod
    def _send(connection: socket.socket, answer: Answer, request: Request) -> None:
        head, body = answer.head_and_body(request) if answer.raw is None else (answer.raw, b"")
        if answer.drip:
            for at in range(len(head + body)):
                connection.sendall((head + body)[at : at + 1])
                time.sleep(answer.drip)
            return
        connection.sendall(head + body[: answer.cut_after])
        if answer.stall:
            time.sleep(answer.stall)
        if answer.reset:
            # What is still on the way would be lost with a reset: let it be read first.
            time.sleep(0.1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def host() -> Iterator[DownloadHost]:
    server = DownloadHost()
    yield server
    server.close()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def secrets() -> list[str]:
    return []


@pytest.fixture
def make_download(host, session, secrets) -> Callable[..., HttpDownload]:
    def make(**options) -> HttpDownload:
        settings = {
            "get_link": host.link,
            "session": session,
            "expected": "The result of job 7",
            "secret": secrets.append,
            "log": LOG,
            "timeout": (5.0, 5.0),
            "first_pause": 0.001,
            "schemes_to_this_machine": ("https", "http"),
            **options,
        }
        return HttpDownload(settings.pop("get_link"), settings.pop("session"), **settings)

    return make


def land_source(source, destination, *, collection=1, count_rows=True, expected_rows=None, **options) -> ExportedFile:
    """Land content that comes from no job."""
    writes = "csv" if count_rows else "log" if collection is None else "jsonl"
    given = LandingOptions(7, destination.path, writes, collection=collection, **options)
    return land(source, destination, given, expected_rows=expected_rows, log=LOG)


def files_in(folder: Path) -> list[str]:
    """Name every file below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def everything_said(error: BaseException) -> str:
    """Put all that an error and the errors behind it say into one text."""
    said, waiting = [], [error]
    while waiting:
        current = waiting.pop()
        said += [str(current), repr(current), repr(current.args), repr(vars(current))]
        waiting += [other for other in (current.__cause__, current.__context__) if other]
    return "\n".join(said)
