"""The fixtures of the API's tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import pytest

from tests.loopback import serving
from tests.over_the_wire import (  # noqa: F401 - fixtures
    Certificate,
    certificate,
    closed_port,
    connect,
    finished_job,
    hook,
    hook_log,
    plain_environment,
    quick_starts,
    sandbox,
    slept,
)


@dataclass
class Listener:
    """A plain HTTP server that notes what it is sent and answers as it is told."""

    url: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    connections: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"total": 0, "limit": 1, "offset": 0, "returned": 0, "result": []}'
    drip: float = 0.0
    """Seconds between two bytes of an answer, its first line included."""

    @property
    def everything(self) -> str:
        """All that came, as one text."""
        return repr(self.requests)


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give another host than the API: also a proxy, since it answers any request line."""
    noted = Listener()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            noted.connections += 1
            super().setup()

        def do_GET(self) -> None:
            noted.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            if noted.drip:
                self.drip()
                return
            self.send_response(noted.status)
            for name, value in {"Content-Length": str(len(noted.body)), **noted.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(noted.body)

        do_POST = do_CONNECT = do_GET  # noqa: N815

        def drip(self) -> None:
            self.close_connection = True
            for byte in b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000:
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return
                time.sleep(noted.drip)

    with serving(Handler) as noted.url:
        yield noted


@pytest.fixture
def texts_of() -> Callable[[BaseException], str]:
    """Give a function that returns all that can be read from an exception and from those behind it."""

    def texts(error: BaseException) -> str:
        found: list[str] = []
        pending: list[BaseException | None] = [error]
        seen: set[int] = set()
        while pending:
            current = pending.pop()
            if current is None or id(current) in seen:
                continue
            seen.add(id(current))
            found += [str(current), repr(current), repr(current.args), repr(vars(current))]
            pending += [current.__cause__, current.__context__]
            pending += [argument for argument in current.args if isinstance(argument, BaseException)]
        return "\n".join(found)

    return texts
