"""The book of requests: what came in, over which connection, and how the key came with it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

MOST_REQUESTS = 200_000


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


class Recorder:
    """All requests since the start or since :meth:`clear`. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: deque[RecordedRequest] = deque(maxlen=MOST_REQUESTS)
        self._connections = {"api": 0, "downloads": 0}

    @staticmethod
    def now() -> float:
        """Return the wall-clock time; requests are stamped with it whatever clock the jobs have."""
        return time.time()

    def add(self, request: RecordedRequest) -> None:
        """Note a request."""
        with self._lock:
            self._requests.append(request)

    def connection_made(self, host: str) -> None:
        """Note a new TCP connection."""
        with self._lock:
            self._connections[host] += 1

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests, oldest first."""
        with self._lock:
            return list(self._requests)

    @property
    def connections(self) -> dict[str, int]:
        """How many TCP connections were made to ``"api"`` and to ``"downloads"``."""
        with self._lock:
            return dict(self._connections)

    def clear(self) -> None:
        """Forget all requests and connections."""
        with self._lock:
            self._requests.clear()
            self._connections = dict.fromkeys(self._connections, 0)
