"""The download host: links that expire, and the files behind them."""

from __future__ import annotations

import re
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from airflow_provider_agenty.sandbox.account import Account
from airflow_provider_agenty.sandbox.content import Content, text_bytes
from airflow_provider_agenty.sandbox.server import transport_of

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass
class DownloadOptions:
    """How the download port serves files: see :meth:`Sandbox.downloads`."""

    ranges: bool = True
    etag: bool = True
    gzip: bool = False
    link_seconds: float = 300.0


@dataclass
class _Link:
    path: str
    job_id: int
    kind: str
    collection: int
    modified: bool
    expires_at: float


class Downloads:
    """The ASGI application of the download port."""

    def __init__(self, account: Account) -> None:
        self.base_url = ""
        self.options = DownloadOptions()
        self._account = account
        # By signature.
        self._links: dict[str, _Link] = {}

    def make_link(self, job_id: int, kind: str, collection: int, *, modified: bool, filename: str) -> str:
        """Return a link to a file of a job."""
        path = f"/Job_{job_id}/{filename.removesuffix('.csv')}{collection}.csv"
        signature = secrets.token_hex(32)
        expires_at = self._account.now() + self.options.link_seconds
        self._links[signature] = _Link(path, job_id, kind, collection, modified, expires_at)
        return f"{self.base_url}{quote(path)}?signature={signature}"

    def expire_links(self) -> None:
        """Let every link expire that has been made so far."""
        for link in list(self._links.values()):
            link.expires_at = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope)
        link = self._links.get(request.query_params.get("signature", ""))
        if request.method not in ("GET", "HEAD"):
            refusal = _refusal(405, "MethodNotAllowed", "Only GET and HEAD are allowed")
        elif request.state.request.key_in is not None:
            # Answering would hide that a client has leaked the key to another host.
            refusal = _refusal(400, "KeyLeaked", "This host must not be sent an API key")
        elif link is None or link.path != scope["path"]:
            refusal = _refusal(403, "AccessDenied", "The signature does not match")
        elif link.expires_at < self._account.now():
            refusal = _refusal(403, "AccessDenied", "Request has expired")
        elif (content := self._content(link)) is None:
            refusal = _refusal(404, "NoSuchKey", "The specified file does not exist")
        else:
            await self._serve(content, request, send)
            return
        await refusal(scope, receive, send)

    def _content(self, link: _Link) -> Content | None:
        job = self._account.job(link.job_id)
        if job is None:
            return None
        if link.kind == "logs":
            return Content(text_bytes(job.log(self._account.now())))
        return self._account.result(job, link.collection, modified=link.modified)

    async def _serve(self, content: Content, request: Request, send: Send) -> None:
        options = self.options
        # The file may change while it is being served.
        size, etag = content.size, content.etag if options.etag else None
        headers = {"content-type": "text/csv", "content-disposition": "attachment"}
        if etag is not None:
            headers["etag"] = etag
        start, stop, status = 0, size, 200
        gzip = options.gzip and "gzip" in request.headers.get("accept-encoding", "")
        if gzip:
            headers["content-encoding"] = "gzip"
        elif options.ranges:
            headers["accept-ranges"] = "bytes"
            start, stop, status = _requested_range(request, size, etag)
        if status == 206:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
        elif status == 416:
            headers["content-range"] = f"bytes */{size}"
        if not gzip:
            headers["content-length"] = str(stop - start)
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        chunks = content.chunks(start, stop) if request.method == "GET" else iter(())
        for chunk in _compressed(chunks) if gzip else chunks:
            if transport_of(request.scope).is_closing():
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _refusal(status: int, code: str, message: str) -> Response:
    # File hosts answer in XML, which a careless client lands as the file.
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(body, status, media_type="application/xml")


def _requested_range(request: Request, size: int, etag: str | None) -> tuple[int, int, int]:
    """Return start, stop and status of the answer to ``Range`` and ``If-Range``."""
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or match[1] == match[2] == "" or request.headers.get("if-range", etag) != etag:
        return 0, size, 200
    if match[1] == "":
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    return (start, stop, 206) if start < stop else (0, 0, 416)


def _compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    compress = zlib.compressobj(1, wbits=31)
    for chunk in chunks:
        yield compress.compress(chunk)
    yield compress.flush()
