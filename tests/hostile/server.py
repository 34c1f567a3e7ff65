"""Two servers on raw sockets: one that answers as it is told to, byte for byte, and one to which no key may come."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROUTES = (
    ("start", "POST", r"/jobs/start"),
    ("jobs", "GET", r"/jobs"),
    ("stop", "GET", r"/jobs/\d+/stop"),
    ("result", "GET", r"/jobs/\d+/result"),
    ("logs", "GET", r"/jobs/\d+/logs"),
    ("export", "GET", r"/jobs/\d+/export"),
    ("job", "GET", r"/jobs/\d+"),
    ("set_input", "PUT", r"/inputs/\w+"),
    ("input", "GET", r"/inputs/\w+"),
    ("agents", "GET", r"/agents"),
    ("agent", "GET", r"/agents/\w+"),
    ("project", "GET", r"/projects/\d+"),
    ("download", "GET", r"/files/.*"),
)
"""The calls of the Jobs API, and the download that an export leads to, by the names that the tables use."""


@dataclass(frozen=True)
class Request:
    """
    What a client asked for.

    :param route: The name in ``ROUTES``; empty if it is none of them.
    :param number: How many requests came to this route before.
    """

    route: str
    path: str
    query: dict[str, str]
    head: bytes
    body: bytes
    number: int

    def whole(self, name: str, default: int) -> int:
        """Return a number of the query."""
        return int(self.query.get(name, default))


@dataclass(frozen=True)
class Reply:
    """
    An answer. What is not bytes already becomes JSON.

    :param length: What ``Content-Length`` says; ``None``: the truth.
    :param raw: Sent in place of all the rest: pieces of bytes, as slowly as they come.
    :param reset: Whether the connection is reset once it is sent.
    """

    body: Any = b""
    status: int | str = 200
    headers: tuple[tuple[str, str | bytes], ...] = ()
    length: str | None = None
    raw: Iterable[bytes] | None = None
    reset: bool = False

    def with_headers(self, **headers: str | bytes) -> Reply:
        """Return it with more headers, an underscore for each dash."""
        more = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return replace(self, headers=(*self.headers, *more))

    def encoded(self) -> bytes:
        """Return the body as it is sent."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    def pieces(self) -> Iterator[bytes]:
        """Yield what is sent."""
        if self.raw is not None:
            yield from self.raw
            return
        body = self.encoded()
        lines = [b"HTTP/1.1 %s x" % str(self.status).encode(), b"Connection: close"]
        for name, value in self.headers:
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
        if not any(name.lower() in {"content-length", "transfer-encoding"} for name, _ in self.headers):
            lines.append(b"Content-Length: " + (self.length or str(len(body))).encode())
        yield b"\r\n".join(lines) + b"\r\n\r\n" + body


class _Server:
    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self._connections: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError, ValueError):
                self.serve(connection)
        finally:
            self._connections.discard(connection)
            # A child process may hold a copy of the socket: closing it would not end the connection.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def serve(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def drop_connections(self) -> None:
        """End all that is being answered."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.drop_connections()


class Elsewhere(_Server):
    """Another host. It keeps all that it is sent, and answers with a job that nobody should believe."""

    def __init__(self) -> None:
        self.received = b""
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        self.received += connection.recv(65_536)
        body = json.dumps({"job_id": 666, "status": "completed", "total": 0, "result": []}).encode()
        connection.sendall(b"HTTP/1.1 200 x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


class HostileServer(_Server):
    """Answers each request with what :attr:`answer` makes of it."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], Reply] = lambda _request: Reply(status=404)
        self.asked: list[str] = []
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        request = self._read(connection)
        reply = self.answer(request)
        for piece in reply.pieces():
            connection.sendall(piece)
        if reply.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    def _read(self, connection: socket.socket) -> Request:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
        while len(body) < int(length[1] if length else 0):
            body += self._more(connection)
        method, target, *_ = head.decode("latin-1").split(" ", 2)
        parts = urlsplit(target)
        path = parts.path.removeprefix("/v2")
        route = next((name for name, verb, shape in ROUTES if verb == method and re.fullmatch(shape, path)), "")
        number = self.asked.count(route)
        self.asked.append(route)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return Request(route, path, query, head, body, number)

    @staticmethod
    def _more(connection: socket.socket) -> bytes:
        piece = connection.recv(65_536)
        if not piece:
            raise ValueError("the client has gone")
        return piece


def dripped(data: bytes, *, at_once: int = 0, seconds: float = 0.1) -> Iterator[bytes]:
    """
    Yield a byte at a time, and for ever: no read timeout ever sees a pause.

    :param data: What is sent; its last byte is repeated without end.
    :param at_once: How many bytes come first, in one piece.
    :param seconds: How long the pause before each byte is.
    """
    yield data[:at_once]
    position = at_once
    while True:
        time.sleep(seconds)
        yield data[position : position + 1] or data[-1:]
        position += 1


@dataclass
class Secrets:
    """
    What no message, no log and no value may hold, in any form.

    :param signature: That of a link, in its query.
    :param place: A part of the path of a link.
    """

    key: str
    signature: str
    place: str
    forms: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        from urllib.parse import quote, quote_plus

        def forms_of(text: str) -> set[str]:
            return {text, quote(text), quote(text, safe=""), quote_plus(text), json.dumps(text)[1:-1]}

        # The beginning tells: a text that was cut in the middle of a secret still holds the better part of it.
        self.forms = tuple(sorted({form[:12] for form in forms_of(self.key) | forms_of(self.signature) | {self.place}}))

    def found_in(self, text: str) -> str | None:
        """Return the place in a text at which one of them begins."""
        for form in self.forms:
            at = text.find(form)
            if at >= 0:
                return text[max(at - 60, 0) : at + 20]
        return None
