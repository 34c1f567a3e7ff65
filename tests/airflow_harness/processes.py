"""
Long-running child processes that leave nothing behind, whatever happens to the process that started them.

A process that Airflow starts may move to a process group of its own, but it stays in the session of the component that
started it. So the session, not the process group, is what has to be ended.

Nothing of this package is imported here: the watchdog runs this file by its path.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

TERMINATE_SECONDS = 1.5
"""How long processes have to end by themselves after SIGTERM before SIGKILL is sent."""

_POLL_SECONDS = 0.02
_SERVER_PORTS = 10_000, 32_768
"""Linux gives higher ones to clients."""

_T = TypeVar("_T")


class ProcessError(Exception):
    """A child process could not be started, or ended when it should not have."""


def processes_of_sessions(session_ids: Iterable[int]) -> list[int]:
    """Return the ids of all live processes of the sessions. A session's id is that of its first process."""
    wanted = set(session_ids)
    return [pid for pid in psutil.pids() if _is_alive_in(pid, wanted)] if wanted else []


def _is_alive_in(pid: int, session_ids: Collection[int]) -> bool:
    try:
        return os.getsid(pid) in session_ids and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


def end_sessions(session_ids: Iterable[int], *, terminate_seconds: float = TERMINATE_SECONDS) -> None:
    """
    End every process of the sessions: SIGTERM first, SIGKILL for what is left.

    :param terminate_seconds: how long to wait between the two signals; 0 sends only SIGKILL.
    """
    session_ids = list(session_ids)
    if terminate_seconds > 0:
        _signal_all(processes_of_sessions(session_ids), signal.SIGTERM)
        deadline = time.monotonic() + terminate_seconds
        while processes_of_sessions(session_ids) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    # A process may fork between the listing and the signal, hence more than one round.
    while left := processes_of_sessions(session_ids):
        _signal_all(left, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Watchdog:
    """
    Ends the sessions entrusted to it when this process disappears, even by SIGKILL.

    It is a small process of its own that reads from a pipe. The kernel closes the pipe when this process ends,
    and the watchdog then ends what is still running.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def remember(self, session_id: int) -> None:
        """End this session, should this process disappear."""
        self._write(f"+{session_id}\n")

    def forget(self, session_id: int) -> None:
        """Leave this session alone: it has ended, and its number may soon belong to somebody else."""
        self._write(f"-{session_id}\n")

    def close(self) -> None:
        """Let the watchdog end what it still remembers, and wait for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()


def _watch() -> None:
    """Be the watchdog: its commands are the lines of the standard input."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    remembered: set[int] = set()
    for line in sys.stdin:
        (remembered.add if line.startswith("+") else remembered.discard)(int(line[1:]))
    end_sessions(remembered)


class Component:
    """
    One long-running program in a session of its own, with its output in a file.

    :param name: what to call it in messages.
    :param command: program and arguments.
    :param environment: the whole environment it gets.
    :param log_path: file that its output is appended to.
    :param watchdog: who ends it should this process disappear.
    :param user: whom it runs as; by default whoever runs this.
    :param stop_signal: what asks it to end.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path,
        watchdog: Watchdog,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = list(command)
        self._environment = dict(environment)
        self._watchdog = watchdog
        self._as_user = as_user(user)
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._should_run = False
        self._session_ids: list[int] = []

    @property
    def pid(self) -> int:
        """The process id of the program itself."""
        if self._process is None:
            raise ProcessError(f"The {self.name} has not been started.")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the program itself is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def has_ended_by_itself(self) -> bool:
        """Whether the program has ended without having been stopped or killed here."""
        return self._process is not None and self._should_run and not self.is_running

    def processes(self) -> list[int]:
        """Return the ids of all live processes that the program or its descendants are."""
        return processes_of_sessions(self._session_ids)

    def start(self) -> None:
        """Start the program."""
        if self.is_running:
            raise ProcessError(f"The {self.name} is running already, as process {self.pid}.")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Before the new process becomes a program: it never runs without being remembered.
                preexec_fn=lambda: self._watchdog.remember(os.getpid()),
                **self._as_user,
            )
        self._should_run = True
        self._session_ids.append(self._process.pid)

    def stop(self, timeout: float = 30.0) -> None:
        """Ask the program to end, wait at most ``timeout`` seconds, then end whatever is left of its session."""
        if self._process is not None and self.is_running:
            self._process.send_signal(self._stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Take the program and all its descendants away with SIGKILL, as a crash of the machine would."""
        end_components([self], terminate_seconds=0)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Have the program and all its descendants hold still."""
        _signal_all(held := self.processes(), signal.SIGSTOP)
        try:
            yield
        finally:
            _signal_all(held, signal.SIGCONT)

    def last_lines(self, count: int = 30) -> str:
        """Return the end of the program's output."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-count:])

    def check(self) -> None:
        """
        Raise when the program has ended without having been stopped or killed here.

        :raises ProcessError: with the end of its output.
        """
        if self._process is not None and self.has_ended_by_itself:
            raise ProcessError(
                f"The {self.name} ended with exit code {self._process.returncode}. "
                f"The end of {self.log_path}:\n{self.last_lines()}"
            )

    def _reap(self) -> None:
        self._should_run = False
        if self._process is not None:
            self._process.wait()
        for session_id in self._session_ids:
            self._watchdog.forget(session_id)
        self._session_ids.clear()


def end_components(components: Iterable[Component], *, terminate_seconds: float = TERMINATE_SECONDS) -> None:
    """
    End several components at once, with everything that they started.

    :param terminate_seconds: how long they have to end by themselves; 0 kills them at once.
    """
    components = list(components)
    session_ids = [session_id for component in components for session_id in component._session_ids]
    end_sessions(session_ids, terminate_seconds=terminate_seconds)
    for component in components:
        component._reap()


def as_user(name: str | None) -> dict[str, Any]:
    """Return what makes `subprocess` run a program as a user with none of this process's groups."""
    return {} if name is None else {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def free_ports(count: int) -> list[int]:
    """
    Return that many different TCP ports of the loopback interface that nothing listens on now.

    They are below those that the kernel gives to clients: no connection takes one before its server has started, or
    while that is restarted.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.randrange(*_SERVER_PORTS)
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
    return ports


def poll(
    look: Callable[[], _T | None], timeout: float, *, check: Callable[[], None], interval: float = 0.2
) -> _T | None:
    """
    Look at an interval, once at least, until there is something to see, and return it.

    :param timeout: seconds after which the answer is ``None``.
    :param check: called after each attempt in vain; raises when going on makes no sense.
    """
    deadline = time.monotonic() + timeout
    while (seen := look()) is None:
        check()
        if time.monotonic() >= deadline:
            return None
        time.sleep(interval)
    return seen


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `SystemExit`, so that what stops child processes is run as on Ctrl-C."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    # A shell script starts what it runs in the background with SIGINT ignored.
    handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def inherited_environment(without: Collection[str] = ()) -> dict[str, str]:
    """
    Return this process's environment, with what keeps loopback from a proxy.

    What would change how Airflow or Python behave is left out.

    :param without: names of further variables to leave out.
    """
    dropped = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", *without}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "_AIRFLOW")) and name not in dropped
    }
    before = inherited.get("NO_PROXY") or inherited.get("no_proxy") or ""
    no_proxy = ",".join(filter(None, [before, "127.0.0.1", "localhost"]))
    return {**inherited, "NO_PROXY": no_proxy, "no_proxy": no_proxy}


if __name__ == "__main__":
    _watch()
