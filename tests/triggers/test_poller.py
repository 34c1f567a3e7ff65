"""The poller that triggers share: few requests, whoever waits, and nobody hurt by another."""

from __future__ import annotations

import asyncio
import contextvars
import json
import time

import pytest

from airflow_provider_agenty.exceptions import AgentyNotFoundError
from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger

AGENT = "45l0wewqzk"
INTERVAL = 0.05

pytestmark = pytest.mark.agenty_sandbox(manual=True)


async def wait_for(job_id, interval=INTERVAL, **parameters):
    return (await anext(AgentyJobTrigger(job_id, poll_interval=interval, **parameters).run())).payload


def statuses(events):
    return [event["status"] for event in events]


def paths(sandbox):
    return [request.path for request in sandbox.requests]


def rounds(sandbox, count, path="/jobs"):
    return asyncio.to_thread(
        sandbox.wait_for_request, "GET", path, count=len([p for p in paths(sandbox) if p == path]) + count
    )


def start_running(sandbox, count):
    job_ids = [sandbox.start_job(AGENT) for _ in range(count)]
    for job_id in job_ids:
        sandbox.set_status(job_id, "running")
    return job_ids


def complete(sandbox, job_ids):
    for job_id in job_ids:
        sandbox.set_status(job_id, "completed")


def run_and_leave_nothing(coroutine):
    """Run to the end; no task may be left."""

    async def run():
        try:
            return await asyncio.wait_for(coroutine, 60)
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            _, left = await asyncio.wait(others, timeout=5) if others else ((), ())
            assert not left, left

    return asyncio.run(run())


def test_one_waiter_asks_for_its_job(agenty_sandbox):
    (job_id,) = start_running(agenty_sandbox, 1)
    agenty_sandbox.clear()

    async def main():
        waiting = asyncio.create_task(wait_for(job_id))
        await rounds(agenty_sandbox, 3, f"/jobs/{job_id}")
        complete(agenty_sandbox, [job_id])
        return await waiting

    assert run_and_leave_nothing(main())["status"] == "success"
    assert set(paths(agenty_sandbox)) == {f"/jobs/{job_id}"}


@pytest.mark.parametrize("count", [2, 20, 200])
def test_the_requests_of_a_round_do_not_grow_with_the_waiters(agenty_sandbox, count):
    job_ids = start_running(agenty_sandbox, count)
    agenty_sandbox.clear()

    async def main():
        waiting = [asyncio.create_task(wait_for(job_id, interval=0.2)) for job_id in job_ids]
        await rounds(agenty_sandbox, 3)
        before = len(paths(agenty_sandbox))
        complete(agenty_sandbox, job_ids)
        await asyncio.gather(*waiting)
        return before

    requests_of_three_rounds = run_and_leave_nothing(main())
    assert set(paths(agenty_sandbox)) == {"/jobs"}
    assert requests_of_three_rounds == 3
    assert agenty_sandbox.connections["api"] == 1


def test_two_waiters_for_one_job_are_one(agenty_sandbox):
    (job_id,) = start_running(agenty_sandbox, 1)
    agenty_sandbox.clear()

    async def main():
        waiting = [asyncio.create_task(wait_for(job_id)) for _ in range(2)]
        await rounds(agenty_sandbox, 2, f"/jobs/{job_id}")
        complete(agenty_sandbox, [job_id])
        return await asyncio.gather(*waiting)

    assert statuses(run_and_leave_nothing(main())) == ["success"] * 2
    assert "/jobs" not in paths(agenty_sandbox)


@pytest.mark.parametrize(
    ("older", "waited_for"),
    [(5000, 50), (5000, 3), (5000, 500), (100, 50), (20_000, 10)],
)
def test_jobs_far_down_the_list_cost_at_most_twice_the_cheaper_way(agenty_sandbox, older, waited_for):
    listed = agenty_sandbox.add_older_jobs(AGENT, older)
    step = older // waited_for
    scattered = listed[step - 1 :: step][:waited_for]
    agenty_sandbox.clear()

    async def main():
        return await asyncio.gather(*(wait_for(job_id, interval=30) for job_id in scattered))

    outcomes = run_and_leave_nothing(main())
    assert statuses(outcomes) == ["success"] * waited_for
    pages, singles = -(-older // 1000), waited_for
    assert len(paths(agenty_sandbox)) <= 2 * min(pages, singles)


def test_a_job_that_is_gone_ends_only_its_own_wait(agenty_sandbox):
    job_ids = start_running(agenty_sandbox, 2)

    async def main():
        gone = asyncio.create_task(wait_for(999))
        others = [asyncio.create_task(wait_for(job_id)) for job_id in job_ids]
        outcome = await gone
        complete(agenty_sandbox, job_ids)
        return outcome, await asyncio.gather(*others)

    gone, others = run_and_leave_nothing(main())
    assert (gone["status"], gone["error"]) == ("poll_error", AgentyNotFoundError.__name__)
    assert statuses(others) == ["success"] * 2


def test_a_slow_answer_for_one_job_does_not_hold_up_the_others(agenty_sandbox):
    deep = agenty_sandbox.add_older_jobs(AGENT, 3000)[-1]
    job_ids = start_running(agenty_sandbox, 2)
    slow = agenty_sandbox.fault("GET", f"/jobs/{deep}", hold="before", times=None)

    async def main():
        waiting_for_deep = asyncio.create_task(wait_for(deep))
        others = [asyncio.create_task(wait_for(job_id)) for job_id in job_ids]
        await asyncio.to_thread(slow.wait)
        complete(agenty_sandbox, job_ids)
        outcomes = await asyncio.gather(*others)
        assert not waiting_for_deep.done()
        slow.remove()
        return outcomes, await waiting_for_deep

    outcomes, deep_outcome = run_and_leave_nothing(main())
    assert statuses(outcomes) == ["success"] * 2
    assert deep_outcome["status"] == "success"


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        {"body": "<html>Bad gateway</html>"},
        {"body": {"message": "odd"}},
        {"drop": "before"},
        {"body": '{"total":3,"limit":10'},
    ],
    ids=["503", "HTML", "no page", "dropped", "truncated"],
)
@pytest.mark.parametrize("count", [1, 3])
def test_bad_answers_in_between_do_no_harm(agenty_sandbox, fault, count):
    job_ids = start_running(agenty_sandbox, count)
    path = "/jobs" if count > 1 else f"/jobs/{job_ids[0]}"
    bad = agenty_sandbox.fault("GET", path, after=1, times=2, **fault)

    async def main():
        waiting = [asyncio.create_task(wait_for(job_id)) for job_id in job_ids]
        await asyncio.to_thread(bad.wait, 2)
        complete(agenty_sandbox, job_ids)
        return await asyncio.gather(*waiting)

    assert statuses(run_and_leave_nothing(main())) == ["success"] * count


def test_one_bad_row_in_the_list_does_no_harm(agenty_sandbox):
    job_ids = start_running(agenty_sandbox, 2)
    complete(agenty_sandbox, job_ids)
    rows = [{"job_id": None}, "odd", {"status": "running"}, *(agenty_sandbox.job(job_id) for job_id in job_ids)]
    page = {"total": 5, "limit": 5, "offset": 0, "returned": 5, "result": rows}
    agenty_sandbox.fault("GET", "/jobs", body=page, times=None)

    async def main():
        return await asyncio.gather(*(wait_for(job_id) for job_id in job_ids))

    assert statuses(run_and_leave_nothing(main())) == ["success"] * 2


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_key_reaches_all_at_once(agenty_sandbox, count):
    job_ids = start_running(agenty_sandbox, count)
    agenty_sandbox.fault("GET", "/**", status=401, body={"message": "Unknown key"}, times=None)

    async def main():
        return await asyncio.gather(*(wait_for(job_id) for job_id in job_ids))

    outcomes = run_and_leave_nothing(main())
    assert {(outcome["status"], outcome["error"]) for outcome in outcomes} == {("poll_error", "AgentyAuthError")}
    assert agenty_sandbox.key not in json.dumps(outcomes)


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_list_that_is_refused_ends_no_wait(agenty_sandbox, status):
    job_ids = start_running(agenty_sandbox, 3)
    refused = agenty_sandbox.fault("GET", "/jobs", status=status, times=None)

    async def main():
        waiting = [asyncio.create_task(wait_for(job_id)) for job_id in job_ids]
        await asyncio.to_thread(refused.wait)
        await rounds(agenty_sandbox, 2, f"/jobs/{job_ids[-1]}")
        complete(agenty_sandbox, job_ids)
        return await asyncio.gather(*waiting)

    assert statuses(run_and_leave_nothing(main())) == ["success"] * 3


def test_a_key_that_was_replaced_in_the_connection_is_taken_up(agenty_sandbox, monkeypatch):
    job_ids = start_running(agenty_sandbox, 2)
    good = agenty_sandbox.connection_json
    old = json.loads(good) | {"password": "replaced-meanwhile"}

    async def main():
        monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", good)
        waiting = [asyncio.create_task(wait_for(job_id)) for job_id in job_ids]
        await rounds(agenty_sandbox, 2)
        # The poller's key is refused once, as one that was revoked; the connection has the new one.
        refused = agenty_sandbox.fault("GET", "/jobs", status=401, body={"message": "Revoked"}, times=1)
        await asyncio.to_thread(refused.wait)
        complete(agenty_sandbox, job_ids)
        return await asyncio.gather(*waiting)

    assert old["password"] != agenty_sandbox.key
    assert statuses(run_and_leave_nothing(main())) == ["success"] * 2


@pytest.mark.parametrize("count", [1, 3])
def test_too_many_requests_slow_the_poller_down(agenty_sandbox, count):
    job_ids = start_running(agenty_sandbox, count)
    path = "/jobs" if count > 1 else f"/jobs/{job_ids[0]}"
    limited = agenty_sandbox.fault("GET", path, status=429, headers={"Retry-After": "2"}, after=1)

    async def main():
        waiting = [asyncio.create_task(wait_for(job_id)) for job_id in job_ids]
        await asyncio.to_thread(limited.wait)
        complete(agenty_sandbox, job_ids)
        outcomes = await asyncio.gather(*waiting)
        return outcomes, [request.time for request in agenty_sandbox.requests if request.path == path]

    outcomes, times = run_and_leave_nothing(main())
    assert statuses(outcomes) == ["success"] * count
    assert times[2] - times[1] >= 1.9


def test_too_many_requests_for_one_job_slow_down_the_rounds_of_all(agenty_sandbox):
    deep = agenty_sandbox.add_older_jobs(AGENT, 3000)[-1]
    job_ids = start_running(agenty_sandbox, 2)
    limited = agenty_sandbox.fault("GET", f"/jobs/{deep}", status=429, headers={"Retry-After": "2"})

    async def main():
        waiting = [asyncio.create_task(wait_for(job_id)) for job_id in [deep, *job_ids]]
        await asyncio.to_thread(limited.wait)
        outcome = await waiting[0]
        complete(agenty_sandbox, job_ids)
        return [outcome, *await asyncio.gather(*waiting[1:])]

    assert statuses(run_and_leave_nothing(main())) == ["success"] * 3
    refused, again = (request.time for request in agenty_sandbox.requests if request.path == f"/jobs/{deep}")
    assert again - refused >= 1.9
    assert not [request for request in agenty_sandbox.requests if refused + 0.5 < request.time < refused + 1.9]


def test_waiters_join_and_leave_at_any_moment(agenty_sandbox):
    job_ids = start_running(agenty_sandbox, 4)

    async def main():
        waiting = [asyncio.create_task(wait_for(job_id)) for job_id in job_ids[:2]]
        await rounds(agenty_sandbox, 2)
        waiting[0].cancel()
        waiting.append(asyncio.create_task(wait_for(job_ids[2])))
        await rounds(agenty_sandbox, 2)
        complete(agenty_sandbox, job_ids)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        again = await wait_for(job_ids[3])
        return outcomes, again

    (left, *stayed), again = run_and_leave_nothing(main())
    assert isinstance(left, asyncio.CancelledError)
    assert statuses(stayed) == ["success"] * 2
    assert again["status"] == "success"


def test_one_who_joins_has_an_answer_with_the_next_round(agenty_sandbox):
    job_ids = start_running(agenty_sandbox, 2)
    complete(agenty_sandbox, job_ids[1:])

    async def main():
        other = asyncio.create_task(wait_for(job_ids[0]))
        await rounds(agenty_sandbox, 2, f"/jobs/{job_ids[0]}")
        event = await wait_for(job_ids[1])
        lists = paths(agenty_sandbox).count("/jobs")
        complete(agenty_sandbox, job_ids)
        await other
        return event, lists

    event, lists = run_and_leave_nothing(main())
    assert (event["status"], lists) == ("success", 1)


def test_all_leaving_while_a_request_is_under_way_leaves_nothing(agenty_sandbox):
    job_ids = start_running(agenty_sandbox, 2)
    slow = agenty_sandbox.fault("GET", "/jobs", hold="before", times=None)

    async def main():
        waiting = [asyncio.create_task(wait_for(job_id)) for job_id in job_ids]
        await asyncio.to_thread(slow.wait)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        slow.remove()

    run_and_leave_nothing(main())


def test_another_interval_is_another_poller(agenty_sandbox):
    job_ids = start_running(agenty_sandbox, 2)

    async def main():
        waiting = [asyncio.create_task(wait_for(job_id, 0.05 + job_id / 10**9)) for job_id in job_ids]
        for job_id in job_ids:
            await rounds(agenty_sandbox, 2, f"/jobs/{job_id}")
        complete(agenty_sandbox, job_ids)
        await asyncio.gather(*waiting)

    run_and_leave_nothing(main())
    assert agenty_sandbox.connections["api"] == 2


def test_each_line_of_the_log_is_written_in_the_context_of_its_own_trigger(agenty_sandbox, monkeypatch):
    job_ids = start_running(agenty_sandbox, 2)
    complete(agenty_sandbox, job_ids)
    task = contextvars.ContextVar("task", default=None)
    written = set()

    class Log:
        def info(self, message, *arguments):
            written.add((task.get(), message % arguments))

        debug = warning = info

    monkeypatch.setattr(AgentyJobTrigger, "log", Log())

    async def trigger(job_id):
        task.set(f"task of job {job_id}")
        await wait_for(job_id)

    async def main():
        await asyncio.gather(*(asyncio.create_task(trigger(job_id)) for job_id in job_ids))

    run_and_leave_nothing(main())
    assert {(name, line.split(" is ")[0]) for name, line in written} == {
        (f"task of job {job_id}", f"Job {job_id}") for job_id in job_ids
    }


def test_the_deadline_ends_the_wait_whatever_agenty_does(agenty_sandbox):
    job_ids = start_running(agenty_sandbox, 2)
    slow = agenty_sandbox.fault("GET", "/jobs", after=1, hold="before", times=None)

    async def main():
        outcome, _ = await asyncio.wait(
            [asyncio.create_task(wait_for(job_id, deadline=time.time() + 1.5)) for job_id in job_ids]
        )
        slow.remove()
        return [each.result()["status"] for each in outcome]

    assert run_and_leave_nothing(main()) == ["timeout"] * 2


def test_a_deadline_that_passed_while_no_triggerer_ran_does_not_hide_a_job_that_completed(agenty_sandbox):
    job_ids = start_running(agenty_sandbox, 2)
    complete(agenty_sandbox, job_ids[:1])

    async def main():
        return await asyncio.gather(*(wait_for(job_id, deadline=time.time() - 60) for job_id in job_ids))

    assert statuses(run_and_leave_nothing(main())) == ["success", "timeout"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_job_that_ends_between_the_last_poll_and_the_deadline_has_ended(agenty_sandbox, count):
    job_ids = start_running(agenty_sandbox, count)
    path = "/jobs" if count > 1 else f"/jobs/{job_ids[0]}"

    async def main():
        deadline = time.time() + 2
        waiting = [asyncio.create_task(wait_for(job_id, interval=100, deadline=deadline)) for job_id in job_ids]
        await asyncio.to_thread(agenty_sandbox.wait_for_request, "GET", path)
        await asyncio.sleep(0.2)
        complete(agenty_sandbox, job_ids)
        return await asyncio.gather(*waiting)

    agenty_sandbox.clear()
    assert statuses(run_and_leave_nothing(main())) == ["success"] * count
    assert len(paths(agenty_sandbox)) == 2


def test_a_connection_that_cannot_be_read_is_no_end_of_the_wait(agenty_sandbox, mocker):
    from airflow_provider_agenty.hooks.agenty import AgentyHook

    (job_id,) = start_running(agenty_sandbox, 1)
    complete(agenty_sandbox, [job_id])
    read = AgentyHook.get_connection
    tries = []

    def away_at_first(conn_id):
        tries.append(conn_id)
        if len(tries) < 3:
            raise ConnectionError("the secrets backend is away")
        return read(conn_id)

    mocker.patch.object(AgentyHook, "get_connection", side_effect=away_at_first)

    async def main():
        return await wait_for(job_id)

    assert run_and_leave_nothing(main())["status"] == "success"


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_no_socket_is_left_open(agenty_sandbox):
    import gc

    job_ids = start_running(agenty_sandbox, 3)
    complete(agenty_sandbox, job_ids)

    async def main():
        await asyncio.gather(*(wait_for(job_id) for job_id in job_ids))

    run_and_leave_nothing(main())
    gc.collect()
