"""The front door of each port: reads the request, writes it into the book, lets faults have their way."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from airflow_provider_agenty.sandbox.account import Account
    from airflow_provider_agenty.sandbox.faults import Fault
    from airflow_provider_agenty.sandbox.wire import App, Message, Receive, Scope, Send

API_PREFIX = "/v2"
KEY_HEADER = "x-agenty-apikey"
KEY_PARAMETER = "apikey"
MOST_REQUESTS = 200_000
_MOST_BODY_BYTES = 64 * 1024 * 1024
_RECORDED_BODY_BYTES = 64 * 1024
_JOB_IN_PATH = re.compile(r"/(?:jobs/|Job_)(\d{1,18})(?:/|$)")
_AGENT_IN_PATH = re.compile(r"/(?:agents|inputs)/([^/]+)")


@dataclass
class RecordedRequest:
    """
    A request as the server saw it, the key taken out.

    :param host: ``"api"`` or ``"downloads"``.
    :param method: the HTTP method.
    :param path: the path below the base URL (``/jobs/start``); on the download port, the whole path.
    :param query: the query's parameters, without the key and without a link's signature.
    :param headers: the headers, names in lower case, without the key.
    :param body: the body as text, at most its first 64 KiB.
    :param key_in: ``"header"``, ``"query"``, ``"elsewhere"`` (anywhere a key has no place), or ``None``.
    :param key_valid: whether it was the sandbox's key.
    :param client_port: the client's port: the same as long as the TCP connection is the same.
    :param time: when it came, in seconds since the epoch.
    :param job_id: the job it speaks of, where the path names one.
    :param agent_id: the agent it speaks of, in the path, query or body, or through its job.
    :param status: the HTTP status of the answer; ``None`` where there was none.
    """

    host: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str
    key_in: str | None
    key_valid: bool
    client_port: int
    time: float
    job_id: int | None = None
    agent_id: str | None = None
    status: int | None = None


class FrontDoor:
    """
    What every request passes, to either port: the key, the book of requests, and the faults.

    :param key: the API key, which is kept out of the book.
    :param account: tells whose job a request is about.
    """

    def __init__(self, key: str, account: Account) -> None:
        self.requests: deque[RecordedRequest] = deque(maxlen=MOST_REQUESTS)
        self.faults: list[Fault] = []
        self._key = key
        self._account = account

    def before(self, host: str, app: App) -> App:
        """
        Return an application with the front door before it.

        :param host: ``"api"`` or ``"downloads"``.
        :param app: finds the key, how it came, and the query in ``scope["state"]``: ``key``, ``key_in``, ``query``.
        """

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            body = await _read_body(receive)
            if body is None:
                return
            request = self._recorded(host, scope, body)
            with self._account.lock:
                self.requests.append(request)
                taken = [fault for fault in self.faults if fault.takes(request)]

            async def send_noting_status(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.status = message["status"]
                await send(message)

            faulty = app
            # The fault that was switched on first is the outermost.
            for fault in reversed(taken):
                faulty = fault.around(faulty)
            try:
                await faulty(scope, _replay(body, receive), send_noting_status)
            except asyncio.CancelledError:
                # Only the end of the server cancels a request, and uvicorn would report that as a failure.
                return

        return answer

    def _recorded(self, host: str, scope: Scope, body: bytes) -> RecordedRequest:
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        query = {name: value for name, value in pairs if name.lower() != KEY_PARAMETER}
        key, key_in = self._key_of(scope, pairs)
        scope["state"] |= {"query": query, "key": key, "key_in": key_in}
        path = scope["path"].removeprefix(API_PREFIX) if host == "api" else scope["path"]
        job_id = int(match[1]) if (match := _JOB_IN_PATH.search(path)) else None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        return RecordedRequest(
            host=host,
            method=scope["method"],
            path=self._without_key(path),
            query={name: self._without_key(value) for name, value in query.items() if name != "signature"},
            headers={name: self._without_key(value) for name, value in headers.items() if name != KEY_HEADER},
            body=self._without_key(body[:_RECORDED_BODY_BYTES].decode("utf-8", "replace")),
            key_in=key_in,
            key_valid=key is not None and same_key(key, self._key),
            client_port=scope["client"][1] if scope["client"] else 0,
            time=time.time(),
            job_id=job_id,
            agent_id=self._agent_id(path, query, body, job_id),
        )

    def _key_of(self, scope: Scope, query: list[tuple[str, str]]) -> tuple[str | None, str | None]:
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        for place, pairs, wanted in (("header", headers, KEY_HEADER), ("query", query, KEY_PARAMETER)):
            for name, value in pairs:
                if name.lower() == wanted:
                    return value, place
        everything = [scope["path"], unquote(scope["query_string"].decode("latin-1")), *(value for _, value in headers)]
        return None, "elsewhere" if any(self._key in text for text in everything) else None

    def _agent_id(self, path: str, query: dict[str, str], body: bytes, job_id: int | None) -> str | None:
        if match := _AGENT_IN_PATH.match(path):
            return match[1]
        if "agent_id" in query:
            return query["agent_id"]
        if job_id is not None:
            job = self._account.job(job_id)
            return job.agent.agent_id if job else None
        given = parse_json(body)
        agent_id = given.get("agent_id") if isinstance(given, dict) else None
        return agent_id if isinstance(agent_id, str) else None

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***")


def same_key(given: str, expected: str) -> bool:
    """Compare two keys."""
    return hmac.compare_digest(given.encode(), expected.encode())


def parse_json(body: bytes) -> Any:
    """Return what a body says, or ``None`` where it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


async def _read_body(receive: Receive) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False) or len(body) > _MOST_BODY_BYTES:
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
