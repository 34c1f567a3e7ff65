"""What each answer means for the one who waits, and what is told of it."""

from __future__ import annotations

import itertools
import json
import logging
import time

import pytest

from airflow_provider_agenty.api.logs import LogEntry
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import AgentyAuthError, AgentyError, AgentyUnavailableError
from airflow_provider_agenty.waiting.job_watch import JobWatch, jittered, judge
from airflow_provider_agenty.waiting.log_copy import LogCopy
from airflow_provider_agenty.waiting.outcome import STATUSES, SUCCESS, Outcome, conclude


class Recording:
    """A log that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def log(self, level, message, *arguments):
        self.lines.append((level, message % arguments))

    def debug(self, message, *arguments):
        self.log(logging.DEBUG, message, *arguments)

    def info(self, message, *arguments):
        self.log(logging.INFO, message, *arguments)

    def warning(self, message, *arguments):
        self.log(logging.WARNING, message, *arguments)

    def at(self, level):
        return [line for line_level, line in self.lines if line_level == level]


@pytest.fixture
def log():
    return Recording()


def running(pages=0, **fields):
    return Job(**{"job_id": 7, "status": "running", "pages_total": 100, "pages_processed": pages} | fields)


def test_changes_of_state_are_told_at_once_and_tenths_of_the_pages_now_and_then(log):
    watch = JobWatch(7, log=log)
    queued = [Job(job_id=7, status="queued")] * 2
    jobs = [*queued, *(running(pages) for pages in range(0, 100, 5)), running(100, status="completing")]
    for seconds, job in zip(itertools.count(10.0, 10.0), jobs, strict=False):
        watch.take(job, now=seconds)

    told = log.at(logging.INFO)
    assert told[0] == "Job 7 is queued"
    assert told[1] == "Job 7 is running: 0/100 pages (0 %)"
    assert told[2:-1] == [f"Job 7 is running: {pages}/100 pages ({pages} %)" for pages in (15, 30, 45, 60, 75, 90)]
    assert told[-1] == "Job 7 is completing: 100/100 pages (100 %)"
    assert len(log.at(logging.DEBUG)) == 23 - len(told)


def test_a_job_that_stands_still_is_told_of_now_and_then(log):
    watch = JobWatch(7, log=log)
    for number in range(20):
        watch.take(running(3), now=100.0 * number)

    assert len(log.at(logging.INFO)) == 7


def test_a_line_of_progress_has_pages_failures_and_credits():
    job = running(37, pages_total=120, pages_failed=2, pages_credit=35)

    assert job.describe() == "running: 37/120 pages (31 %), 2 failed, 35 credits"


def test_an_unknown_state_is_warned_of_once_and_waited_on(log):
    watch = JobWatch(7, log=log)

    assert [watch.take(Job(job_id=7, status="hibernating")) for _ in range(5)] == [None] * 5
    assert len(log.at(logging.WARNING)) == 1
    assert "hibernating" in log.at(logging.WARNING)[0]


@pytest.mark.parametrize(
    ("interval", "polls"), [(10.0, 181), (1000.0, 11), (300.0, 11)], ids=["by time", "by count", "by both"]
)
def test_failed_polls_end_the_wait_only_after_half_an_hour_and_more_than_ten_of_them(log, interval, polls):
    watch = JobWatch(7, log=log)
    watch.take(AgentyUnavailableError("503"), now=0.0)
    watch.take(running(), now=1.0)
    outcomes = [watch.take(AgentyUnavailableError("503"), now=1.0 + interval * number) for number in range(polls)]

    assert outcomes[:-1] == [None] * (polls - 1)
    assert (outcomes[-1].status, outcomes[-1].error) == ("poll_error", "AgentyUnavailableError")
    assert "it is not known whether it still runs" in outcomes[-1].message


def test_what_asking_again_cannot_change_ends_the_wait_at_once(log):
    outcome = JobWatch(7, log=log).take(AgentyAuthError("401"))

    assert (outcome.status, outcome.error) == ("poll_error", "AgentyAuthError")


def test_the_deadline_counts_by_the_clock_on_the_wall(log):
    assert JobWatch(7, log=log, deadline=time.time() - 1).take(running()).status == "timeout"
    assert JobWatch(7, log=log, deadline=time.time() + 60).take(running()) is None
    assert JobWatch(7, log=log, deadline=time.time() - 1).take(running(status="completed")).status == "success"
    assert JobWatch(7, log=log, deadline=time.time() - 1).take(AgentyUnavailableError("503")).status == "timeout"


def test_intervals_are_jittered():
    intervals = {jittered(10) for _ in range(50)}

    assert all(9 <= seconds <= 10 for seconds in intervals)
    assert len(intervals) > 40


@pytest.mark.parametrize(
    "outcome",
    [
        judge(running(status="completed")),
        judge(running(status="aborted", error="Out of credits")),
        judge(running(status="stopped")),
        Outcome("timeout", 7, "late", running()),
        Outcome("timeout", 7, "late", None),
        Outcome("poll_error", 7, "lost", None, "AgentyAuthError"),
    ],
    ids=lambda outcome: outcome.status,
)
def test_an_outcome_survives_the_way_through_the_database(outcome):
    event = json.loads(json.dumps(outcome.to_dict()))

    assert Outcome.from_event(event) == outcome
    assert event["agent_id"] == (outcome.job.agent_id if outcome.job else None)


def test_every_status_but_success_raises():
    for status in STATUSES:
        outcome = Outcome(status, 7, "a message", running())
        if status == SUCCESS:
            assert conclude(outcome, log_entries=list) == running()
        else:
            with pytest.raises(AgentyError, match="a message"):
                conclude(outcome, log_entries=list)


class TestLogCopy:
    def entries(self, count):
        return [LogEntry(None, "WARN" if n == 2 else "INFO", f"line {n}", n + 1) for n in range(count)]

    def test_each_entry_is_copied_once_at_its_level(self, log):
        available = 3
        copy = LogCopy(lambda job_id, offset: iter(self.entries(available)[offset:]), 7, log)
        copy.catch_up()
        available = 5
        copy.catch_up()
        copy.catch_up()

        assert [line.rpartition(" ")[2] for _, line in log.lines] == ["0", "1", "2", "3", "4"]
        assert len(log.at(logging.WARNING)) == 1

    def test_copying_goes_on_from_an_offset(self, log):
        LogCopy(lambda job_id, offset: iter(self.entries(5)[offset:]), 7, log, offset=4).catch_up()

        assert len(log.lines) == 1

    def test_one_round_is_bounded_and_the_next_goes_on(self, log):
        copy = LogCopy(lambda job_id, offset: iter(self.entries(6000)[offset:]), 7, log)
        for expected in (2500, 5000, 6000, 6000):
            copy.catch_up()
            assert len(log.lines) == expected

    def test_a_log_that_cannot_be_read_is_tried_again_from_where_it_broke(self, log):
        def broken(job_id, offset):
            yield from self.entries(5)[offset : offset + 1]
            raise AgentyUnavailableError("503")

        copy = LogCopy(broken, 7, log)
        copy.catch_up()

        assert copy.offset == 1

    def test_what_is_left_when_the_job_is_over_is_copied_with_a_rest_in_between(self, log):
        copy = LogCopy(lambda job_id, offset: iter(self.entries(6000)[offset:]), 7, log)
        copy.follow(running())
        assert len(log.lines) == 2500
        began = time.monotonic()
        copy.follow(running(status="completed"))

        assert len(log.lines) == 6000
        assert time.monotonic() - began >= 1

    def test_what_is_left_of_a_log_that_cannot_be_read_ends_no_wait(self, log):
        def broken(job_id, offset):
            raise AgentyUnavailableError("503")

        LogCopy(broken, 7, log).follow(running(status="completed"))

        assert len(log.lines) == 1

    def test_how_far_it_came_is_told_each_time_there_is_more(self, log):
        available, kept = 3, []
        copy = LogCopy(lambda job_id, offset: iter(self.entries(available)[offset:]), 7, log, store=kept.append)
        copy.catch_up()
        copy.catch_up()
        available = 5
        copy.catch_up()

        assert kept == [3, 5]
