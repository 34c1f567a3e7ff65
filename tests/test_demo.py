"""`demo.py` as a person runs it: a process of its own, on a real Airflow."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from demo import main
from tests.airflow_harness.processes import processes_of_sessions
from tests.features import IS_AIRFLOW_3, needs_airflow_3

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "demo.py"]
BOOKS = "45l0wewqzk"
ACCOUNT_VARIABLES = ("AGENTY_API_KEY", "AGENTY_AGENT_ID", "AGENTY_API_URL")

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all runs: the second and later ones find what the first has prepared."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch):
    for name in ACCOUNT_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def start_demo(folder, **environment):
    return subprocess.Popen(
        [*COMMAND, "--folder", str(folder)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(folder):
    """Return the processes that have the demo's Airflow in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"AIRFLOW_HOME={folder}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until_gone(folder, session_ids):
    # Both: a process that is just ending has already lost its environment, and one may have left its session.
    deadline = time.monotonic() + 60
    while left := {*processes_of(folder), *processes_of_sessions(session_ids)}:
        assert time.monotonic() < deadline, f"Still there: {left}"
        time.sleep(0.1)


@needs_airflow_3
def test_a_file_lands_from_a_sandbox_of_its_own(folder):
    output, errors = start_demo(folder).communicate()
    assert "Landed:" in output, output + errors
    # Deferred waiting, progress and the end, in this order.
    expected = r"start +success.*wait +deferred.*wait .*/60 pages.*land +success.*Landed: (\S+) \(60 rows\)\n(.*)"
    path, first_lines = re.search(expected, output, re.DOTALL).groups()
    content = Path(path).read_bytes()
    assert content == (ROOT / f"airflow_provider_agenty/sandbox/agents/{BOOKS}.csv").read_bytes()
    assert content.decode().splitlines()[:5] == first_lines.splitlines()
    assert errors == ""
    assert processes_of(folder) == []


@needs_airflow_3
def test_a_failed_job_is_an_error_with_its_reason_and_the_key_stays_secret(folder):
    with Sandbox() as account:
        account.plan(agent_id=BOOKS, outcome="aborted", error="The account has no page credits left.", seconds=1)
        process = start_demo(folder, AGENTY_API_KEY=account.key, AGENTY_AGENT_ID=BOOKS, AGENTY_API_URL=account.url)
        output, errors = process.communicate()
        assert account.starts == 1
        assert process.returncode == 1, output + errors
        assert "The account has no page credits left." in errors
        assert "wait failed" in errors
        assert "Landed" not in output
        assert account.key not in output + errors
        written = [file for file in folder.rglob("*") if file.is_file()]
        assert [file for file in written if account.key.encode() in file.read_bytes()] == []
    assert processes_of(folder) == []


@needs_airflow_3
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_is_left_after_an_interruption(folder, number, code):
    demo = start_demo(folder)
    deadline = time.monotonic() + 60
    while len(processes_of(folder)) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    demo.send_signal(number)
    demo.communicate()
    assert demo.returncode == code
    assert processes_of(folder) == []


@needs_airflow_3
def test_nothing_is_left_after_a_sigkill(folder):
    demo = start_demo(folder)
    deadline = time.monotonic() + 60
    while len(started := processes_of(folder)) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len({os.getsid(pid) for pid in started}) >= 4
    demo.kill()
    demo.communicate()
    wait_until_gone(folder, started)


@pytest.mark.skipif(IS_AIRFLOW_3, reason="is about Airflow 2")
def test_airflow_2_is_refused_in_words(tmp_path, capsys):
    assert main(["--folder", str(tmp_path)]) == 1
    assert "needs Airflow 3" in capsys.readouterr().err


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path, capsys):
    import fcntl

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["--folder", str(tmp_path)]) == 1
    assert "Another demo is running" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "missing"), [("AGENTY_API_KEY", "AGENTY_AGENT_ID"), ("AGENTY_AGENT_ID", "AGENTY_API_KEY")]
)
def test_half_an_account_is_refused_before_anything_starts(given, missing, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(given, "0123456789abcdef")
    monkeypatch.setenv(missing, " ")
    assert main(["--folder", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "set both" in told.err
    assert "0123456789abcdef" not in told.out + told.err
