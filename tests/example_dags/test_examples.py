"""Each example is run as a user would try it, with ``airflow dags test``, against a sandbox."""

from __future__ import annotations

import csv
import gzip
import json
import re
import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.example_dags.conftest import EXAMPLES
from tests.features import needs_asset_watchers

LONG_AGO = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
BOOKS, RETAILERS, QUOTES = "45l0wewqzk", "w9qmlp5475", "lmqdjwd972"

# Only against hanging: on a crowded machine an Airflow takes minutes for what is done in seconds otherwise.
pytestmark = pytest.mark.timeout(1200)


def test_agenty_tagged_agents(run_example, agenty_sandbox):
    for agent in (BOOKS, QUOTES):
        agenty_sandbox.set_agent(agent, tags=["nightly", "other"])
    files = run_example("agenty_tagged_agents", tag="nightly")
    landed = {file.name.split("-")[0]: file.read_bytes() for file in files}
    assert landed == {agent: sample(f"{agent}.csv") for agent in (BOOKS, QUOTES)}
    assert agenty_sandbox.starts == 2


def test_agenty_cost_report(run_example, agenty_sandbox):
    agenty_sandbox.add_older_jobs(QUOTES, 2, apart=1)
    agenty_sandbox.add_older_jobs(BOOKS, 3, apart=1)
    agenty_sandbox.add_older_jobs(BOOKS, 5, apart=10 * 24 * 3600)
    (file,) = run_example("agenty_cost_report", days=2)
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    # Around midnight they are of two days.
    counted = {
        agent: [sum(int(row[name]) for row in rows if row["agent_id"] == agent) for name in ("jobs", "credits")]
        for agent in (BOOKS, QUOTES)
    }
    assert counted == {BOOKS: [3, 180], QUOTES: [2, 2]}


@needs_asset_watchers
def test_agenty_failed_jobs(agenty_sandbox):
    from types import SimpleNamespace

    dags = runpy.run_path(str(EXAMPLES / "agenty_failed_jobs.py"))
    (watcher,) = dags["failed"].watchers
    # As Airflow keeps it: a trigger may come as what it was serialized to.
    _, arguments = dags["trigger"].serialize()
    assert arguments["statuses"] == ["aborted", "stopped", "failed"]
    assert watcher.name == "failed_jobs"
    jobs = [{"job_id": 8, "agent_id": BOOKS, "status": "stopped", "error": None}]
    jobs += [{"job_id": 7, "agent_id": QUOTES, "status": "aborted", "error": "Out of credits"}] * 2
    events = {"asset": [SimpleNamespace(extra={"payload": job}) for job in jobs]}
    assert dags["tell"].function(events) == [
        f"Job 7 of agent {QUOTES} is aborted: Out of credits",
        f"Job 8 of agent {BOOKS} is stopped: no reason is named",
    ]


def sample(name):
    from airflow_provider_agenty import sandbox

    return Path(sandbox.__file__).with_name("agents").joinpath(name).read_bytes()


def test_agenty_to_csv(run_example, agenty_sandbox):
    files = run_example("agenty_to_csv")
    assert [file.suffix for file in files] == [".csv"]
    assert files[0].read_bytes() == sample(f"{BOOKS}.csv")
    assert agenty_sandbox.starts == 1


def test_agenty_daily(run_example, agenty_sandbox):
    (file,) = run_example("agenty_daily")
    assert re.fullmatch(r"day=\d{4}-\d\d-\d\d/books\.csv\.gz", f"{file.parent.name}/{file.name}")
    assert gzip.decompress(file.read_bytes()) == sample(f"{BOOKS}.csv")
    assert agenty_sandbox.starts == 1


def test_agenty_daily_starts_nothing_for_an_old_day(run_example, agenty_sandbox):
    assert run_example("agenty_daily", "2026-02-01") == []
    assert agenty_sandbox.starts == 0


def test_agenty_many_agents(run_example, agenty_sandbox):
    files = run_example("agenty_many_agents")
    landed = {file.name.split("-")[0]: file.read_bytes() for file in files}
    assert len(files) == 3
    assert landed == {agent: sample(f"{agent}.csv") for agent in (BOOKS, RETAILERS, QUOTES)}
    assert agenty_sandbox.starts == 3
    assert {job["agent_id"] for job in agenty_sandbox.jobs} == {BOOKS, RETAILERS, QUOTES}


def test_agenty_taskflow(run_example, agenty_sandbox):
    limit = 15.5
    files = run_example("agenty_taskflow", limit=limit)
    books = list(csv.DictReader(sample(f"{BOOKS}.csv").decode().splitlines()))
    affordable = [book for book in books if float(book["price"].lstrip("£")) <= limit]
    assert 0 < len(affordable) < len(books)
    assert [file.suffix for file in files] == [".jsonl"]
    assert [json.loads(line) for line in files[0].read_text(encoding="utf-8").splitlines()] == affordable
    assert agenty_sandbox.starts == 1


def test_agenty_urls(run_example, agenty_sandbox):
    urls = ["https://example.com/a", "https://example.com/b", "https://example.com/a"]
    (file,) = run_example("agenty_urls", urls=urls)
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert [row["url"] for row in rows] == urls[:2]
    assert rows[0]["price"].startswith("£")
    assert agenty_sandbox.starts == 1


def test_agenty_guarded(run_example, agenty_sandbox):
    (file,) = run_example("agenty_guarded")
    assert file.read_bytes() == sample(f"{BOOKS}.csv")
    assert agenty_sandbox.starts == 1
    assert agenty_sandbox.stops == 0


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"status": "running", "pages_credit": 501}, "has cost 501 credits, more than max_credits=500 allows"),
        ({"status": "running", "started_at": LONG_AGO}, "longer than stall_timeout=1800 allows"),
        ({"status": "queued", "created_at": LONG_AGO}, "longer than queue_timeout=7200 allows"),
    ],
    ids=["max_credits", "stall_timeout", "queue_timeout"],
)
def test_agenty_guarded_fails(run_example, agenty_sandbox, job, message):
    agenty_sandbox.script([job])
    with pytest.raises(AssertionError, match=message):
        run_example("agenty_guarded")
    assert agenty_sandbox.starts == 1
    assert agenty_sandbox.stops == 1


@pytest.mark.parametrize(
    ("books", "message"),
    [
        ([{"name": "A book", "price": "£1" if number < 9 else ""} for number in range(10)], "'price' in 9 of 10"),
        ([{"name": "A book", "price": "£1"}] * 4, "max_row_drop=0.5 asks for at least 5"),
    ],
    ids=["required_fields", "max_row_drop"],
)
def test_agenty_guarded_lands_nothing_bad(run_example, agenty_sandbox, tmp_path, books, message):
    agenty_sandbox.set_agent(BOOKS, [{"name": "A book", "price": "£1"}] * 10)
    run_example("agenty_guarded")
    before = {path: path.read_bytes() for path in (tmp_path / "landed").iterdir()}
    agenty_sandbox.set_agent(BOOKS, books)

    with pytest.raises(AssertionError, match=message):
        run_example("agenty_guarded")
    assert {path: path.read_bytes() for path in (tmp_path / "landed").iterdir()} == before
