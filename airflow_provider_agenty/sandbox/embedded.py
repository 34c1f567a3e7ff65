"""The sandbox in this process."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from airflow_provider_agenty.sandbox.account import Account
from airflow_provider_agenty.sandbox.agent import Agent, Plan, load_agents
from airflow_provider_agenty.sandbox.api import JobsApi, to_json
from airflow_provider_agenty.sandbox.content import content_from
from airflow_provider_agenty.sandbox.downloads import Downloads
from airflow_provider_agenty.sandbox.faults import Fault, path_pattern, wait_until
from airflow_provider_agenty.sandbox.front import API_PREFIX, FrontDoor, RecordedRequest
from airflow_provider_agenty.sandbox.job import Job
from airflow_provider_agenty.sandbox.server import LOOPBACK, ServerThread, configure

FaultKind = TypeVar("FaultKind", bound=Fault)


class Sandbox:
    """
    An Agenty of one's own, on loopback, served from a thread of this process.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.

    :param agents: folder of CSV files, or mapping from agent id to CSV bytes, rows, a
        :class:`~airflow_provider_agenty.sandbox.content.Content`, an
        :class:`~airflow_provider_agenty.sandbox.agent.Agent`, or a mapping from collection number to one of
        the first three; ``None``: the sample agents.
    :param seconds: how long a job takes, from start to end, where it need not wait for a slot; default 5.
    :param parallel_jobs: how many jobs run at once in the account; the others are ``queued``. ``None``: no limit.
    :param page_cap: most rows or jobs on one page, whatever ``limit`` asks for; default 1000.
    :param manual: new jobs stay ``submitted`` until :meth:`set_status`.
    :param key: the API key; ``None``: a new one, not like any other.
    :param stop_status: HTTP status of an answered stop; Agenty documents 400.
    :param link_seconds: how long a download link can be used; default 300.
    :param port: port of the API; 0: a free one.
    :param download_port: port of the downloads; 0: a free one.
    :param certfile: certificate for TLS on the API port.
    :param keyfile: its key.
    :param clock: gives the time in seconds since the epoch, for jobs and links.
    :raises ValueError: the agents or an option cannot be used.
    """

    def __init__(
        self,
        agents: object = None,
        *,
        seconds: float = 5.0,
        parallel_jobs: int | None = None,
        page_cap: int = 1000,
        manual: bool = False,
        key: str | None = None,
        stop_status: int = 400,
        link_seconds: float = 300.0,
        port: int = 0,
        download_port: int = 0,
        certfile: str | None = None,
        keyfile: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if seconds < 0:
            raise ValueError("seconds must not be negative.")
        if parallel_jobs is not None and parallel_jobs < 1:
            raise ValueError("parallel_jobs must be at least 1, or None for no limit.")
        if page_cap < 1:
            raise ValueError("page_cap must be at least 1.")
        for number in (port, download_port):
            if not 0 <= number <= 65535:
                raise ValueError(f"{number} is not a port: 0 to 65535.")
        for file in (certfile, keyfile):
            if file is not None and not Path(file).is_file():
                raise ValueError(f"There is no file {file}.")
        self.key = key or secrets.token_hex(16)
        self._certfile = certfile
        self._account = Account(load_agents(agents), seconds, parallel_jobs, clock, manual=manual)
        self._downloads = Downloads(self._account)
        self.downloads(link_seconds=link_seconds)
        self._front = FrontDoor(self.key, self._account)
        api = self._front.before("api", JobsApi(self._account, self._downloads, page_cap, stop_status))
        downloads = self._front.before("downloads", self._downloads)
        self._ports = (configure(api, certfile, keyfile), port), (configure(downloads), download_port)
        self._server: ServerThread | None = None

    def start(self) -> Self:
        """
        Start serving, and return itself once it can be connected to.

        :raises OSError: a port is taken.
        :raises RuntimeError: it has been started before.
        """
        if self._server is not None:
            raise RuntimeError("A sandbox can be started only once; make a new one.")
        self._server = ServerThread(*self._ports)
        scheme = "http" if self._certfile is None else "https"
        self.url = f"{scheme}://{LOOPBACK}:{self._server.numbers[0]}{API_PREFIX}"
        self.download_url = self._downloads.base_url = f"http://{LOOPBACK}:{self._server.numbers[1]}"
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop serving: open connections end at once."""
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The connection

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection to it, as a dict that ``AIRFLOW_CONN_…`` takes as JSON."""
        connection = {"conn_type": "agenty", "host": self.url, "password": self.key}
        return connection if self._certfile is None else {**connection, "extra": {"verify": self._certfile}}

    @property
    def connection_json(self) -> str:
        """The value for ``AIRFLOW_CONN_AGENTY_DEFAULT``."""
        return json.dumps(self.connection)

    # What has happened

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests to both ports, oldest first."""
        with self._account.lock:
            return list(self._front.requests)

    @property
    def starts(self) -> int:
        """The number of jobs that were started over the API."""
        return len(self.started_jobs)

    @property
    def started_jobs(self) -> list[int]:
        """The ids of the jobs that were started over the API, in that order."""
        return list(self._account.started_by_clients)

    @property
    def stops(self) -> int:
        """The number of stop requests that were accepted, those for finished jobs included."""
        return len(self.stopped_jobs)

    @property
    def stopped_jobs(self) -> list[int]:
        """The ids of the jobs that the accepted stop requests named, in that order."""
        return list(self._account.stop_requests)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """All jobs as ``GET /jobs/{id}`` would show them now, oldest first."""
        now = self._account.now()
        return [job.shown(now) for job in reversed(self._account.jobs())]

    def job(self, job_id: int) -> dict[str, Any]:
        """
        Return a job as ``GET /jobs/{id}`` would show it now; a script takes no step.

        :raises LookupError: there is no such job.
        """
        return self._job(job_id).shown(self._account.now())

    def log(self, job_id: int) -> list[str]:
        """Return the lines of a job's log so far."""
        return self._job(job_id).log(self._account.now())

    @property
    def connections(self) -> dict[str, int]:
        """Over how many TCP connections the requests came, to ``"api"`` and to ``"downloads"``."""
        used = {(each.host, each.client_port) for each in self.requests}
        return {name: sum(host == name for host, _ in used) for name in ("api", "downloads")}

    def clear(self) -> None:
        """Forget requests, connections, the counts of starts and stops, and all faults. Jobs stay."""
        with self._account.lock:
            for fault in self._front.faults:
                fault.remove()
            for book in (self._front.faults, self._front.requests, self._account.started_by_clients):
                book.clear()
            self._account.stop_requests.clear()

    def wait_for_request(self, method: str, path: str, *, count: int = 1, timeout: float = 30.0) -> None:
        """
        Wait until requests have come in.

        :param method: HTTP method, ``*`` for any.
        :param path: path below the base URL, as in :meth:`fault`.
        :param count: how many.
        :param timeout: seconds after which to give up.
        :raises TimeoutError: there were fewer by then.
        """
        pattern = path_pattern(path)

        def come() -> bool:
            kind = [each for each in self.requests if each.host == "api" and method in ("*", each.method)]
            return sum(pattern.fullmatch(each.path) is not None for each in kind) >= count

        wait_until(come, timeout, f"fewer than {count} requests {method} {path} have come in")

    # Jobs

    def start_job(self, agent_id: str, *, is_scheduled: bool = False) -> int:
        """
        Start a job behind the client's back, as another client or Agenty's scheduler would; return its id.

        :param agent_id: the agent.
        :param is_scheduled: whether Agenty's scheduler is to have started it.
        """
        self._need_agent(agent_id)
        return self._account.start(agent_id, is_scheduled=is_scheduled).job_id

    def add_older_jobs(self, agent_id: str, count: int, *, status: str = "completed", apart: float = 60.0) -> list[int]:
        """
        Add finished jobs, each older than all there are; return their ids, newest first.

        :param agent_id: the agent.
        :param count: how many; thousands are fine.
        :param status: the state they are in.
        :param apart: seconds between one and the next.
        """
        self._need_agent(agent_id)
        return [job.job_id for job in self._account.add_older(agent_id, count, status=status, apart=apart)]

    def set_status(self, job_id: int, status: str, **fields: Any) -> None:
        """
        Hold a job in a state from now on.

        :param job_id: the job.
        :param status: the state; any text, also one that Agenty does not know.
        :param fields: fields of the job object that are to have these values from now on, as in
            ``pages_processed=3`` or ``error="…"``.
        """
        # Each list of jobs would fail with a value that JSON cannot say.
        to_json(fields)
        self._account.put(self._job(job_id), status, fields)

    def script(self, statuses: Sequence[str | Mapping[str, Any]], *, agent_id: str | None = None) -> None:
        """
        Give the next job a script: each time a client sees the job, it is one state further; the last stays.

        :param statuses: states, or mappings with ``status`` and further fields of the job object.
        :param agent_id: the agent whose next job it is for; ``None``: whichever job starts next.
        """
        steps = [{"status": each} if isinstance(each, str) else dict(each) for each in statuses]
        if not steps or not all(isinstance(step.get("status"), str) for step in steps):
            raise ValueError("A script is a list of states, or of objects with a status, and not empty.")
        to_json(steps)
        with self._account.lock:
            self._account.scripts.append((agent_id, True, steps))

    def plan(self, *, agent_id: str | None = None, times: int | None = None, **how: Any) -> None:
        """
        Say how coming jobs go. A job follows the newest plan that fits it.

        :param agent_id: the agent whose jobs they are; ``None``: any.
        :param times: for how many jobs; ``None``: all.
        :param how: ``outcome``, ``pages``, ``failed_pages``, ``error``, ``seconds`` and ``log``: see :class:`Plan`.
        """
        plan = Plan(**how)
        with self._account.lock:
            self._account.plans[:0] = [(agent_id, times is not None, plan)] * (1 if times is None else times)

    def add_log(self, job_id: int, message: str, *, level: str = "INFO") -> None:
        """
        Write an entry into a job's log.

        :param job_id: the job.
        :param message: what it says; may have several lines.
        :param level: ``INFO``, ``WARN``, ``ERROR`` and so on.
        """
        with self._account.lock:
            self._job(job_id).extra_log.append((self._account.now(), level, message))

    # Agents and files

    def set_agent(
        self,
        agent_id: str,
        data: bytes | str | Sequence[Mapping[str, str]] | None = None,
        *,
        collection: int = 1,
        **about: Any,
    ) -> None:
        """
        Add an agent, or change one: a collection of it for jobs that start from now on, and what is said of it.

        :param agent_id: its id.
        :param data: the CSV as bytes or text, or its rows; ``None``: as it is.
        :param collection: the collection's number.
        :param about: ``name``, ``type``, ``project_id`` and ``tags``: see :class:`Agent`. A project is there as long
            as an agent is in it.
        """
        with self._account.lock:
            agent = replace(self._account.agents.get(agent_id) or Agent(agent_id, {}), **about)
            if data is not None:
                agent = replace(agent, collections={**agent.collections, collection: content_from(data)})
            self._account.agents[agent_id] = agent

    def downloads(self, **options: Any) -> None:
        """
        Change how the download port serves files.

        :param options: ``ranges``: whether ``Range`` is obeyed, default true. ``etag``: whether files have an ``ETag``,
            default true. ``gzip``: whether clients that accept gzip get it, without length and ranges, default false.
            ``link_seconds``: for how many seconds a link can be used, default 300.
        """
        self._downloads.options = replace(self._downloads.options, **options)

    def expire_links(self) -> None:
        """Let all links expire that have been given out so far."""
        self._downloads.expire_links()

    # Faults

    def fault(self, method: str, path: str, **what: Any) -> Fault:
        """
        Let requests go wrong. Several faults that fit a request all apply, the first one outermost.

        :param method: HTTP method, ``*`` for any.
        :param path: path below the base URL, as in ``/jobs/start``; ``*`` and ``{id}`` stand for one segment,
            ``**`` for any number of them.
        :param what: which of these requests, and what goes wrong: see :class:`Fault`.
        :returns: the fault, to wait for it, to release or remove it.
        """
        return self.add_fault(Fault(method, path, **what))

    def download_fault(self, **what: Any) -> Fault:
        """Let downloads go wrong: :meth:`fault` for every GET on the download port."""
        return self.fault("GET", "/**", host="downloads", **what)

    def add_fault(self, fault: FaultKind) -> FaultKind:
        """Switch on a fault, which may be of a class derived from :class:`Fault`; return it."""
        with self._account.lock:
            self._front.faults.append(fault)
        return fault

    @property
    def agent_ids(self) -> list[str]:
        """The ids of its agents."""
        return sorted(self._account.agents)

    def _job(self, job_id: int) -> Job:
        job = self._account.job(job_id)
        if job is None:
            raise LookupError(f"The sandbox has no job {job_id}.")
        return job

    def _need_agent(self, agent_id: str) -> None:
        if agent_id not in self._account.agents:
            raise LookupError(f"The sandbox has no agent {agent_id}.")
