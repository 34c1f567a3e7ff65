"""The event loop is the other triggers' too: what ours keeps it from, and for how long."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from airflow_provider_agenty.exceptions import AgentyAuthError
from airflow_provider_agenty.waiting.job_watch import JobWatch
from airflow_provider_agenty.waiting.shared_poller import WAITERS_AT_ONCE, JobPoller

AGENT = "45l0wewqzk"


class Silent:
    def debug(self, *_):
        pass

    info = warning = log = debug


class Turns(JobWatch):
    """Notes how often another coroutine had its turn before the watch was told something."""

    had = 0

    def __init__(self, job_id):
        super().__init__(job_id, log=Silent())
        self.told_at = 0

    def take(self, answer):
        self.told_at = Turns.had
        return super().take(answer)


async def take_turns():
    while True:
        Turns.had += 1
        await asyncio.sleep(0)


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("is_refused", [False, True], ids=["seen", "refused"])
def test_others_have_their_turn_while_many_waiters_are_told(agenty_sandbox, is_refused):
    job_ids = [agenty_sandbox.start_job(AGENT) for _ in range(10 * WAITERS_AT_ONCE)]
    for job_id in job_ids:
        agenty_sandbox.set_status(job_id, "completed")
    if is_refused:
        agenty_sandbox.fault("GET", "/**", status=401, body={"message": "Unknown key"}, times=None)
    watches = [Turns(job_id) for job_id in job_ids]

    async def main():
        other = asyncio.create_task(take_turns())
        outcomes = await asyncio.gather(*(JobPoller.shared("agenty_default", 0.05).wait(watch) for watch in watches))
        other.cancel()
        return outcomes

    outcomes = asyncio.run(main())
    if is_refused:
        assert {outcome.error for outcome in outcomes} == {AgentyAuthError.__name__}
    else:
        assert {outcome.status for outcome in outcomes} == {"success"}
    assert len({watch.told_at for watch in watches}) >= 10


@pytest.mark.agenty_sandbox(manual=True)
def test_those_whose_job_is_over_are_told_first(agenty_sandbox):
    job_ids = [agenty_sandbox.start_job(AGENT) for _ in range(6)]
    over = job_ids[::2]
    for job_id in over:
        agenty_sandbox.set_status(job_id, "completed")
    told = []

    class Noting(Turns):
        def take(self, answer):
            told.append(answer.job_id)
            return super().take(answer)

    async def main():
        poller = JobPoller.shared("agenty_default", 30)
        waiting = {job_id: asyncio.create_task(poller.wait(Noting(job_id))) for job_id in job_ids}
        await asyncio.wait([waiting[job_id] for job_id in over])
        await asyncio.sleep(0)
        for task in waiting.values():
            task.cancel()
        await asyncio.gather(*waiting.values(), return_exceptions=True)

    asyncio.run(main())
    assert set(told[: len(over)]) == set(over)


def test_importing_the_triggers_imports_no_requests():
    program = (
        # Airflow 2 imports them itself.
        "import sys, airflow.triggers.base; before = set(sys.modules); import airflow_provider_agenty.triggers.agenty; "
        "print({'requests', 'urllib3'} & (sys.modules.keys() - before))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("set()"), run.stdout
