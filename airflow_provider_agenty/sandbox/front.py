"""The front door of both ports: it records each request and lets faults have their way."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_agenty.sandbox.account import Account
from airflow_provider_agenty.sandbox.faults import Fault

API_PREFIX = "/v2"
KEY_HEADER = "x-agenty-apikey"
KEY_PARAMETER = "apikey"
MAX_REQUESTS = 200_000
_MAX_RECORDED_BODY_BYTES = 64 * 1024
_JOB_IN_PATH = re.compile(r"/(?:jobs/|Job_)(\d{1,18})(?:/|$)")
_AGENT_IN_PATH = re.compile(r"/(?:agents|inputs)/([^/]+)")


@dataclass
class RecordedRequest:
    """
    A request as the server saw it, without the key.

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
    """Records requests, without the account's key in them, and lets faults have their way."""

    def __init__(self, key: str, account: Account) -> None:
        self.requests: deque[RecordedRequest] = deque(maxlen=MAX_REQUESTS)
        self.faults: list[Fault] = []
        self._key = key
        self._account = account

    def before(self, host: str, app: ASGIApp) -> ASGIApp:
        """Return an application that finds the ``body`` and the record of the ``request`` in ``scope["state"]``."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                body = await Request(scope, receive).body()
            except ClientDisconnect:
                return
            request = self._recorded(host, Request(scope), body)
            scope["state"] |= {"body": body, "request": request}
            with self._account.lock:
                self.requests.append(request)
                taken = [fault for fault in self.faults if fault.takes(request)]

            async def send_noting_status(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.status = message["status"]
                    headers = MutableHeaders(raw=message["headers"])
                    headers.setdefault("Date", formatdate(self._account.now(), usegmt=True))
                await send(message)

            faulty = app
            # The fault that was switched on first is the outermost.
            for fault in reversed(taken):
                faulty = fault.around(faulty)
            try:
                await faulty(scope, receive, send_noting_status)
            except asyncio.CancelledError:
                # Only the end of the server cancels a request, and uvicorn would report that as a failure.
                return

        return answer

    def _recorded(self, host: str, request: Request, body: bytes) -> RecordedRequest:
        path = request.scope["path"]
        if host == "api":
            path = path.removeprefix(API_PREFIX)
        query = {name: value for name, value in request.query_params.multi_items() if name.lower() != KEY_PARAMETER}
        job_id = int(match[1]) if (match := _JOB_IN_PATH.search(path)) else None
        key, key_in = self._key_of(request)
        return RecordedRequest(
            host=host,
            method=request.method,
            path=self._without_key(path),
            query={name: self._without_key(value) for name, value in query.items() if name != "signature"},
            headers={name: self._without_key(text) for name, text in request.headers.items() if name != KEY_HEADER},
            body=self._without_key(body[:_MAX_RECORDED_BODY_BYTES].decode("utf-8", "replace")),
            key_in=key_in,
            key_valid=key == self._key,
            client_port=request.client.port if request.client else 0,
            time=time.time(),
            job_id=job_id,
            agent_id=self._agent_id(path, query, body, job_id),
        )

    def _key_of(self, request: Request) -> tuple[str | None, str | None]:
        if KEY_HEADER in request.headers:
            return request.headers[KEY_HEADER], "header"
        for name, value in request.query_params.multi_items():
            if name.lower() == KEY_PARAMETER:
                return value, "query"
        query_string = unquote(request.scope["query_string"].decode("latin-1"))
        everything = [request.scope["path"], query_string, *request.headers.values()]
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


def parse_json(body: bytes) -> Any:
    """Return what a body says, or ``None`` where it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
