"""What a test can do with a sandbox and see of it, whether the sandbox is in its process or in another one."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty.sandbox.recorder import RecordedRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TICK = 0.01


class FaultHandle:
    """A fault that was switched on: how often it has struck, and the way to end it."""

    def __init__(self, controls: Controls, fault_id: int) -> None:
        self._controls = controls
        self._id = fault_id

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._controls._command("fault_state", fault_id=self._id)
        return state

    @property
    def hits(self) -> int:
        """How many requests have gone wrong because of it, or are held by it."""
        return int(self._state()["hits"])

    @property
    def seen(self) -> int:
        """How many requests were of its kind, those included that it let pass."""
        return int(self._state()["seen"])

    @property
    def holding(self) -> int:
        """How many requests it holds at the moment."""
        return int(self._state()["holding"])

    def wait(self, hits: int = 1, timeout: float = 30.0) -> None:
        """
        Wait until it has struck.

        :param hits: how often.
        :param timeout: seconds after which to give up.
        :raises TimeoutError: it has not struck that often by then.
        """
        _wait(lambda: self.hits >= hits, timeout, f"the fault {self._state()} has not struck {hits} times")

    def release(self) -> None:
        """Let what it holds go on, and hold nothing more."""
        self._controls._command("release", fault_id=self._id)

    def remove(self) -> None:
        """Switch it off; what it holds goes on."""
        self._controls._command("remove_fault", fault_id=self._id)


class Controls(ABC):
    """The test-facing methods of :class:`Sandbox` and :class:`RemoteSandbox`."""

    url: str
    key: str
    forbidden_key: str
    download_url: str

    @abstractmethod
    def _command(self, name: str, /, **arguments: Any) -> Any:
        """Run one of the commands of :class:`~airflow_provider_agenty.sandbox.commands.Commands`."""

    # The connection

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection to it, as a dict that ``AIRFLOW_CONN_…`` takes as JSON."""
        return {"conn_type": "agenty", "host": self.url, "password": self.key}

    @property
    def connection_json(self) -> str:
        """The value for ``AIRFLOW_CONN_AGENTY_DEFAULT``."""
        return json.dumps(self.connection)

    # What has happened

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests to both ports, oldest first; those to ``/_sandbox`` are not among them."""
        return [RecordedRequest(**each) for each in self._command("requests")]

    @property
    def starts(self) -> int:
        """How many jobs were started over the API."""
        return len(self.started_jobs)

    @property
    def started_jobs(self) -> list[int]:
        """The ids of the jobs that were started over the API, in that order."""
        return list(self._command("started_jobs"))

    @property
    def stops(self) -> int:
        """How many stop requests were accepted, those for finished jobs included."""
        return len(self.stopped_jobs)

    @property
    def stopped_jobs(self) -> list[int]:
        """The ids of the jobs that the accepted stop requests named, in that order."""
        return list(self._command("stopped_jobs"))

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """All jobs as ``GET /jobs/{id}`` would show them now, oldest first."""
        return list(self._command("jobs"))

    def job(self, job_id: int) -> dict[str, Any]:
        """
        Return a job as ``GET /jobs/{id}`` would show it now; a script takes no step.

        :raises LookupError: there is no such job.
        """
        job: dict[str, Any] = self._command("job", job_id=job_id)
        return job

    def log(self, job_id: int) -> list[str]:
        """Return the lines of a job's log so far."""
        return list(self._command("log", job_id=job_id))

    @property
    def connections(self) -> dict[str, int]:
        """How many TCP connections were made, to ``"api"`` (control calls included) and to ``"downloads"``."""
        connections: dict[str, int] = self._command("connections")
        return connections

    def clear(self) -> None:
        """Forget requests, connections, the counts of starts and stops, and all faults. Jobs stay."""
        self._command("clear")

    def wait_for_request(self, method: str, path: str, *, count: int = 1, timeout: float = 30.0) -> None:
        """
        Wait until requests have come in.

        :param method: HTTP method, ``*`` for any.
        :param path: path below the base URL, as in :meth:`fault`.
        :param count: how many.
        :param timeout: seconds after which to give up.
        :raises TimeoutError: there were fewer by then.
        """
        _wait(
            lambda: self._command("count_requests", method=method, path=path) >= count,
            timeout,
            f"fewer than {count} requests {method} {path} have come in",
        )

    # Jobs

    def start_job(self, agent_id: str, *, is_scheduled: bool = False) -> int:
        """
        Start a job behind the client's back, as another client or Agenty's scheduler would; return its id.

        :param agent_id: the agent.
        :param is_scheduled: whether Agenty's scheduler is to have started it.
        """
        return int(self._command("start_job", agent_id=agent_id, is_scheduled=is_scheduled))

    def add_older_jobs(self, agent_id: str, count: int, *, status: str = "completed", apart: float = 60.0) -> list[int]:
        """
        Add finished jobs, each older than all there are; return their ids, newest first.

        :param agent_id: the agent.
        :param count: how many; thousands are fine.
        :param status: the state they are in.
        :param apart: seconds between one and the next.
        """
        return list(self._command("add_older_jobs", agent_id=agent_id, count=count, status=status, apart=apart))

    def set_status(self, job_id: int, status: str, **fields: Any) -> None:
        """
        Hold a job in a state from now on.

        :param job_id: the job.
        :param status: the state; any text, also one that Agenty does not know.
        :param fields: fields of the job object that are to have these values from now on, as in
            ``pages_processed=3`` or ``error="…"``.
        """
        self._command("set_status", job_id=job_id, status=status, **fields)

    def script(self, statuses: Sequence[str | Mapping[str, Any]], *, agent_id: str | None = None) -> None:
        """
        Give the next job a script: each time a client sees the job, it is one state further; the last stays.

        :param statuses: states, or mappings with ``status`` and further fields of the job object.
        :param agent_id: the agent whose next job it is for; ``None``: whichever job starts next.
        """
        self._command("script", statuses=list(statuses), agent_id=agent_id)

    def plan(
        self,
        *,
        agent_id: str | None = None,
        times: int | None = None,
        outcome: str = "completed",
        pages: int = 12,
        failed_pages: int = 0,
        error: str | None = None,
        seconds: float | None = None,
        log: Sequence[tuple[str, str]] = (),
    ) -> None:
        """
        Say how coming jobs go; the newest plan that fits a job is the one it follows.

        :param agent_id: the agent whose jobs they are; ``None``: any.
        :param times: for how many jobs; ``None``: all.
        :param outcome: ``completed``, ``aborted`` or ``failed``.
        :param pages: number of pages, unless the agent has URLs as its input.
        :param failed_pages: how many of them fail.
        :param error: the ``error`` of a job that does not complete.
        :param seconds: time from start to end; ``None``: the sandbox's own.
        :param log: further log lines, (level, message) each; a message may have several lines.
        """
        self._command(
            "plan",
            agent_id=agent_id,
            times=times,
            outcome=outcome,
            pages=pages,
            failed_pages=failed_pages,
            error=error,
            seconds=seconds,
            log=[list(entry) for entry in log],
        )

    def add_log(self, job_id: int, message: str, *, level: str = "INFO") -> None:
        """
        Write an entry into a job's log.

        :param job_id: the job.
        :param message: what it says; may have several lines.
        :param level: ``INFO``, ``WARN``, ``ERROR`` and so on.
        """
        self._command("add_log", job_id=job_id, message=message, level=level)

    # Agents and files

    def set_agent(self, agent_id: str, data: bytes | str | Sequence[Mapping[str, str]], *, collection: int = 1) -> None:
        """
        Add an agent, or replace one collection of it, for jobs that start from now on.

        :param agent_id: its id.
        :param data: the CSV as bytes or text, or its rows.
        :param collection: the collection's number.
        """
        self._command("set_agent", agent_id=agent_id, data=data, collection=collection)

    def downloads(self, **options: Any) -> None:
        """
        Change how the download port serves files.

        :param options: fields of :class:`~airflow_provider_agenty.sandbox.options.DownloadOptions`:
            ``ranges``, ``etag``, ``encoding``, ``length``, ``link_seconds``.
        """
        self._command("downloads", **options)

    def expire_links(self) -> None:
        """Let all links expire that have been given out so far."""
        self._command("expire_links")

    # Faults

    def fault(
        self,
        method: str,
        path: str,
        *,
        host: str = "api",
        job_id: int | None = None,
        agent_id: str | None = None,
        times: int | None = 1,
        after: int = 0,
        drop: str | None = None,
        reset: bool = False,
        hold: str | None = None,
        delay_before: float = 0.0,
        delay_after: float = 0.0,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        acted: bool = False,
        redirect: str | None = None,
        cut: int | None = None,
        truncate: int | None = None,
        content_length: int | None = None,
        bytes_per_second: float | None = None,
        content: bytes | None = None,
        expired: bool = False,
    ) -> FaultHandle:
        """
        Let requests go wrong. Several faults that fit a request all apply, the first one outermost.

        Which requests:

        :param method: HTTP method, ``*`` for any.
        :param path: path below the base URL, as in ``/jobs/start``; ``*`` and ``{id}`` stand for one segment,
            ``**`` for any number of them. On the download port, the whole path.
        :param host: ``"api"`` or ``"downloads"``.
        :param job_id: only those for this job.
        :param agent_id: only those for this agent or its jobs.
        :param times: how many of them; ``None``: all.
        :param after: how many of them to let pass first.

        What goes wrong:

        :param drop: ``"before"``: the connection ends and the request is not acted on; ``"after"``: it is acted
            on, and the connection ends before the answer.
        :param reset: connections end with a reset (RST) instead of an ordinary end.
        :param hold: ``"before"`` or ``"after"`` it is acted on: wait until :meth:`FaultHandle.release`.
        :param delay_before: seconds to wait before it is acted on.
        :param delay_after: seconds to wait before the answer, after it has been acted on.
        :param status: answer with this HTTP status instead.
        :param headers: headers of that answer, such as ``Retry-After``.
        :param body: body of that answer: bytes, text (HTML where it starts with ``<``) or JSON; alone, with 200.
        :param acted: whether the request is acted on before it is answered in that way.
        :param redirect: answer with a redirect (302, or ``status``) to this URL.
        :param cut: end the connection after so many bytes of the body.
        :param truncate: send only so many bytes of the body, as if that were all.
        :param content_length: announce this length, whatever the body's is.
        :param bytes_per_second: send the body at this speed.
        :param content: on the download port: serve these bytes instead of the file.
        :param expired: on the download port: refuse the link as expired.
        :returns: the fault, to wait for it, to release or remove it.
        :raises ValueError: a value cannot be used, or nothing is to go wrong.
        """
        given = dict(locals())
        del given["self"]
        given["headers"] = dict(headers or {})
        return FaultHandle(self, int(self._command("fault", **given)))

    def download_fault(self, **arguments: Any) -> FaultHandle:
        """Let downloads go wrong: :meth:`fault` for every GET on the download port."""
        return self.fault("GET", "/**", host="downloads", **arguments)


def _wait(condition: Callable[[], bool], timeout: float, problem: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"After {timeout:g} s {problem}.")
        time.sleep(_TICK)
