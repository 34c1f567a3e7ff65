"""Stopping a job."""

from __future__ import annotations

from http import HTTPStatus

from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.api.request import Transport, read_refusal


def stop_job(transport: Transport, job_id: int) -> Job:
    """
    Ask Agenty to stop a job (``GET /jobs/{job_id}/stop``, documented to answer HTTP 400 with the job).

    It is a GET that changes something, so it is repeated only where it certainly did not arrive.

    :param transport: Where to ask.
    :param job_id: The job.
    :return: The job as Agenty answered.
    """
    answer = transport.send("GET", f"/jobs/{job_id}/stop", refusal_may_answer=True)
    if answer.status >= HTTPStatus.BAD_REQUEST and not answer.holds_job:
        raise read_refusal(answer)
    return answer.job(job_id)
