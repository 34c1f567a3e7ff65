"""Faults: which requests go wrong, and how."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_agenty.sandbox.server import hang_up

if TYPE_CHECKING:
    from airflow_provider_agenty.sandbox.front import RecordedRequest

_PLACEHOLDER = re.compile(r"\\\*\\\*|\\\*|\\\{[^/{}]*\\\}")
_TICK = 0.01


@dataclass(eq=False)
class Fault:
    """
    Something that goes wrong with requests of one kind.

    :param method: HTTP method, ``*`` for any.
    :param path: path below the base URL, as in ``/jobs/start``; ``*`` and ``{id}`` stand for one segment, ``**`` for
        any number of them. On the download port, the whole path.
    :param host: ``"api"`` or ``"downloads"``.
    :param agent_id: only requests for this agent or its jobs.
    :param times: how many of them; ``None``: all.
    :param after: how many of them to let pass first.
    :param drop: ``"before"``: the connection ends and the request is not acted on; ``"after"``: it is acted on, and
        the connection ends before the answer.
    :param hold: ``"before"`` or ``"after"`` it is acted on: wait until :meth:`release`.
    :param delay_before: seconds to wait before it is acted on.
    :param delay_after: seconds to wait before the answer, after it has been acted on.
    :param status: answer with this HTTP status instead.
    :param headers: headers of that answer, such as ``Retry-After``.
    :param body: body of that answer: bytes, text (HTML where it starts with ``<``) or JSON; alone, with 200.
    :param acted: whether the request is acted on before it is answered in that way.
    :param redirect: answer with a redirect (302, or ``status``) to this URL.
    :param cut: end the connection after so many bytes of the body.
    :raises ValueError: a value cannot be used, or nothing is to go wrong.
    """

    method: str
    path: str
    host: str = "api"
    agent_id: str | None = None
    times: int | None = 1
    after: int = 0
    drop: str | None = None
    hold: str | None = None
    delay_before: float = 0.0
    delay_after: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    acted: bool = False
    redirect: str | None = None
    cut: int | None = None

    # Counts of requests: of its kind, gone wrong or held, held at the moment.
    seen: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)
    holding: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.method = self.method.upper()
        self._pattern = path_pattern(self.path)
        self._released = self._removed = False
        if {self.drop, self.hold} - {None, "before", "after"}:
            raise ValueError("drop and hold say when: 'before' the request is acted on, or 'after'.")
        if self.host not in ("api", "downloads"):
            raise ValueError("host must be 'api' or 'downloads'.")
        if min(self.after, self.delay_before, self.delay_after, self.cut or 0) < 0:
            raise ValueError("after, delay_before, delay_after and cut must not be negative.")
        if not self.does_something():
            raise ValueError("The fault does nothing: say what is to go wrong.")

    def does_something(self) -> bool:
        """Return whether anything is to go wrong."""
        waits = self.hold or self.delay_before or self.delay_after
        return bool(self.drop or waits or self.answers or self.cut is not None)

    @property
    def answers(self) -> bool:
        """Whether it gives an answer of its own."""
        return self.status is not None or self.body is not None or self.redirect is not None

    def takes(self, request: RecordedRequest) -> bool:
        """Count a request if it is of its kind; return whether it is one of those that go wrong."""
        if (
            self._removed
            or self.host != request.host
            or self.method not in ("*", request.method)
            or self.agent_id not in (None, request.agent_id)
            or self._pattern.fullmatch(request.path) is None
        ):
            return False
        self.seen += 1
        return self.seen > self.after and (self.times is None or self.seen <= self.after + self.times)

    def wait(self, hits: int = 1, timeout: float = 30.0) -> None:
        """
        Wait until it has struck.

        :param hits: how often.
        :param timeout: seconds after which to give up.
        :raises TimeoutError: it has not struck that often by then.
        """
        problem = f"the fault {self.method} {self.path} has not struck {hits} times"
        wait_until(lambda: self.hits >= hits, timeout, problem)

    def release(self) -> None:
        """Let what it holds go on, and hold nothing more."""
        self._released = True

    def remove(self) -> None:
        """Switch it off; what it holds goes on."""
        self._removed = self._released = True

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return an application as one request shall find it. A derived class does something else here."""

        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            await self._pause("before", self.delay_before)
            if self.drop == "after" or self.acted:
                await app(scope, receive, _nowhere)
            if self.drop is None:
                answering = self._response() if self.answers else app
                await answering(scope, receive, self._spoiled(scope, receive, send))
                return
            if self.drop == "after":
                await self._pause("after", self.delay_after)
            self._count()
            await hang_up(scope, receive)

        return faulty

    def _spoiled(self, scope: Scope, receive: Receive, send: Send) -> Send:
        """Return a ``send`` that waits, and cuts the body."""
        left = self.cut

        async def spoiled(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                await self._pause("after", self.delay_after)
                self._count()
            if left is None or message["type"] == "http.response.start":
                await send(message)
                return
            body = bytes(message.get("body", b""))[:left]
            left -= len(body)
            await send({**message, "body": body, "more_body": True})
            if left == 0 or not message.get("more_body", False):
                await hang_up(scope, receive)

        return spoiled

    def _response(self) -> Response:
        body, kind = _encoded(self.body)
        location = {} if self.redirect is None else {"location": self.redirect}
        status = self.status or (302 if location else 200)
        return Response(body, status, {**location, **self.headers}, media_type=kind)

    async def _pause(self, moment: str, delay: float) -> None:
        # A held request goes on when it is released, even if its client has gone by then. So a request can arrive
        # later than its sender believes.
        if self.hold == moment:
            self.holding += 1
            self.hits += 1
            try:
                # Not an asyncio.Event: it is released from other threads.
                while not self._released:  # noqa: ASYNC110
                    await asyncio.sleep(_TICK)
            finally:
                self.holding -= 1
        await asyncio.sleep(delay)

    def _count(self) -> None:
        # A held request has been counted when it was held.
        if self.hold is None:
            self.hits += 1


def path_pattern(path: str) -> re.Pattern[str]:
    """Return the pattern of a path in which ``*`` and ``{id}`` stand for one segment, ``**`` for any number."""
    return re.compile(
        _PLACEHOLDER.sub(lambda found: ".*" if found[0] == r"\*\*" else "[^/]*", re.escape(path)),
    )


def wait_until(condition: Callable[[], bool], timeout: float, problem: str) -> None:
    """
    Wait for something that another thread brings about.

    :raises TimeoutError: it has not come about after so many seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"After {timeout:g} s {problem}.")
        time.sleep(_TICK)


async def _nowhere(_message: Message) -> None:
    """Send nothing."""


def _encoded(body: Any) -> tuple[bytes, str]:
    if body is None:
        return b"", "text/plain; charset=utf-8"
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        kind = "text/html" if body.lstrip().startswith("<") else "text/plain"
        return body.encode("utf-8", "backslashreplace"), f"{kind}; charset=utf-8"
    return json.dumps(body).encode(), "application/json; charset=utf-8"
