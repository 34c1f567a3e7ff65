"""How far apart the requests of a shared poller are."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger

AGENT = "45l0wewqzk"


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize(
    ("answer_takes", "least", "most"),
    [(0.0, 0.45, 0.5), (0.2, 0.45, 0.5), (0.6, 0.6 + 0.22, 0.6 + 0.25)],
    ids=["at once", "within the interval", "longer than it"],
)
def test_polls_are_an_interval_apart_and_there_is_always_a_pause(agenty_sandbox, answer_takes, least, most):
    job_id = agenty_sandbox.start_job(AGENT)
    if answer_takes:
        agenty_sandbox.fault("GET", f"/jobs/{job_id}", delay_before=answer_takes, times=None)

    async def main():
        waiting = asyncio.ensure_future(anext(AgentyJobTrigger(job_id, poll_interval=0.5).run()))
        await asyncio.to_thread(agenty_sandbox.wait_for_request, "GET", f"/jobs/{job_id}", count=6)
        agenty_sandbox.set_status(job_id, "completed")
        await waiting

    asyncio.run(main())
    times = [request.time for request in agenty_sandbox.requests]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    # What the machine adds is on top.
    assert all(least - 0.01 <= pause <= most + 0.4 for pause in pauses[1:]), pauses
