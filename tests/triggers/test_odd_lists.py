"""Lists without end, in another order, or that show too few jobs: nothing is lost, and nothing goes on for ever."""

from __future__ import annotations

import asyncio
import json
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger, AgentyJobTrigger
from tests.features import has
from tests.loopback import serving

SECONDS = 30


class Account:
    """An account whose list of jobs is as odd as it is told to be."""

    def __init__(self):
        self.jobs = {}
        self.paths = []
        self.skips = True
        self.in_order = lambda job_ids: sorted(job_ids, reverse=True)

    def answer(self, path, query):
        self.paths.append(path)
        if path != "/v2/jobs":
            return self.jobs[int(path.split("/")[3])]
        listed = [self.jobs[job_id] for job_id in self.in_order(self.jobs)]
        offset = int(query["offset"][0]) if self.skips else 0
        rows = listed[offset : offset + int(query["limit"][0])]
        return {"total": len(listed) if self.skips else 10**9, "result": rows}

    def singles(self):
        return sum(path != "/v2/jobs" for path in self.paths)


@pytest.fixture
def account(monkeypatch):
    account = Account()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            parts = urlsplit(self.path)
            body = json.dumps(account.answer(parts.path, parse_qs(parts.query))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as address:
        connection = {"conn_type": "agenty", "host": address, "password": "a-key"}
        monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", json.dumps(connection))
        yield account


def job(job_id, status="running", **fields):
    return {"job_id": job_id, "status": status, "agent_id": "45l0wewqzk", **fields}


async def event_of(trigger):
    return (await anext(trigger.run())).payload


def wait_for(job_ids, interval=0.1):
    async def main():
        triggers = [AgentyJobTrigger(job_id, poll_interval=interval) for job_id in job_ids]
        async with asyncio.timeout(SECONDS):
            return await asyncio.gather(*map(event_of, triggers))

    return asyncio.run(main())


@pytest.mark.parametrize(
    "in_order", [sorted, lambda ids: sorted(ids, key=lambda each: each % 7)], ids=["oldest", "any"]
)
def test_jobs_are_found_in_a_list_of_another_order(account, in_order):
    account.in_order = in_order
    account.jobs = {number: job(number, "completed") for number in range(1, 301)}

    assert {event["status"] for event in wait_for([1, 150, 300])} == {"success"}


def test_a_list_that_skips_nothing_is_not_read_for_ever(account):
    account.skips = False
    account.jobs = {number: job(number, "completed") for number in range(1, 3_001)}

    assert {event["status"] for event in wait_for(range(1, 101), interval=5)} == {"success"}
    assert len(account.paths) <= 110


def test_jobs_that_the_list_does_not_show_are_asked_for_a_few_at_a_time(account):
    account.jobs = {number: job(number, "completed") for number in range(1, 301)}
    account.in_order = lambda job_ids: []

    assert {event["status"] for event in wait_for(range(1, 301), interval=0.2)} == {"success"}
    assert account.singles() == 300


needs_event_triggers = pytest.mark.skipif(
    not has("airflow.triggers.base", "BaseEventTrigger"), reason="needs Airflow 3"
)


async def first_event(account, change):
    trigger = AgentyJobEventTrigger(poll_interval=0.1)
    events = trigger.run()
    first = asyncio.ensure_future(anext(events))
    looks = len(account.paths)
    while len(account.paths) < looks + 3:
        await asyncio.sleep(0.01)
    change()
    async with asyncio.timeout(SECONDS):
        return (await first).payload["job_id"]


@needs_event_triggers
@pytest.mark.parametrize(
    "in_order", [sorted, lambda ids: sorted(ids, key=lambda each: each % 7)], ids=["oldest", "any"]
)
def test_a_watcher_sees_a_new_job_in_a_list_of_another_order(account, in_order):
    account.in_order = in_order
    account.jobs = {number: job(number, "completed") for number in range(1, 3_001)}

    def add():
        account.jobs[3_001] = job(3_001, "completed")

    assert asyncio.run(first_event(account, add)) == 3_001


@needs_event_triggers
def test_a_watcher_does_not_read_a_list_for_ever_that_skips_nothing(account):
    account.skips = False
    account.jobs = {number: job(number) for number in range(1, 1_001)}

    def complete():
        account.jobs[500] = job(500, "completed")

    assert asyncio.run(first_event(account, complete)) == 500


@needs_event_triggers
def test_a_watcher_asks_for_a_few_jobs_at_a_time_that_are_no_longer_listed(account):
    account.jobs = {number: job(number) for number in range(1, 1_001)}
    before = []

    def forget():
        account.in_order = lambda job_ids: [2_000]
        account.jobs |= {2_000: job(2_000)}
        account.jobs[500] = job(500, "completed")
        before.append(len(account.paths))

    assert asyncio.run(first_event(account, forget)) == 500
    assert account.singles() <= 1_100
