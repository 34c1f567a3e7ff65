"""Rows of a result: in how many requests they come, and what is not taken for a result."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest

from airflow_provider_agenty.api import result_pages
from airflow_provider_agenty.exceptions import AgentyError, AgentyExportError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox
from tests.over_the_wire import page, requested
from tests.result_server import ResultServer, page_of

NUMBERS = "numbers"


def rows(count: int) -> list[dict[str, str]]:
    return [{"n": str(number)} for number in range(count)]


def numbers_job(sandbox: Sandbox, count: int) -> int:
    """Return the id of a completed job with so many rows."""
    sandbox.set_agent(NUMBERS, rows(count))
    return sandbox.add_older_jobs(NUMBERS, 1)[0]


def test_a_result_is_read_page_by_page_in_order(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = numbers_job(sandbox, 4567)

    assert list(hook.iter_result(job_id)) == rows(4567)
    assert len(requested(sandbox, "/result")) == 5


def test_a_result_is_not_asked_for_before_the_first_row_is(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = numbers_job(sandbox, 5)
    result = hook.iter_result(job_id)

    assert sandbox.requests == []
    assert next(result) == {"n": "0"}


@pytest.mark.parametrize("cap", [1, 7, 1000, 2500])
@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_the_server_decides_how_much_comes_at_once(cap: int, count: int, connect: Any) -> None:
    with Sandbox(page_cap=cap) as sandbox:
        job_id = numbers_job(sandbox, count)
        hook: AgentyHook = connect(host=sandbox.url, password=sandbox.key)

        assert list(hook.iter_result(job_id)) == rows(count)
        assert len(sandbox.requests) == max(1, -(-count // cap))
        assert sandbox.requests[0].query["limit"] == "2500"


@pytest.mark.agenty_sandbox(page_cap=10)
def test_a_page_that_is_shorter_than_the_others_is_completed(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = numbers_job(sandbox, 35)
    sandbox.fault("GET", "/jobs/{id}/result", body=page(35, *rows(35)[10:14]), after=1)

    with_short_page = list(hook.iter_result(job_id))

    assert len(with_short_page) == 35
    # Which page the fault strikes depends on the order in which the pages that are fetched at once arrive.
    assert len(requested(sandbox, "/result")) == 5


def test_rows_may_have_different_keys_of_any_characters(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    result = [{"Retailer Name": "Köln £", "# Stores": "7"}, {"other": "x"}]
    sandbox.fault("GET", "/jobs/{id}/result", body=page(2, *result))

    assert list(hook.iter_result(finished_job)) == result


@pytest.mark.parametrize("first", [0, 1])
def test_an_empty_page_before_the_end_is_an_error_and_no_endless_loop(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, first: int
) -> None:
    sandbox.fault("GET", "/jobs/{id}/result", body=page(3, *rows(first)))
    sandbox.fault("GET", "/jobs/{id}/result", body=page(3), after=1, times=None)

    result = hook.iter_result(finished_job)
    assert list(itertools.islice(result, first)) == rows(first)
    with pytest.raises(AgentyError, match=f"result of job {finished_job} ended at row {first} of 3"):
        list(result)

    assert len(sandbox.requests) <= 4


@pytest.mark.agenty_sandbox(page_cap=10)
def test_a_result_that_shrinks_while_it_is_read_is_an_error(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = numbers_job(sandbox, 35)
    sandbox.fault("GET", "/jobs/{id}/result", body=page(12, *rows(12)[10:]), after=1, times=None)

    with pytest.raises(AgentyError, match=f"result of job {job_id} changed while it was read: it had 35 rows"):
        list(hook.iter_result(job_id))


@pytest.mark.agenty_sandbox(page_cap=10)
def test_the_order_is_kept_when_later_pages_come_first(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = numbers_job(sandbox, 60)
    held = sandbox.fault("GET", "/jobs/{id}/result", hold="before", after=1)

    def release_when_the_others_have_come() -> None:
        sandbox.wait_for_request("GET", "/jobs/{id}/result", count=6)
        held.release()

    thread = threading.Thread(target=release_when_the_others_have_come)
    thread.start()
    assert list(hook.iter_result(job_id)) == rows(60)
    thread.join()


@pytest.mark.agenty_sandbox(page_cap=10)
def test_pages_are_fetched_ahead_but_not_more_than_a_few(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = numbers_job(sandbox, 1000)
    held = sandbox.fault("GET", "/jobs/{id}/result", hold="before", after=1, times=None)
    result = hook.iter_result(job_id)
    consumed: list[dict[str, str]] = []
    thread = threading.Thread(target=lambda: consumed.extend(result))
    thread.start()
    held.wait(result_pages.PAGES_AHEAD)

    assert held.holding == result_pages.PAGES_AHEAD
    assert len(consumed) == 10
    assert len(requested(sandbox, "/result")) == 1 + result_pages.PAGES_AHEAD

    held.release()
    thread.join()
    assert consumed == rows(1000)


@pytest.mark.agenty_sandbox(page_cap=10)
def test_no_more_pages_are_fetched_than_the_reader_keeps_up_with(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = numbers_job(sandbox, 1000)
    result = hook.iter_result(job_id)

    list(itertools.islice(result, 31))

    assert len(requested(sandbox, "/result")) <= 4 + result_pages.PAGES_AHEAD
    result.close()  # type: ignore[attr-defined]


@pytest.mark.agenty_sandbox(page_cap=10)
def test_who_stops_early_waits_for_no_page_and_asks_for_no_further_one(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = numbers_job(sandbox, 1000)
    held = sandbox.fault("GET", "/jobs/{id}/result", hold="before", after=4, times=None)
    result = hook.iter_result(job_id)
    list(itertools.islice(result, 15))
    sandbox.wait_for_request("GET", "/jobs/{id}/result", count=1 + result_pages.PAGES_AHEAD)

    result.close()  # type: ignore[attr-defined]

    # They are held still: closing has not waited for them.
    assert held.holding
    asked = len(sandbox.requests)
    held.release()
    time.sleep(0.2)
    assert len(sandbox.requests) == asked


@pytest.mark.agenty_sandbox(page_cap=10)
def test_a_page_that_fails_for_a_moment_is_read_again(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = numbers_job(sandbox, 60)
    sandbox.fault("GET", "/jobs/{id}/result", status=503, after=2, times=2)

    assert list(hook.iter_result(job_id)) == rows(60)


@pytest.mark.parametrize(("modified", "sent"), [(True, "1"), (False, "0")])
def test_collection_and_modified_are_asked_for(sandbox: Sandbox, hook: AgentyHook, modified: bool, sent: str) -> None:
    sandbox.set_agent(NUMBERS, rows(3))
    sandbox.set_agent(NUMBERS, [{"second": "x"}], collection=2)
    job_id = sandbox.add_older_jobs(NUMBERS, 1)[0]

    assert list(hook.iter_result(job_id, collection=2, modified=modified)) == [{"second": "x"}]
    assert hook.count_result(job_id, collection=2, modified=modified) == 1
    assert hook.count_result(job_id) == 3
    first, second, third = requested(sandbox, "/result")
    assert (first["collection"], first["modified"]) == ("2", sent)
    assert (second["collection"], second["modified"], second["limit"]) == ("2", sent, "1")
    assert (third["collection"], third["modified"]) == ("1", "1")


# Results that the sandbox does not have


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that serves a result and makes its server's connection the default one."""
    import contextlib

    with contextlib.ExitStack() as servers:

        def serve(pages: Any) -> ResultServer:
            server = servers.enter_context(ResultServer.serving(pages))
            monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", server.connection)
            return server

        yield serve


def some_rows(offset: int, count: int, total: int) -> list[dict[str, str]]:
    return [{"n": str(number)} for number in range(offset, min(offset + count, total))]


def test_a_page_that_cannot_be_had_does_not_wait_for_the_others(serve: Any) -> None:
    released = threading.Event()

    def pages(offset: int, limit: int, _: int) -> bytes:
        if offset > 100:
            released.wait(60)
        return b"no page" if offset == 100 else page_of(1000, some_rows(offset, min(limit, 100), 1000))

    serve(pages)

    with pytest.raises(AgentyError, match="is not JSON"):
        list(AgentyHook().iter_result(7))
    assert not released.is_set()
    released.set()


def read_by_iterating(_: Any) -> int:
    return sum(1 for _ in AgentyHook().iter_result(7))


def read_by_landing(tmp_path: Any) -> int:
    return AgentyHook().download_result(7, str(tmp_path / "books.jsonl")).rows or 0


each_way = pytest.mark.parametrize("read", [read_by_iterating, read_by_landing])


@each_way
@pytest.mark.parametrize("change", [-5240, -61, -1, 1, 60, 10**15])
@pytest.mark.parametrize("changes_at", [1, 3])
def test_a_result_whose_total_changes_is_an_error(
    serve: Any, tmp_path: Any, read: Any, change: int, changes_at: int
) -> None:
    def pages(offset: int, limit: int, number: int) -> bytes:
        total = 5300 if limit == 1 or number < changes_at else 5300 + change
        return page_of(total, some_rows(offset, min(limit, 1000), 5300))

    serve(pages)
    with pytest.raises(AgentyError, match=f"job 7 changed while it was read: it had 5300 rows and has {5300 + change}"):
        read(tmp_path)
    assert list(tmp_path.iterdir()) == []


@each_way
@pytest.mark.parametrize("total", [0, 1, 59])
def test_a_total_that_is_less_than_the_rows_is_an_error(serve: Any, tmp_path: Any, read: Any, total: int) -> None:
    serve(lambda offset, limit, _: page_of(total, some_rows(offset, limit, 60)))

    with pytest.raises(AgentyError, match=f"job 7 has {total} rows by Agenty's count, but Agenty sent 60"):
        list(AgentyHook().iter_result(7))
    with pytest.raises(AgentyError, match=f"job 7 has {total} rows by Agenty's count, but Agenty sent"):
        read(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_counted_as_none_are_an_error(serve: Any) -> None:
    serve(lambda offset, limit, _: page_of(0, some_rows(offset, limit, 60)))

    with pytest.raises(AgentyError, match="job 7 has 0 rows by Agenty's count, but Agenty sent 1"):
        AgentyHook().count_result(7)


@pytest.mark.parametrize("short", [{0: 1}, {0: 1, 1: 1, 2: 1}, {0: 7, 3: 2}, {0: 2, 13: 1, 14: 1}])
def test_pages_grow_again_after_short_ones(serve: Any, short: dict[int, int]) -> None:
    server = serve(
        lambda offset, limit, number: page_of(5300, some_rows(offset, min(limit, short.get(number, limit)), 5300))
    )

    assert list(AgentyHook().iter_result(7)) == some_rows(0, 5300, 5300)
    assert server.requests <= 20


@pytest.mark.parametrize("cap", [1, 7])
def test_pages_that_stay_short_are_read_to_the_end(serve: Any, cap: int) -> None:
    server = serve(lambda offset, limit, _: page_of(100, some_rows(offset, min(limit, cap), 100)))

    assert list(AgentyHook().iter_result(7)) == some_rows(0, 100, 100)
    assert server.requests == -(-100 // cap)


def large_rows(offset: int, count: int, total: int, characters: int) -> str:
    return (
        "["
        + ",".join(f'{{"n": {n}, "html": "{"x" * characters}"}}' for n in range(total)[offset : offset + count])
        + "]"
    )


def test_large_rows_are_asked_for_in_smaller_pages(serve: Any) -> None:
    server = serve(lambda offset, limit, _: page_of(300, large_rows(offset, min(limit, 100), 300, 100_000)))

    assert [row["n"] for row in AgentyHook().iter_result(7)] == list(range(300))
    assert server.limits[0] == 2500
    # The first page had 10 MB.
    assert 20 < max(server.limits[1:]) < 80


def test_a_page_that_is_too_large_is_asked_for_with_fewer_rows(serve: Any, tmp_path: Any) -> None:
    server = serve(lambda offset, limit, _: page_of(350, large_rows(offset, limit, 350, 200_000)))

    exported = AgentyHook().download_result(7, str(tmp_path / "pages.jsonl"))

    assert exported.rows == 350
    with (tmp_path / "pages.jsonl").open(encoding="utf-8") as file:
        assert [json.loads(line)["n"] for line in file] == list(range(350))
    assert min(server.limits) < 350


def test_a_row_that_is_too_large_is_an_error(serve: Any, tmp_path: Any) -> None:
    serve(lambda offset, limit, _: page_of(2, large_rows(offset, limit, 2, 70_000_000 if offset == 0 else 1)))

    with pytest.raises(AgentyExportError, match="Nothing was landed"):
        AgentyHook().download_result(7, str(tmp_path / "pages.jsonl"), verify_rows=False)
    assert list(tmp_path.iterdir()) == []


class Interrupted(BaseException):
    """As Airflow's own timeout."""


@pytest.mark.parametrize("held_from", [0, 1])
def test_an_interrupted_landing_waits_for_no_page(serve: Any, tmp_path: Any, held_from: int) -> None:
    go_on = threading.Event()

    def pages(offset: int, limit: int, number: int) -> bytes:
        if number >= held_from:
            go_on.wait(20)
        return page_of(1000, some_rows(offset, min(limit, 10), 1000))

    def interrupt(*_: Any) -> None:
        raise Interrupted

    serve(pages)
    handler = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    began = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            AgentyHook().download_result(7, str(tmp_path / "books.jsonl"))
        # The pages are held for 20 s.
        assert time.monotonic() - began < 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        go_on.set()
    assert list(tmp_path.iterdir()) == []


def test_a_process_ends_without_the_pages_that_it_gave_up(serve: Any) -> None:
    go_on = threading.Event()

    def pages(offset: int, limit: int, number: int) -> bytes:
        if number >= 1:
            go_on.wait(60)
        return page_of(1000, some_rows(offset, min(limit, 10), 1000))

    server = serve(pages)
    script = textwrap.dedent(
        """
        import threading, time
        from airflow_provider_agenty.hooks.agenty import AgentyHook
        result = AgentyHook().iter_result(7)
        first = [next(result) for _ in range(10)]
        threading.Thread(target=lambda: next(result), daemon=True).start()
        time.sleep(0.5)
        print(len(first))
        """
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "AIRFLOW_CONN_AGENTY_DEFAULT": server.connection},
            capture_output=True,
            text=True,
            check=False,
            timeout=40,
        )
    finally:
        go_on.set()

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "10"
    assert len(server.limits) > 1
