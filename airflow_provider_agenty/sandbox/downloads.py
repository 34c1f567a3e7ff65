"""The download host: signed links that expire, and the files behind them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_agenty.sandbox import answers, wire
from airflow_provider_agenty.sandbox.content import CsvBytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_agenty.sandbox.account import Account
    from airflow_provider_agenty.sandbox.content import Content
    from airflow_provider_agenty.sandbox.options import DownloadOptions
    from airflow_provider_agenty.sandbox.wire import Receive, Scope, Send

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
# Small bodies are compressed before they are sent, so that they can have a length.
_COMPRESS_AT_ONCE_BYTES = 32 * 1024 * 1024


class Links:
    """Makes links, and tells whether a link is genuine and still good."""

    def __init__(self, account: Account, options: DownloadOptions) -> None:
        self.base_url = ""
        self._account = account
        self._options = options
        self._secret = secrets.token_bytes(32)
        self._valid_from = 0

    def make(self, job_id: int, kind: str, collection: int, *, modified: bool, filename: str) -> str:
        """Return a link to a file of a job."""
        stem = filename.removesuffix(".csv")
        path = f"/Job_{job_id}/{quote(stem)}{collection}.csv"
        claim = {
            "file": f"Job_{job_id}/{stem}{collection}.csv",
            "job": job_id,
            "kind": kind,
            "collection": collection,
            "modified": modified,
            "until": self._account.now() + self._options.link_seconds,
            "generation": self._valid_from,
            "nonce": secrets.token_hex(4),
        }
        # Not the JSON alone: text that begins as a JWT does is hidden by Airflow's logs, and with it every leak.
        payload = base64.urlsafe_b64encode(b"sandbox" + json.dumps(claim).encode()).decode().rstrip("=")
        return f"{self.base_url}{path}?signature={payload}.{self._sign(payload)}"

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
        if path.removeprefix("/") != claim["file"]:
            return None, "The signature does not match"
        if claim["until"] < self._account.now() or claim["generation"] != self._valid_from:
            return None, "Request has expired"
        return claim, ""

    def _sign(self, payload: str) -> str:
        return hmac.new(self._secret, payload.encode(), hashlib.sha256).hexdigest()


class Downloads:
    """The ASGI application of the download port."""

    def __init__(self, account: Account, links: Links, options: DownloadOptions) -> None:
        self._account = account
        self._links = links
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, 405, "MethodNotAllowed", "Only GET and HEAD are allowed")
            return
        if scope["state"]["key_in"] is not None:
            # A client that hands the key to another host has leaked it. Answering would hide that.
            await _refuse(send, 400, "KeyLeaked", "This host must not be sent an API key")
            return
        claim, refusal = self._links.read(scope["path"], scope["state"]["query"].get("signature", ""))
        if claim is None:
            await _refuse(send, 403, "AccessDenied", refusal)
            return
        content = self._content(claim)
        if content is None:
            await _refuse(send, 404, "NoSuchKey", "The specified file does not exist")
            return
        await self._serve(content, scope, receive, send)

    def _content(self, claim: dict[str, Any]) -> Content | None:
        job = self._account.job(claim["job"])
        if job is None:
            return None
        if claim["kind"] == "logs":
            return CsvBytes(answers.to_text(job.log(self._account.now())))
        return self._account.result(job, claim["collection"], modified=claim["modified"])

    async def _serve(self, content: Content, scope: Scope, receive: Receive, send: Send) -> None:
        request = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        # Asked once: the file may change while it is being served.
        size, etag = content.size, content.etag
        headers = {"content-type": "text/csv", "content-disposition": "attachment"}
        if self._options.etag:
            headers["etag"] = etag
        encoding = self._options.encoding if "gzip" in request.get("accept-encoding", "") else None
        if encoding is not None:
            headers["content-encoding"] = "gzip"
            await self._send_compressed(content, size, encoding, headers, scope, receive, send)
            return
        start, stop, status = 0, size, 200
        if self._options.ranges:
            headers["accept-ranges"] = "bytes"
            start, stop, status = _requested_range(request, size, etag if self._options.etag else None)
        if status == 416:
            await wire.send_start(send, 416, {**headers, "content-range": f"bytes */{size}", "content-length": "0"})
            await send({"type": "http.response.body", "body": b""})
            return
        if status == 206:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
        await self._send(status, headers, content.chunks(start, stop), stop - start, scope, receive, send)

    async def _send_compressed(
        self,
        content: Content,
        size: int,
        encoding: str,
        headers: dict[str, str],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        chunks = _gzip(content.chunks(0, size), size // 3 + 1 if encoding == "gzip-members" else None)
        length: int | None = None
        if size <= _COMPRESS_AT_ONCE_BYTES:
            body = b"".join(chunks)
            chunks, length = iter([body]), len(body)
        await self._send(200, headers, chunks, length, scope, receive, send)

    async def _send(
        self,
        status: int,
        headers: dict[str, str],
        chunks: Iterator[bytes],
        length: int | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["method"] == "HEAD":
            chunks = iter(())
        if self._options.length == "none":
            await _send_until_closed(status, headers, chunks, scope, receive)
            return
        if self._options.length == "content-length" and length is not None:
            headers["content-length"] = str(length)
        await wire.send_start(send, status, headers)
        transport = wire.transport_of(scope)
        for chunk in chunks:
            if transport.is_closing():
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _send_until_closed(
    status: int, headers: dict[str, str], chunks: Iterator[bytes], scope: Scope, receive: Receive
) -> None:
    # uvicorn would make this chunked; a body that ends with its connection has to be written past it.
    transport = wire.transport_of(scope)
    lines = [
        f"HTTP/1.1 {status} OK",
        *(f"{name}: {value}" for name, value in headers.items()),
        "connection: close",
    ]
    transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    await wire.write_all(transport, chunks)
    wire.close(transport)
    await wire.disconnected(receive)


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    # File hosts answer in XML; a client that takes it for the file lands it as one.
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    headers = {"content-type": "application/xml", "content-length": str(len(body))}
    await wire.send_start(send, status, headers)
    await send({"type": "http.response.body", "body": body.encode()})


def _requested_range(request: dict[str, str], size: int, etag: str | None) -> tuple[int, int, int]:
    """Return start, stop and status of the answer to ``Range`` and ``If-Range``."""
    whole = 0, size, 200
    match = _RANGE.fullmatch(request.get("range", "").strip())
    if match is None or match[1] == match[2] == "":
        return whole
    if "if-range" in request and request["if-range"].strip() != etag:
        return whole
    if match[1] == "":
        start, stop = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        stop = min(size, int(match[2]) + 1) if match[2] else size
    return (start, stop, 206) if start < stop else (0, 0, 416)


def _gzip(chunks: Iterator[bytes], member_bytes: int | None) -> Iterator[bytes]:
    compress, taken = zlib.compressobj(1, wbits=31), 0
    for chunk in chunks:
        step = member_bytes or len(chunk)
        for position in range(0, len(chunk), step):
            piece = chunk[position : position + step]
            if member_bytes and taken and taken + len(piece) > member_bytes:
                yield compress.flush()
                compress, taken = zlib.compressobj(1, wbits=31), 0
            yield compress.compress(piece)
            taken += len(piece)
    yield compress.flush()
