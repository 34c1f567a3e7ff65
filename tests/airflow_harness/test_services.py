"""PostgreSQL and Redis as long as a block, and a clear word where they cannot be had."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.airflow_harness.services import ServiceError, missing_packages, postgres, redis

ROOT = Path(__file__).resolve().parents[2]

TLS_PLEASE = bytes.fromhex("0000000804d2162f")
"""What a client of PostgreSQL may say first; a server without TLS answers N."""


def needs(package):
    return pytest.mark.skipif(package in missing_packages(), reason=f"Debian's {package} is not installed")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Where the servers keep their files; PostgreSQL's user must be able to reach it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    folder.rmdir()


def answers(url, hello):
    """Return the first bytes a server says to a greeting."""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=30) as connection:
        connection.sendall(hello)
        return connection.recv(100)


def nobody_listens(url):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=30)


@needs("redis-server")
def test_redis_is_there_as_long_as_the_block_and_wants_the_password(folders):
    with redis() as server:
        assert answers(server.url, b"PING\r\n").startswith(b"-NOAUTH")
        assert answers(server.url, f"AUTH {urlsplit(server.url).password}\r\n".encode()) == b"+OK\r\n"
    nobody_listens(server.url)


@needs("redis-server")
def test_a_server_that_was_stopped_comes_back_at_the_same_address(folders):
    with redis() as server:
        server.stop()
        nobody_listens(server.url)
        server.start()
        assert answers(server.url, f"AUTH {urlsplit(server.url).password}\r\n".encode()) == b"+OK\r\n"
    nobody_listens(server.url)


@needs("postgresql")
def test_postgres_is_there_as_long_as_the_block_and_leaves_no_file(folders):
    with postgres() as server:
        assert answers(server.url, TLS_PLEASE) == b"N"
    nobody_listens(server.url)


@needs("postgresql")
def test_postgres_ends_in_an_orderly_way_though_a_client_stays(folders):
    with contextlib.ExitStack() as clients:
        with postgres() as server:
            port = urlsplit(server.url).port
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            client.sendall(TLS_PLEASE)
            assert client.recv(1) == b"N"
            segment = shared_memory_of_the_server(folders)
            assert segment in shared_memory()
        nobody_listens(server.url)
        assert segment not in shared_memory()


def test_a_server_that_does_not_start_says_why(folders, tmp_path, monkeypatch):
    failing = tmp_path / "redis-server"
    failing.write_text("#!/bin/sh\necho 'the disk is on fire'; exit 3\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(ServiceError, match=r"Redis ended with exit code 3(.|\n)*the disk is on fire"), redis():
        pass


def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path):
    """Where nothing is in the path and Debian has installed nothing."""
    code = (
        "import tests.airflow_harness.services as s; s._DEBIAN = s.Path('/nonexistent')\n"
        "try:\n    with s.redis(): pass\n"
        "except s.ServiceError as error: print(error)\n"
        "raise SystemExit(s.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "There is no redis-server" in done.stdout
    assert "apt-get install postgresql redis-server" in done.stdout
    assert "apt-get install postgresql redis-server" in done.stderr


def shared_memory_of_the_server(folders):
    (state,) = folders.glob("*/data/postmaster.pid")
    key_and_number = state.read_text().splitlines()[6]
    return key_and_number.split()[1]


def shared_memory():
    """Return the numbers of the System V segments there are."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {line.split()[1] for line in lines}
