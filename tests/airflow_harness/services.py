"""
PostgreSQL and Redis of one's own, from the programs that Debian's packages install: there as long as a block.

``python -m tests.airflow_harness.services`` says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.airflow_harness.processes import (
    Component,
    ProcessError,
    Watchdog,
    as_user,
    free_ports,
    inherited_environment,
    poll,
)

START_SECONDS = 60.0
"""How long a server may take until it can be connected to."""

_PROGRAMS = {"postgresql": ("initdb", "pg_isready", "postgres"), "redis-server": ("redis-server",)}
_DEBIAN = Path("/usr/lib/postgresql")
"""Debian keeps PostgreSQL's server here, out of the path."""


class ServiceError(Exception):
    """A server cannot be had, or does not start."""


@dataclass(frozen=True)
class Server:
    """A server that runs, and can be stopped and started again at the same address."""

    url: str
    """Of its database, with the password."""

    component: Component
    is_up: Callable[[], bool]

    def stop(self) -> None:
        """End it in an orderly way."""
        self.component.stop()

    def start(self) -> None:
        """
        Start it, and wait until it can be connected to.

        :raises ServiceError: if it does not start.
        """
        self.component.start()
        _wait_until(self.is_up, self.component)


def missing_packages() -> list[str]:
    """Return which of Debian's packages would have to be installed for the servers here."""
    return [package for package, programs in _PROGRAMS.items() if not all(_find(program) for program in programs)]


def main() -> int:
    """Say what is missing, if anything is, and return the exit code: 0 when the servers can be started here."""
    missing = missing_packages()
    if missing:
        print(_how_to_install(missing), file=sys.stderr)
    return int(bool(missing))


@contextlib.contextmanager
def postgres() -> Iterator[Server]:
    """
    Run a PostgreSQL server on a free port of the loopback interface, with a database that is gone at the block's end.

    :return: the server, with the URL of its database as SQLAlchemy takes it with psycopg2.
    :raises ServiceError: if it is not installed, or does not start.
    """
    user = _unprivileged_user()
    password = secrets.token_urlsafe(24)
    (port,) = free_ports(1)
    with _folder(user) as folder:
        data = folder / "data"
        _make_cluster(data, password, user)
        # What a crash of the machine would lose is thrown away anyway.
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "dynamic_shared_memory_type": "mmap",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [_program("postgres"), "-D", str(data), *options]
        url = f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/postgres"
        # It listens before it takes clients.
        with _running("PostgreSQL", url, command, lambda: _is_ready(port), folder, user) as server:
            yield server


@contextlib.contextmanager
def redis() -> Iterator[Server]:
    """
    Run a Redis server on a free port of the loopback interface. It keeps nothing: what it held is gone when it stops.

    :return: the server, with the URL of its database.
    :raises ServiceError: if it is not installed, or does not start.
    """
    password = secrets.token_urlsafe(24)
    (port,) = free_ports(1)
    with _folder(None) as folder:
        configuration = folder / "redis.conf"
        configuration.touch(mode=0o600)
        lines = ("bind 127.0.0.1", f"port {port}", f"requirepass {password}", f"dir {folder}", 'save ""')
        configuration.write_text("\n".join(lines))
        command = [_program("redis-server"), str(configuration)]
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        with _running("Redis", url, command, lambda: _listens(port), folder, None) as server:
            yield server


def _find(program: str) -> str | None:
    if found := shutil.which(program):
        return found
    versions = sorted(_DEBIAN.glob(f"*/bin/{program}"), key=lambda path: path.parts[-3].zfill(4))
    return str(versions[-1]) if versions else None


def _program(name: str) -> str:
    if found := _find(name):
        return found
    raise ServiceError(f"There is no {name} on this machine. {_how_to_install(missing_packages())}")


def _how_to_install(packages: list[str]) -> str:
    return f"Install what is missing from Debian's packages: apt-get install {' '.join(packages)}"


def _unprivileged_user() -> str | None:
    """Return whom PostgreSQL is to run as: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ServiceError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody here.")


@contextlib.contextmanager
def _folder(user: str | None) -> Iterator[Path]:
    """Give a folder that the user can reach, wherever the caller's own folders are, and remove it in the end."""
    with tempfile.TemporaryDirectory(prefix="airflow-service-", ignore_cleanup_errors=True) as folder:
        if user is not None:
            shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
        yield Path(folder)


def _make_cluster(data: Path, password: str, user: str | None) -> None:
    password_file = data.parent / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if user is not None:
        shutil.chown(password_file, user)
    done = subprocess.run(
        [
            *(_program("initdb"), "--pgdata", str(data), "--username", "airflow", "--pwfile", str(password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
        ],
        env=_environment(),
        cwd=data.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **as_user(user),
    )
    password_file.unlink()
    if done.returncode != 0:
        raise ServiceError(f"PostgreSQL's initdb failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def _running(
    name: str, url: str, command: list[str], is_up: Callable[[], bool], folder: Path, user: str | None
) -> Iterator[Server]:
    watchdog = Watchdog()
    component = Component(
        name,
        command,
        environment=_environment(),
        log_path=folder / "log",
        watchdog=watchdog,
        user=user,
        # PostgreSQL waits for its clients after SIGTERM, and leaves shared memory behind after SIGKILL.
        stop_signal=signal.SIGINT,
    )
    server = Server(url, component, is_up)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        watchdog.close()


def _wait_until(is_up: Callable[[], bool], component: Component) -> None:
    try:
        up = poll(lambda: is_up() or None, START_SECONDS, check=component.check, interval=0.1)
    except ProcessError as error:
        raise ServiceError(str(error)) from None
    if up is None:
        raise ServiceError(f"{component.name} was not up within {START_SECONDS:.0f} s:\n{component.last_lines()}")


def _is_ready(port: int) -> bool:
    command = [_program("pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(port)]
    return subprocess.run(command, env=_environment(), stdin=subprocess.DEVNULL, check=False).returncode == 0


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _environment() -> dict[str, str]:
    """Return this process's environment without what would lead PostgreSQL's programs to another server."""
    return {name: value for name, value in inherited_environment().items() if not name.startswith("PG")}


if __name__ == "__main__":
    sys.exit(main())
