"""The event loop is the other triggers' too: what ours keeps it from, and for how long."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from airflow_provider_agenty.exceptions import AgentyAuthError
from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger

AGENT = "45l0wewqzk"


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("is_refused", [False, True], ids=["answered", "refused"])
def test_others_have_their_turn_while_many_waits_end(agenty_sandbox, is_refused):
    job_ids = [agenty_sandbox.start_job(AGENT) for _ in range(100)]
    for job_id in job_ids:
        agenty_sandbox.set_status(job_id, "completed")
    if is_refused:
        agenty_sandbox.fault("GET", "/**", status=401, body={"message": "Unknown key"}, times=None)
    turns = 0

    async def take_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def wait_for(job_id):
        event = await anext(AgentyJobTrigger(job_id, poll_interval=0.05).run())
        return event.payload["error"] or event.payload["status"], turns

    async def main():
        other = asyncio.create_task(take_turns())
        ends = await asyncio.gather(*map(wait_for, job_ids))
        other.cancel()
        return ends

    ends = asyncio.run(main())
    assert {end for end, _ in ends} == {AgentyAuthError.__name__ if is_refused else "success"}
    assert len({at for _, at in ends}) >= 10


def test_importing_the_triggers_imports_no_requests():
    program = (
        # Airflow 2 imports them itself.
        "import sys, airflow.triggers.base; before = set(sys.modules); import airflow_provider_agenty.triggers.agenty; "
        "print({'requests', 'urllib3'} & (sys.modules.keys() - before))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("set()"), run.stdout
