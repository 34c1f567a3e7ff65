"""An Agenty with one completed job, whose pages of the result are written by the test, to the byte."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.loopback import serving

JOB_ID = 7

Pages = Callable[[int, int, int], bytes]
"""Makes an answer of the offset, the limit, and how many requests for more than one row there were before."""


def page_of(total: int, rows: list[Any] | str) -> bytes:
    """Return a page with these rows, or with the text of them."""
    text = rows if isinstance(rows, str) else json.dumps(rows)
    return f'{{"total": {total}, "result": {text}}}'.encode("utf-8", "surrogatepass")


class ResultServer:
    """
    Serves a result.

    ``limits`` are those of the requests for more than one row: one alone is what the count asks for.

    :param pages: Makes the pages.
    """

    def __init__(self, pages: Pages) -> None:
        self.limits: list[int] = []
        self.requests = 0
        self.connection = ""
        self._pages = pages
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def serving(cls, pages: Pages) -> Iterator[ResultServer]:
        server = cls(pages)
        with serving(server._handler()) as url:
            extra = {"max_attempts": 1}
            server.connection = json.dumps({"conn_type": "agenty", "host": url, "password": "key", "extra": extra})
            yield server

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path.endswith("/result"):
                    query = parse_qs(parts.query)
                    body = server.answer(int(query["offset"][0]), int(query["limit"][0]))
                else:
                    body = json.dumps({"job_id": JOB_ID, "status": "completed", "agent_id": "45l0wewqzk"}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler

    def answer(self, offset: int, limit: int) -> bytes:
        """Return a page."""
        with self._lock:
            self.requests += 1
            number = len(self.limits)
            if limit > 1:
                self.limits.append(limit)
        return self._pages(offset, limit, number)
