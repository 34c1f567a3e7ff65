"""The hook: the connection to Agenty, and a method for each of its calls."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty import metrics, parameters
from airflow_provider_agenty.api import agents, inputs, logs, pages, result_pages, start_job
from airflow_provider_agenty.api.agents import Agent
from airflow_provider_agenty.api.inputs import AgentInput
from airflow_provider_agenty.api.logs import LogEntry
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.api.pages import JobPage
from airflow_provider_agenty.hooks.connected import ConnectedHook
from airflow_provider_agenty.waiting.job_watch import JobWatch, stop_spending, wait
from airflow_provider_agenty.waiting.outcome import conclude

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_agenty.api.start_job import ListedJobs
    from airflow_provider_agenty.landing.land import ExportedFile

LAST_LOG_ENTRIES = 50


class AgentyHook(ConnectedHook):
    """
    Talks to Agenty's Jobs API.

    The connection is read when it is first needed, in the thread that needs it. All methods raise the errors of
    :mod:`airflow_provider_agenty.exceptions`. A parameter that can't be used is an :class:`AgentyInputError`, and
    nothing is sent.

    :param agenty_conn_id: The Airflow connection, of type ``agenty``. Default ``agenty_default``.
    """

    def start_job(
        self,
        agent_id: str,
        *,
        urls: str | Iterable[str] | None = None,
        newer_than: int | None = None,
        prepare: Callable[[int], None] | None = None,
    ) -> Job:
        """
        Start a job of an agent, once, also where an answer is lost (``POST /jobs/start``).

        The newest job of the agent is remembered first. If the outcome of the start is not known, the list of jobs
        tells: a newer job that Agenty's own scheduler did not start is the one.

        :param agent_id: The agent.
        :param urls: What the agent scrapes: set as its input (``PUT /inputs/{agent_id}``) right before the start is
            sent, each time it is. The input stays set. Default: it is left as it is.
        :param newer_than: The id of the agent's newest job before the start, if :meth:`newest_job_id` told it before.
            Default: it is asked for now.
        :param prepare: Called with that id right before the start is sent, each time it is, once the input is set. If
            it raises, or the input can't be set, the start is not sent.
        :return: The job.
        :raises AgentyAmbiguousStartError: if it can't be told whether there is a job, or which one it is.
        :raises AgentyNotFoundError: if there is no such agent.
        """
        agent_id = parameters.agent_id(agent_id)
        agent_input = None if urls is None else AgentInput("manual", parameters.urls(urls))
        parameters.check_function("prepare", prepare)
        newest = None
        if newer_than is not None:
            newer_than = parameters.whole_number("newer_than", newer_than)
        else:
            newest = start_job.newest_job(self._transport, agent_id)
            newer_than = newest.job_id if newest else start_job.NO_JOB

        def prepare_start() -> None:
            if agent_input is not None:
                inputs.warn_of_unread_input(newest)
                self._set_input(agent_id, agent_input)
            if prepare is not None:
                prepare(newer_than)

        job = start_job.start_job(self._transport, agent_id, newer_than=newer_than, prepare=prepare_start)
        self.log.info("Started job %d of agent %s", job.job_id, agent_id)
        return job

    def newest_job_id(self, agent_id: str) -> int:
        """
        Return the id of the agent's newest job, 0 if it has none (``GET /jobs?agent_id=``).

        :param agent_id: The agent.
        """
        return start_job.newest_job_id(self._transport, parameters.agent_id(agent_id))

    def find_started_job(self, agent_id: str, *, newer_than: int, patience: float | timedelta = 0.0) -> Job | None:
        """
        Return the job that a start with an unknown outcome made, ``None`` if it made none (``GET /jobs?agent_id=``).

        :param agent_id: The agent.
        :param newer_than: The id of the agent's newest job before the start.
        :param patience: Seconds, or a ``timedelta``, for which the start may still be on its way. Default 0.
        """
        return start_job.look_for_started_job(
            self._transport,
            parameters.agent_id(agent_id),
            newer_than=parameters.whole_number("newer_than", newer_than),
            patience=parameters.seconds("patience", patience, may_be_zero=True),
        )

    def recent_jobs(self, agent_id: str, *, since: datetime | None = None) -> ListedJobs:
        """
        Return the newest jobs of an agent, whoever started them (``GET /jobs?agent_id=``).

        :param agent_id: The agent.
        :param since: As far back as this moment, aware, by Airflow's clock. Default: 1,000 jobs.
        :return: The jobs, and what Agenty's clock says.
        :raises AgentyAmbiguousStartError: if the list of jobs does not tell.
        """
        since = None if since is None else parameters.aware_datetime("since", since)
        return start_job.recent_jobs(self._transport, parameters.agent_id(agent_id), since=since)

    def get_job(self, job_id: int | str) -> Job:
        """
        Return a job as it is now (``GET /jobs/{job_id}``).

        :param job_id: The job.
        :raises AgentyNotFoundError: if there is no such job.
        """
        job_id = parameters.job_id(job_id)
        return self._transport.read(f"/jobs/{job_id}").job(job_id)

    def stop_job(self, job_id: int | str) -> Job:
        """
        Ask Agenty to stop a job (``GET /jobs/{job_id}/stop``). On a job that is over it changes nothing.

        The request is repeated only where it certainly did not arrive.

        :param job_id: The job.
        :return: The job as Agenty answered: often still ``stopping``.
        :raises AgentyNotFoundError: if there is no such job.
        """
        job_id = parameters.job_id(job_id)
        # It is a GET that changes something, and it is documented to answer HTTP 400 with the job.
        job = self._transport.send("GET", f"/jobs/{job_id}/stop", refusal_may_hold_job=True).job(job_id)
        if job.is_stopped or not job.is_terminal:
            metrics.count(metrics.JOBS_STOPPED, agent_id=job.agent_id, conn_id=self.agenty_conn_id)
        return job

    def get_input(self, agent_id: str) -> AgentInput:
        """
        Return what an agent is to scrape (``GET /inputs/{agent_id}``).

        :param agent_id: The agent.
        :raises AgentyNotFoundError: if there is no such agent.
        """
        return AgentInput.from_answer(self._transport.read(f"/inputs/{parameters.agent_id(agent_id)}"))

    def set_input(self, agent_id: str, new: AgentInput | Mapping[str, Any] | str | Iterable[str]) -> None:
        """
        Set what an agent scrapes from its next job on, whoever starts it (``PUT /inputs/{agent_id}``).

        The request is repeated like a read: set twice is the same as set once.

        :param agent_id: The agent.
        :param new: The URLs, in a list or in a text with one on each line; or an input of any type, as
            :meth:`get_input` returns it or as a mapping with the fields of Agenty's Inputs API.
        :raises AgentyNotFoundError: if there is no such agent.
        """
        self._set_input(parameters.agent_id(agent_id), parameters.agent_input(new))

    def _set_input(self, agent_id: str, new: AgentInput) -> None:
        inputs.set_input(self._transport, agent_id, new)
        what = f"{len(new.data)} URL{'' if len(new.data) == 1 else 's'}" if new.lists_urls else f"{new.type} {new.id}"
        self.log.info("Set the input of agent %s: %s", agent_id, what)

    def get_agent(self, agent_id: str) -> Agent:
        """
        Return an agent (``GET /agents/{agent_id}``).

        :param agent_id: The agent.
        :raises AgentyNotFoundError: if there is no such agent.
        """
        return agents.get_agent(self._transport, parameters.agent_id(agent_id))

    def find_agent(self, name: str) -> Agent:
        """
        Return the agent of a name, as the list of agents has it (``GET /agents``).

        :param name: The whole name; upper and lower case count.
        :raises AgentyInputError: if none or several have it; it lists agents with their ids.
        """
        name = parameters.text("name", name)
        return agents.find_agent(self._transport, name, shown=parameters.shown(name))

    def list_agents(
        self,
        *,
        project_id: int | str | None = None,
        tag: str | None = None,
        type: str | None = None,  # noqa: A002 - what Agenty calls it
    ) -> Iterator[Agent]:
        """
        Yield agents, a page at a time as they are asked for, none of them twice (``GET /agents``).

        Where the list leaves out what is asked for, each agent is asked for too (``GET /agents/{agent_id}``).

        :param project_id: Only the agents of this project (``GET /projects/{project_id}``). Default: all.
        :param tag: Only agents with this tag. Default: all.
        :param type: Only agents of this type, such as ``scraping``. Default: all.
        :raises AgentyNotFoundError: if there is no such project.
        """
        return agents.iter_agents(
            self._transport,
            project_id=parameters.optional(parameters.project_id, project_id),
            tag=None if tag is None else parameters.text("tag", tag),
            agent_type=None if type is None else parameters.text("type", type),
        )

    def list_jobs(self, agent_id: str | None = None, *, since: datetime | None = None) -> Iterator[Job]:
        """
        Yield jobs, newest first, a page at a time as they are asked for, none of them twice (``GET /jobs``).

        :param agent_id: The agent. Default: all agents of the account.
        :param since: Only jobs made at this moment, aware, or later, in whole seconds. No further page is asked for
            once one was made before; where jobs do not come newest first, the list is read to its end. Default: all.
        """
        return pages.iter_jobs(
            self._transport,
            agent_id=parameters.optional(parameters.agent_id, agent_id),
            since=None if since is None else parameters.aware_datetime("since", since),
        )

    def list_job_page(self, *, limit: int, offset: int = 0) -> JobPage:
        """
        Return one page of the list of all jobs (``GET /jobs``). A row that is no job is passed over.

        :param limit: How many jobs to ask for, at most 1000.
        :param offset: How many to skip. Default 0.
        """
        limit, offset = parameters.whole_number("limit", limit, at_least=1), parameters.offset(offset)
        return pages.read_job_page(self._transport, agent_id=None, limit=limit, offset=offset, skips_odd_rows=True)

    def iter_result(self, job_id: int | str, *, collection: int = 1, modified: bool = True) -> Iterator[dict[str, Any]]:
        """
        Yield the rows of a job's result (``GET /jobs/{job_id}/result``), the next pages already on their way.

        Memory holds a few pages, whatever the size of the result.

        :param job_id: The job.
        :param collection: The collection of the agent, counted from 1. Default 1.
        :param modified: Whether the result after post-processing is meant, where there is one. Default true.
        :return: Rows as Agenty gives them: keys are the agent's field names, and may differ from row to row. A number
            that fits neither into 64 bits nor into a float is its text, and so are NaN and Infinity.
        :raises AgentyError: if Agenty gives fewer or more rows than it says there are, or says that of another number.
        """
        return result_pages.iter_result(
            self._transport,
            parameters.job_id(job_id),
            collection=parameters.collection(collection),
            modified=parameters.boolean("modified", modified),
        )

    def count_result(self, job_id: int | str, *, collection: int = 1, modified: bool = True) -> int:
        """Return how many rows :meth:`iter_result` yields (``GET /jobs/{job_id}/result?limit=1``)."""
        return result_pages.read_result_total(
            self._transport,
            parameters.job_id(job_id),
            collection=parameters.collection(collection),
            modified=parameters.boolean("modified", modified),
        )

    def iter_logs(self, job_id: int | str, *, offset: int = 0) -> Iterator[LogEntry]:
        """
        Yield the entries of a job's log, oldest first (``GET /jobs/{job_id}/logs``).

        :param job_id: The job.
        :param offset: How many lines to skip. Default 0; :attr:`LogEntry.next_offset` is where to go on.
        """
        return logs.iter_logs(self._transport, parameters.job_id(job_id), offset=parameters.offset(offset))

    def last_log_entries(self, job_id: int | str, *, count: int = LAST_LOG_ENTRIES) -> list[LogEntry]:
        """
        Return the last entries of a job's log, oldest first; none if it can't be read (``GET /jobs/{job_id}/logs``).

        It tells why a job failed, and must not fail itself. After a minute it returns what it has read so far.

        :param job_id: The job.
        :param count: How many. Default 50.
        """
        job_id, count = parameters.job_id(job_id), parameters.whole_number("count", count)
        return logs.last_entries(self._transport, job_id, count=count)

    def wait_for_job(
        self,
        job_id: int | str,
        *,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta | None = None,
        max_failed_ratio: float | None = None,
        max_credits: float | None = None,
        stall_timeout: float | timedelta | None = None,
        queue_timeout: float | timedelta | None = None,
    ) -> Job:
        """
        Wait until a job is over (``GET /jobs/{job_id}``, again and again). Only ``max_credits`` stops it.

        :param job_id: The job.
        :param poll_interval: Seconds between two polls, or a ``timedelta``. Default 10.
        :param timeout: Seconds to wait at most, or a ``timedelta``. Default: without end.
        :param max_failed_ratio: The share of its pages, 0 to 1, above which failed pages make a completed job count as
            failed. Default: any share will do.
        :param max_credits: The page credits above which the job is stopped (``GET /jobs/{job_id}/stop``). Default: any.
        :param stall_timeout: Seconds, or a ``timedelta``, for which the job's state, pages and credits may stay the
            same. Default: for ever.
        :param queue_timeout: Seconds, or a ``timedelta``, for which the job may wait for a worker of Agenty. Default:
            for ever.
        :return: The completed job.
        :raises AgentyBudgetError: if it cost more than ``max_credits``.
        :raises AgentyJobFailedError: if it was aborted, or too many of its pages failed.
        :raises AgentyJobStoppedError: if somebody stopped it.
        :raises AgentyStalledError: if it stood still or waited for a worker for too long.
        :raises AgentyTimeoutError: if it is not done in time.
        """
        job_id = parameters.job_id(job_id)
        poll_interval = parameters.seconds("poll_interval", poll_interval)
        if timeout is not None:
            timeout = parameters.seconds("timeout", timeout, may_be_zero=True)
        watch = JobWatch(
            job_id,
            deadline=None if timeout is None else time.time() + timeout,
            max_failed_ratio=parameters.share("max_failed_ratio", max_failed_ratio),
            max_credits=parameters.page_credits("max_credits", max_credits),
            stall_timeout=parameters.optional_seconds("stall_timeout", stall_timeout),
            queue_timeout=parameters.optional_seconds("queue_timeout", queue_timeout),
            poll_interval=poll_interval,
            log=self.log,
        )
        outcome = wait(lambda: self.get_job(job_id), watch, poll_interval=poll_interval)
        outcome = stop_spending(self, outcome, self.log)
        return conclude(outcome, log_entries=lambda: self.last_log_entries(job_id))

    def get_export_link(
        self,
        job_id: int | str,
        *,
        file_type: str = "result",
        collection: int = 1,
        modified: bool = True,
        filename: str | None = None,
    ) -> str:
        """
        Return a link to a file of a job (``GET /jobs/{job_id}/export``).

        The link is a secret, and it expires: get it right before it is used, and show it to nobody. Airflow's logs hide
        its signature. ``job_id``, ``collection`` and ``modified`` are those of :meth:`iter_result`.

        :param file_type: ``result`` (default) or ``logs``.
        :param filename: The file's name in the link. Default: Agenty's own.
        :return: The URL, on another host than the API; it takes no API key.
        """
        from airflow_provider_agenty.landing.links import link_in

        job_id = parameters.job_id(job_id)
        query = {
            "type": parameters.choice("file_type", file_type, parameters.FILE_TYPES),
            "collection": parameters.collection(collection),
            "modified": int(parameters.boolean("modified", modified)),
        }
        if filename is not None:
            query["filename"] = parameters.filename(filename)
        return link_in(self._transport.read(f"/jobs/{job_id}/export", query))

    def download_export(
        self,
        job_id: int | str,
        path: str | os.PathLike[str] | ObjectStoragePath,
        *,
        file_type: str = "result",
        collection: int = 1,
        modified: bool = True,
        filename: str | None = None,
        storage_conn_id: str | None = None,
        overwrite: bool = True,
        verify_rows: bool = True,
        check: Callable[[ExportedFile], None] | None = None,
        spool_folder: str | os.PathLike[str] | None = None,
        job_seen: Callable[[Job], None] | None = None,
        required_fields: Collection[str] | Mapping[str, float] | None = None,
        max_row_drop: float | None = None,
    ) -> ExportedFile:
        """
        Land a file of a job, whole or not at all.

        It is streamed to a temporary file, verified (its length, that it is no error page, its rows against what
        Agenty says the result has) and published in one step. Calls ``GET /jobs/{job_id}``, ``…/result?limit=1``,
        ``…/export`` and the link. Parameters that are not named here are those of :meth:`get_export_link`.

        :param job_id: The job. A result is landed from a completed job only, logs from any that is over.
        :param path: A local path, ``file://…``, or a URL that Airflow's ``ObjectStoragePath`` knows, as text or as such
            an object. Below a folder (a path that ends in ``/``) the file is named
            ``{agent_id}-{job_id}-{collection}.csv``. A path that ends in ``.gz`` is compressed. A suffix that says
            something else than what is written is refused. Folders above it are made.
        :param storage_conn_id: The Airflow connection of the object store. Default: that in the URL, if any, else the
            worker's own credentials.
        :param overwrite: Whether a file that exists is replaced. Default true.
        :param verify_rows: Whether the rows are compared with what Agenty says the result has. Default true.
        :param check: Called with the verified file before it is published; if it raises, nothing is published.
        :param spool_folder: Where the file is kept on this machine until it is verified and in an object store.
            Default: the system's folder for temporary files.
        :param job_seen: Called with the job before anything is downloaded.
        :param required_fields: Names of columns, each filled in every row; or a mapping of names to the least share of
            rows, 0 to 1, in which they are filled. Default: none.
        :param max_row_drop: The largest share of rows, 0 to 1, that may be missing beside the result of the agent's
            previous completed job. Default: any.
        :return: What was landed.
        :raises AgentyExportError: if the job is not over, or the file can't be landed whole. What was at the path
            before is still there.
        :raises AgentyQualityError: if the result is not as ``required_fields`` or ``max_row_drop`` asks.
        """
        from airflow_provider_agenty.landing.land import LandingOptions, land_export

        file_type = parameters.choice("file_type", file_type, parameters.FILE_TYPES)
        options = LandingOptions.checked(
            job_id=job_id,
            path=path,
            writes="log" if file_type == "logs" else "csv",
            collection=collection,
            modified=modified,
            storage_conn_id=storage_conn_id,
            overwrite=overwrite,
            verify_rows=verify_rows,
            check=check,
            spool_folder=spool_folder,
            job_seen=job_seen,
            required_fields=required_fields,
            max_row_drop=max_row_drop,
        )
        link = partial(self.get_export_link, file_type=file_type, filename=parameters.filename(filename))

        def get_link() -> str:
            return link(options.job_id, collection=options.collection, modified=options.modified)

        return land_export(self, self._transport, options, get_link=get_link)

    def download_result(
        self,
        job_id: int | str,
        path: str | os.PathLike[str] | ObjectStoragePath,
        *,
        format: str = "jsonl",  # noqa: A002 - what users call it
        column_types: str = "infer",
        collection: int = 1,
        modified: bool = True,
        storage_conn_id: str | None = None,
        overwrite: bool = True,
        verify_rows: bool = True,
        check: Callable[[ExportedFile], None] | None = None,
        spool_folder: str | os.PathLike[str] | None = None,
        job_seen: Callable[[Job], None] | None = None,
        required_fields: Collection[str] | Mapping[str, float] | None = None,
        max_row_drop: float | None = None,
    ) -> ExportedFile:
        """
        Land the rows of a job's result as JSON Lines, CSV or Parquet, whole or not at all.

        The result is read page by page and written as it comes; memory holds a few pages. CSV and Parquet keep the rows
        in ``spool_folder`` first, because a later row may have other columns. Calls ``GET /jobs/{job_id}`` and
        ``…/result``. Parameters that are not named here are those of :meth:`download_export`.

        :param job_id: The job, which has to be completed.
        :param path: Where to. A path that ends in ``.gz`` is compressed; Parquet, which is compressed inside, can't
            have one.
        :param format: ``jsonl`` (default): each row on a line, with its values as they came. ``csv``: with the columns
            of all rows, in the order in which they first appear. ``parquet``: the same columns, with types where all of
            a column's values agree; needs the extra ``parquet``.
        :param column_types: ``infer`` (default): the values of this result decide. ``text``: each value but null is
            text, so that no later result has other types; numbers keep their text.
        :return: What was landed.
        :raises AgentyExportError: as :meth:`download_export`, and if a page of the result is missing.
        """
        from airflow_provider_agenty.landing.formats import check_format
        from airflow_provider_agenty.landing.land import LandingOptions, land_result

        format = parameters.choice("format", format, parameters.FORMATS)  # noqa: A001 - what users call it
        column_types = parameters.choice("column_types", column_types, parameters.COLUMN_TYPES)
        options = LandingOptions.checked(
            job_id=job_id,
            path=path,
            writes=format,
            collection=collection,
            modified=modified,
            storage_conn_id=storage_conn_id,
            overwrite=overwrite,
            verify_rows=verify_rows,
            check=check,
            spool_folder=spool_folder,
            job_seen=job_seen,
            required_fields=required_fields,
            max_row_drop=max_row_drop,
        )
        check_format(format)
        return land_result(self, self._transport, options, column_types=column_types)
