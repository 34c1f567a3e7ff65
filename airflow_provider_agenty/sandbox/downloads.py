"""The download host: signed links that expire, and the files behind them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import Response

from airflow_provider_agenty.sandbox import answers, wire
from airflow_provider_agenty.sandbox.content import Content

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_agenty.sandbox.account import Account
    from airflow_provider_agenty.sandbox.wire import Receive, Scope, Send

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass
class DownloadOptions:
    """
    How the download port serves files.

    :param ranges: whether ``Range`` is obeyed.
    :param etag: whether files have an ``ETag``.
    :param gzip: whether clients that accept gzip get it: without a length, and without ranges.
    :param link_seconds: how long a link can be used.
    """

    ranges: bool = True
    etag: bool = True
    gzip: bool = False
    link_seconds: float = 300.0


class Links:
    """Makes links, and tells whether a link is genuine and still good."""

    def __init__(self, account: Account) -> None:
        self.base_url = ""
        self.options = DownloadOptions()
        self._account = account
        self._secret = secrets.token_bytes(32)
        self._valid_from = 0

    def make(self, job_id: int, kind: str, collection: int, *, modified: bool, filename: str) -> str:
        """Return a link to a file of a job."""
        file = f"{filename.removesuffix('.csv')}{collection}.csv"
        claim = {
            "file": f"/Job_{job_id}/{file}",
            "job": job_id,
            "kind": kind,
            "collection": collection,
            "modified": modified,
            "until": self._account.now() + self.options.link_seconds,
            "generation": self._valid_from,
            "nonce": secrets.token_hex(4),
        }
        # Not the JSON alone: text that begins as a JWT does is hidden by Airflow's logs, and with it every leak.
        payload = base64.urlsafe_b64encode(b"sandbox" + json.dumps(claim).encode()).decode().rstrip("=")
        return f"{self.base_url}/Job_{job_id}/{quote(file)}?signature={payload}.{self._sign(payload)}"

    def expire_all(self) -> None:
        """Let every link expire that has been made so far."""
        self._valid_from += 1

    def read(self, path: str, signature: str) -> tuple[dict[str, Any] | None, str]:
        """Return what a link stands for, or ``None`` and why it is refused."""
        payload, _, mac = signature.partition(".")
        if not hmac.compare_digest(self._sign(payload).encode(), mac.encode()):
            return None, "The signature does not match"
        decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        claim: dict[str, Any] = json.loads(decoded.removeprefix(b"sandbox"))
        if path != claim["file"]:
            return None, "The signature does not match"
        if claim["until"] < self._account.now() or claim["generation"] != self._valid_from:
            return None, "Request has expired"
        return claim, ""

    def _sign(self, payload: str) -> str:
        return hmac.new(self._secret, payload.encode(), hashlib.sha256).hexdigest()


class Downloads:
    """The ASGI application of the download port."""

    def __init__(self, account: Account, links: Links) -> None:
        self._account = account
        self._links = links

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        claim, problem = self._links.read(scope["path"], scope["state"]["query"].get("signature", ""))
        content = self._content(claim) if claim is not None else None
        if scope["method"] not in ("GET", "HEAD"):
            refusal = _refusal(405, "MethodNotAllowed", "Only GET and HEAD are allowed")
        elif scope["state"]["key_in"] is not None:
            # A client that hands the key to another host has leaked it. Answering would hide that.
            refusal = _refusal(400, "KeyLeaked", "This host must not be sent an API key")
        elif claim is None:
            refusal = _refusal(403, "AccessDenied", problem)
        elif content is None:
            refusal = _refusal(404, "NoSuchKey", "The specified file does not exist")
        else:
            await self._serve(content, scope, send)
            return
        await refusal(scope, receive, send)

    def _content(self, claim: dict[str, Any]) -> Content | None:
        job = self._account.job(claim["job"])
        if job is None:
            return None
        if claim["kind"] == "logs":
            return Content(answers.to_text(job.log(self._account.now())))
        return self._account.result(job, claim["collection"], modified=claim["modified"])

    async def _serve(self, content: Content, scope: Scope, send: Send) -> None:
        options = self._links.options
        request = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        # Asked once: the file may change while it is being served.
        size, etag = content.size, content.etag if options.etag else None
        headers = {"content-type": "text/csv", "content-disposition": "attachment"}
        if etag is not None:
            headers["etag"] = etag
        start, stop, status = 0, size, 200
        gzip = options.gzip and "gzip" in request.get("accept-encoding", "")
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
        await wire.send_start(send, status, headers)
        chunks = content.chunks(start, stop) if scope["method"] == "GET" else iter(())
        transport = wire.transport_of(scope)
        for chunk in _compressed(chunks) if gzip else chunks:
            if transport.is_closing():
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _refusal(status: int, code: str, message: str) -> Response:
    # File hosts answer in XML; a client that takes it for the file lands it as one.
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(body, status, media_type="application/xml")


def _requested_range(request: dict[str, str], size: int, etag: str | None) -> tuple[int, int, int]:
    """Return start, stop and status of the answer to ``Range`` and ``If-Range``."""
    match = _RANGE.fullmatch(request.get("range", "").strip())
    if match is None or match[1] == match[2] == "" or request.get("if-range", etag) != etag:
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
