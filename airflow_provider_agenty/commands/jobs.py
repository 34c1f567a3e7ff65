"""``agents``, ``jobs``, ``job``, ``stop`` and ``land``: what the hook does, from a shell."""

from __future__ import annotations

import argparse
import os
from itertools import islice
from typing import TextIO

from airflow_provider_agenty import parameters
from airflow_provider_agenty.commands.output import write_json, write_table
from airflow_provider_agenty.exceptions import AgentyError, AgentyInputError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.paths import kind_of

JOBS_LOOKED_AT = 1000
"""The number of newest jobs among which active ones are looked for: Agenty can't be asked for these."""

_COLUMNS = {
    "JOB": "job_id",
    "AGENT": "agent_id",
    "STATUS": "status",
    "PAGES": "pages_total",
    "PROCESSED": "pages_processed",
    "FAILED": "pages_failed",
    "CREDITS": "pages_credit",
    "CREATED": "created_at",
    "COMPLETED": "completed_at",
}
_AGENT_COLUMNS = {"AGENT": "agent_id", "NAME": "name", "TYPE": "type", "PROJECT": "project_id"}


def connected_hook(conn_id: str) -> AgentyHook:
    """Return a hook that has read its connection, from wherever Airflow's own commands would."""
    # Airflow 3.1 and later leave out the database in a process that does not say this.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    hook = AgentyHook(conn_id)
    try:
        _ = hook.settings
    except AgentyError:
        raise
    except Exception as error:
        problem = type(error).__name__  # its text may hold the connection
    else:
        return hook
    raise AgentyInputError(
        f"Airflow could not read the connection {parameters.shown(conn_id)} ({problem}). Check it under Admin, "
        "Connections."
    )


def list_agents(options: argparse.Namespace, data: TextIO) -> int:
    """List agents."""
    with connected_hook(options.conn_id) as hook:
        agents = [agent.to_dict() for agent in hook.list_agents(project_id=options.project, tag=options.tag)]
    if options.json:
        write_json(data, agents)
    else:
        rows = [[*(agent[field] for field in _AGENT_COLUMNS.values()), ", ".join(agent["tags"])] for agent in agents]
        write_table(data, [*_AGENT_COLUMNS, "TAGS"], rows)
    return 0


def list_jobs(options: argparse.Namespace, data: TextIO) -> int:
    """List the newest jobs."""
    limit = parameters.whole_number("--limit", options.limit, at_least=1, from_text=True)
    with connected_hook(options.conn_id) as hook:
        found = hook.list_jobs(options.agent)
        if options.active:
            found = (job for job in islice(found, JOBS_LOOKED_AT) if not job.is_terminal)
        jobs = [job.to_dict() for job in islice(found, limit)]
    if options.json:
        write_json(data, jobs)
    else:
        write_table(data, _COLUMNS, [[job[field] for field in _COLUMNS.values()] for job in jobs])
    return 0


def show_job(options: argparse.Namespace, data: TextIO) -> int:
    """Show what Agenty says of a job, and its log."""
    with connected_hook(options.conn_id) as hook:
        values = hook.get_job(options.job_id).to_dict()
        entries = hook.iter_logs(options.job_id) if options.logs else iter(())
        if options.json:
            if options.logs:
                values["logs"] = [
                    {"timestamp": entry.moment, "level": entry.level, "message": entry.message} for entry in entries
                ]
            write_json(data, values)
            return 0
        data.writelines(f"{name}: {value}\n" for name, value in values.items() if value is not None)
        data.writelines(f"{entry}\n" for entry in entries)
    return 0


def stop_job(options: argparse.Namespace, data: TextIO) -> int:
    """Stop a job."""
    with connected_hook(options.conn_id) as hook:
        job = hook.stop_job(options.job_id)
    if options.json:
        write_json(data, job.to_dict())
    else:
        data.write(f"Job {job.job_id} is {job.status}\n")
    return 0


def land(options: argparse.Namespace, data: TextIO) -> int:
    """Land a result or a log; the end of the path says what."""
    writes = kind_of(options.path)
    collection = parameters.whole_number("--collection", options.collection, at_least=1, from_text=True)
    with connected_hook(options.conn_id) as hook:
        if writes in ("jsonl", "parquet"):
            file = hook.download_result(options.job_id, options.path, format=writes, collection=collection)
        else:
            file_type = "logs" if writes == "log" else "result"
            file = hook.download_export(options.job_id, options.path, file_type=file_type, collection=collection)
    if options.json:
        write_json(data, file.to_dict())
    else:
        data.writelines(f"{name}: {value}\n" for name, value in file.to_dict().items() if value is not None)
    return 0
