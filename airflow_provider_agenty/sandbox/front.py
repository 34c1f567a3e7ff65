"""The front door of each port: reads the request, writes it into the book, lets faults have their way."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from airflow_provider_agenty.sandbox.recorder import RecordedRequest, Recorder

if TYPE_CHECKING:
    from airflow_provider_agenty.sandbox.account import Account
    from airflow_provider_agenty.sandbox.faults import Fault
    from airflow_provider_agenty.sandbox.options import ApiOptions
    from airflow_provider_agenty.sandbox.wire import App, Message, Receive, Scope, Send

API_PREFIX = "/v2"
KEY_HEADER = "x-agenty-apikey"
KEY_PARAMETER = "apikey"
_MOST_BODY_BYTES = 64 * 1024 * 1024
_RECORDED_BODY_BYTES = 64 * 1024
_JOB_IN_PATH = re.compile(r"/(?:jobs/|Job_)(\d{1,18})(?:/|$)")
_AGENT_IN_PATH = re.compile(r"/(?:agents|inputs)/([^/]+)")


class FrontDoor:
    """
    An ASGI application in front of another one.

    :param host: ``"api"`` or ``"downloads"``.
    :param app: the application behind it. It finds the key in ``scope["state"]["key"]`` and the query in
        ``scope["state"]["query"]``.
    """

    def __init__(
        self,
        host: str,
        app: App,
        *,
        options: ApiOptions,
        account: Account,
        recorder: Recorder,
        faults: list[Fault],
    ) -> None:
        self._host = host
        self._app = app
        self._options = options
        self._account = account
        self._recorder = recorder
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        body = await _read_body(receive)
        if body is None:
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        scope["state"]["query"] = {name: value for name, value in query if name.lower() != KEY_PARAMETER}
        scope["state"]["key"], place = self._key(scope, query)
        scope["state"]["key_in"] = place
        request = self._recorded(scope, body, place)
        self._recorder.add(request)

        async def send_noting_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
            await send(message)

        app = self._app
        taken = [fault for fault in list(self._faults) if fault.takes(request)]
        # The fault that was switched on first is the outermost.
        for fault in reversed(taken):
            app = fault.around(app)
        try:
            await app(scope, _replay(body, receive), send_noting_status)
        except asyncio.CancelledError:
            # Only the end of the server cancels a request, and uvicorn would report that as a failure.
            return

    def _key(self, scope: Scope, query: list[tuple[str, str]]) -> tuple[str | None, str | None]:
        for name, value in scope["headers"]:
            if name.lower() == KEY_HEADER.encode():
                return value.decode("latin-1"), "header"
        for name, text in query:
            if name.lower() == KEY_PARAMETER:
                return text, "query"
        known = (self._options.key, self._options.forbidden_key)
        everything = [scope["path"], unquote(scope["query_string"].decode("latin-1"))]
        everything += [value.decode("latin-1") for _, value in scope["headers"]]
        if any(key in text for key in known for text in everything):
            return None, "elsewhere"
        return None, None

    def _recorded(self, scope: Scope, body: bytes, key_in: str | None) -> RecordedRequest:
        path = scope["path"].removeprefix(API_PREFIX) if self._host == "api" else scope["path"]
        query = scope["state"]["query"]
        job_id = int(match[1]) if (match := _JOB_IN_PATH.search(path)) else None
        return RecordedRequest(
            host=self._host,
            method=scope["method"],
            path=self._without_key(path),
            query={name: self._without_key(value) for name, value in query.items() if name != "signature"},
            headers={
                name.decode("latin-1").lower(): self._without_key(value.decode("latin-1"))
                for name, value in scope["headers"]
                if name.lower() != KEY_HEADER.encode()
            },
            body=self._without_key(body[:_RECORDED_BODY_BYTES].decode("utf-8", "replace")),
            key_in=key_in,
            key_valid=scope["state"]["key"] is not None and same_key(scope["state"]["key"], self._options.key),
            client_port=scope["client"][1] if scope["client"] else 0,
            time=self._recorder.now(),
            job_id=job_id,
            agent_id=self._agent_id(path, query, body, job_id),
        )

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
        for key in (self._options.key, self._options.forbidden_key):
            text = text.replace(key, "***")
        return text


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
