"""``python -m airflow_provider_agenty.sandbox``, as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_agenty.sandbox import Sandbox
from tests.certificate import write_certificate

BOOKS = "45l0wewqzk"
COMMAND = [sys.executable, "-m", "airflow_provider_agenty.sandbox"]


@contextlib.contextmanager
def running(*arguments):
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while not (lines and lines[-1].startswith("Stop with")):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            lines.append(line)
        yield process, "".join(lines)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def get_in_vain(url):
    with contextlib.suppress(requests.ConnectionError):
        requests.get(url, timeout=60)


def address(banner):
    return re.search(r"^Address: (\S+)$", banner, re.MULTILINE)[1]


def key(banner):
    return re.search(r"^Key: (\S+)$", banner, re.MULTILINE)[1]


def test_the_banner_has_all_one_needs():
    with running("--seconds", "0.05") as (_, banner):
        line = re.search(r"^AIRFLOW_CONN_AGENTY_DEFAULT=(.+)$", banner, re.MULTILINE)[1]
        connection = json.loads(shlex.split(line)[0])
        assert connection["host"] == address(banner)
        assert f"Key: {connection['password']}\n" in banner
        assert "cannot know" in banner
        headers = {"X-Agenty-ApiKey": connection["password"]}
        answer = requests.post(
            f"{connection['host']}/jobs/start", json={"agent_id": BOOKS}, headers=headers, timeout=10
        )
        assert answer.status_code == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_and_cleanly_whatever_is_going_on(number, tmp_path):
    (tmp_path / "q1w2e3r4t5.csv").write_bytes(b"a\n" + b"1\n" * 5_000_000)
    with running("--agents", str(tmp_path), "--seconds", "0") as (process, banner):
        url = address(banner)
        session = requests.Session()
        session.headers["X-Agenty-ApiKey"] = key(banner)
        job_id = session.post(f"{url}/jobs/start", json={"agent_id": "q1w2e3r4t5"}, timeout=10).json()["job_id"]
        link = session.get(f"{url}/jobs/{job_id}/export", timeout=10).json()["downloadlink"]
        download = requests.get(link, stream=True, timeout=10)
        download.raw.read(10)
        process.send_signal(number)
        # Without an end to open connections it would wait for the download for ever.
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""


def test_the_options_reach_the_sandbox():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--port", str(port), "--key", "k1", "--page-cap", "10"]
    arguments += ["--stop-status", "200"]
    with running(*arguments) as (_, banner):
        url = f"http://127.0.0.1:{port}/v2"
        assert address(banner) == url
        job = requests.post(f"{url}/jobs/start?apikey=k1", json={"agent_id": BOOKS}, timeout=10).json()
        answer = requests.get(f"{url}/jobs/{job['job_id']}/export?apikey=k1", timeout=10).json()
        assert list(answer) == ["downloadlink"]
        assert requests.get(f"{url}/jobs?apikey=k2", timeout=10).status_code == 401
        assert requests.get(f"{url}/jobs?apikey=k1", timeout=10).json()["limit"] == 10
        assert requests.get(f"{url}/jobs/{job['job_id']}/stop?apikey=k1", timeout=10).status_code == 200


def test_a_port_that_is_taken_is_said_and_fails():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [*COMMAND, "--port", str(taken.getsockname()[1])], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("The sandbox cannot start: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--agents", "/nonexistent"],
        ["--seconds", "-1"],
        ["--certfile", "/nonexistent"],
        ["--certfile", __file__],
        ["--port", "99999"],
    ],
)
def test_options_that_cannot_be_are_said_and_fail(arguments):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot start" in done.stderr
    assert "Traceback" not in done.stderr
    if arguments[1].startswith("/nonexistent"):
        assert "/nonexistent" in done.stderr


def test_it_needs_no_airflow():
    program = "import sys, airflow_provider_agenty.sandbox.__main__; print('airflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


def test_without_its_extra_it_says_what_to_install():
    program = "import sys; sys.modules['uvicorn'] = None; import airflow_provider_agenty.sandbox"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'airflow-provider-agenty[sandbox]'" in done.stderr.splitlines()[-1]


def test_it_speaks_tls(tmp_path):
    certificate, key = write_certificate(tmp_path)
    with Sandbox(certfile=certificate, keyfile=key, seconds=0) as sandbox:
        headers = {"X-Agenty-ApiKey": sandbox.key}
        assert sandbox.url.startswith("https://")
        assert sandbox.connection["extra"] == {"verify": certificate}
        answer = requests.get(f"{sandbox.url}/jobs", headers=headers, verify=certificate, timeout=10)
        assert answer.status_code == 200
        sandbox.fault("GET", "/jobs", drop="before")
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{sandbox.url}/jobs", headers=headers, verify=certificate, timeout=10)


@contextlib.contextmanager
def forked():
    """A process that has a copy of everything that is open here, and does nothing with it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        yield
    finally:
        os.close(write)
        os.waitpid(child, 0)


class TestLifetime:
    def test_the_threads_end_with_it(self):
        before = set(threading.enumerate())
        with Sandbox(seconds=0) as sandbox:
            requests.get(sandbox.url, timeout=10)
            assert any(thread.name == "agenty-sandbox" for thread in set(threading.enumerate()) - before)
        assert set(threading.enumerate()) <= before
        with pytest.raises(requests.ConnectionError):
            requests.get(sandbox.url, timeout=10)

    def test_it_ends_though_a_request_is_held(self):
        with Sandbox(seconds=0) as sandbox:
            held = sandbox.fault("GET", "/jobs", hold="before")
            thread = threading.Thread(target=get_in_vain, args=(f"{sandbox.url}/jobs",))
            thread.start()
            held.wait()
        thread.join(timeout=10)
        assert not thread.is_alive()

    def test_stopping_twice_or_before_the_start_does_no_harm(self):
        sandbox = Sandbox()
        sandbox.stop()
        sandbox.start()
        sandbox.stop()
        sandbox.stop()

    def test_it_starts_only_once(self):
        with Sandbox() as sandbox, pytest.raises(RuntimeError, match="only once"):
            sandbox.start()

    def test_several_at_once_are_apart(self):
        with Sandbox() as one, Sandbox() as other:
            assert one.url != other.url
            answer = requests.get(f"{one.url}/jobs", headers={"X-Agenty-ApiKey": other.key}, timeout=10)
            assert answer.status_code == 401

    def test_connections_end_though_a_forked_process_has_copies_of_them(self):
        with Sandbox(seconds=0) as sandbox, requests.Session() as session:
            session.get(f"{sandbox.url}/jobs", timeout=10)
            with forked():
                sandbox.fault("GET", "/jobs", drop="before")
                with pytest.raises(requests.ConnectionError, match="Remote end closed"):
                    session.get(f"{sandbox.url}/jobs", timeout=10)

    def test_its_end_is_seen_though_a_forked_process_has_copies_of_its_sockets(self):
        sandbox = Sandbox(seconds=0).start()
        address = "127.0.0.1", urlsplit(sandbox.url).port
        with socket.create_connection(address, timeout=10) as idle:
            requests.get(sandbox.url, timeout=10)
            with forked():
                sandbox.stop()
                assert idle.recv(1) == b""
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address, timeout=10)

    def test_nothing_is_left_open(self):
        program = """
import gc, requests
from airflow_provider_agenty.sandbox import Sandbox
with Sandbox(seconds=0) as sandbox:
    with requests.Session() as session:
        session.get(sandbox.url + "/jobs", timeout=10)
        sandbox.fault("GET", "/jobs", drop="before")
        try:
            session.get(sandbox.url + "/jobs", timeout=10)
        except requests.ConnectionError:
            pass
Sandbox().start().stop()
gc.collect()
"""
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "ResourceWarning" not in done.stderr
        assert "never awaited" not in done.stderr
