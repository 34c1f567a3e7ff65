"""Many connections and intervals in one triggerer: what they take ends with them, and none slows another."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger

AGENT = "45l0wewqzk"
ACCOUNTS = 20
INTERVALS = (0.2, 0.3, 0.4)
JOBS_EACH = 2
REQUESTS_AT_ONCE = 4
ESTABLISHED = "01"
"""The state of a connection in ``/proc/net/tcp``."""

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")


@pytest.fixture
def accounts(monkeypatch):
    """Start a server for each account, and make it a connection."""
    with ExitStack() as stack:
        sandboxes = [stack.enter_context(Sandbox({AGENT: []}, manual=True)) for _ in range(ACCOUNTS)]
        for number, sandbox in enumerate(sandboxes):
            monkeypatch.setenv(f"AIRFLOW_CONN_ACCOUNT_{number}", json.dumps(sandbox.connection))
        yield sandboxes


def start_jobs(sandbox):
    job_ids = [sandbox.start_job(AGENT) for _ in INTERVALS for _ in range(JOBS_EACH)]
    for job_id in job_ids:
        sandbox.set_status(job_id, "running")
    return job_ids


def connections_to(sandboxes):
    """Return how many connections of clients to these servers are open."""
    ports = {urlsplit(sandbox.url).port for sandbox in sandboxes}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(remote.split(":")[1], 16) in ports and state == ESTABLISHED for _, _, remote, state, *_ in lines)


def wait_until_closed(sandboxes):
    give_up_at = time.monotonic() + 20
    while connections_to(sandboxes):
        assert time.monotonic() < give_up_at, "connections are left open"
        time.sleep(0.05)


async def wait_for(number, job_id, interval=INTERVALS[0], **parameters):
    trigger = AgentyJobTrigger(job_id, agenty_conn_id=f"account_{number}", poll_interval=interval, **parameters)
    return (await anext(trigger.run())).payload["status"]


def wait_for_all(number, job_ids):
    return [
        asyncio.create_task(wait_for(number, job_id, INTERVALS[place % len(INTERVALS)]))
        for place, job_id in enumerate(job_ids)
    ]


async def polls(sandbox, count):
    # Twenty servers beside sixty pollers, in one process: a machine that measures coverage meanwhile takes a while.
    await asyncio.to_thread(sandbox.wait_for_request, "GET", "/jobs", count=count, timeout=90)


def complete(sandbox, job_ids):
    for job_id in job_ids:
        sandbox.set_status(job_id, "completed")


def test_accounts_that_hang_or_refuse_slow_no_other_and_all_ends_with_the_waits(accounts):
    jobs = [start_jobs(sandbox) for sandbox in accounts]
    hangs = accounts[0].fault("GET", "/jobs", hold="before", times=None)
    refuses = accounts[1].fault("GET", "/jobs", status=429, headers={"Retry-After": "300"}, times=None)

    async def main():
        waiting = [wait_for_all(number, job_ids) for number, job_ids in enumerate(jobs)]
        await asyncio.gather(*(polls(sandbox, 2 * len(INTERVALS)) for sandbox in accounts[2:]))
        await asyncio.gather(asyncio.to_thread(hangs.wait), asyncio.to_thread(refuses.wait))
        for sandbox, job_ids in zip(accounts[2:], jobs[2:], strict=True):
            complete(sandbox, job_ids)
        outcomes = await asyncio.gather(*(each for account in waiting[2:] for each in account))
        left = [each for account in waiting[:2] for each in account]
        still_waiting = [not each.done() for each in left]
        # The pollers end with their waits, while others of the same event loop go on.
        await asyncio.to_thread(wait_until_closed, accounts[2:])
        hangs.remove()
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.to_thread(wait_until_closed, accounts)
        return outcomes, still_waiting

    outcomes, still_waiting = asyncio.run(main())
    assert set(outcomes) == {"success"}
    assert all(still_waiting)
    # One connection for each poller: the server has never seen more.
    assert [sandbox.connections["api"] for sandbox in accounts[2:]] == [len(INTERVALS)] * (ACCOUNTS - 2)
    assert all(sandbox.connections["api"] <= len(INTERVALS) for sandbox in accounts[:2])


@pytest.mark.parametrize(
    ("path", "parameters"),
    [("/jobs/{id}/stop", {"max_credits": 5}), ("/jobs/{id}/logs", {"stream_logs": True})],
    ids=["stops", "logs"],
)
def test_stops_and_logs_of_an_account_that_hangs_hold_up_no_other(accounts, path, parameters):
    hanging, other = accounts[:2]
    # More than there may be threads in a pool.
    many = [hanging.start_job(AGENT) for _ in range(40)]
    (job_id,) = [other.start_job(AGENT)]
    for each in many:
        hanging.set_status(each, "running", pages_credit=9)
    hangs = hanging.fault("GET", path, hold="before", times=None)

    async def main():
        left = [asyncio.create_task(wait_for(0, each, **parameters)) for each in many]
        await asyncio.to_thread(hangs.wait, REQUESTS_AT_ONCE)
        waiting = asyncio.create_task(wait_for(1, job_id, **parameters))
        await asyncio.to_thread(other.wait_for_request, "GET", f"/jobs/{job_id}", count=3)
        other.set_status(job_id, "completed", pages_credit=9)
        status = await waiting
        is_first = not any(each.done() for each in left)
        hangs.remove()
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return status, is_first

    assert asyncio.run(main()) == ("budget" if "max_credits" in parameters else "success", True)
