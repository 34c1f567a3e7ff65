"""Long-running child processes that leave nothing behind, whatever happens to the process that started them."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.airflow_harness import sessions

_POLL_SECONDS = 0.05


class ProcessError(Exception):
    """A child process could not be started, or ended when it should not have."""


class Watchdog:
    """
    Ends the sessions entrusted to it when this process disappears, even by SIGKILL.

    It is a small process of its own that reads from a pipe. The kernel closes the pipe when this process ends,
    and the watchdog then ends what is still running.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", sessions.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def remember(self, session_id: int) -> None:
        """End this session, should this process disappear."""
        self._write(f"+{session_id}\n")

    def remember_me(self) -> None:
        """
        Remember the session of the process that calls this.

        A new process does so before it becomes a program: it never runs without being remembered.
        """
        self.remember(os.getpid())

    def forget(self, session_id: int) -> None:
        """The session has ended: its number may soon belong to somebody else."""
        self._write(f"-{session_id}\n")

    def close(self) -> None:
        """Let the watchdog end what it still remembers, and wait for it."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line)
                self._process.stdin.flush()


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
        """
        The process id of the program itself.

        :raises ProcessError: when it was never started.
        """
        if self._process is None:
            raise ProcessError(f"The {self.name} has not been started.")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the program itself is alive."""
        return self._process is not None and self._process.poll() is None

    def processes(self) -> list[int]:
        """Return the ids of all live processes that the program or its descendants are."""
        return sessions.processes_of_sessions(self._session_ids)

    def start(self) -> None:
        """
        Start the program.

        :raises ProcessError: when it is running already.
        """
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
                preexec_fn=self._watchdog.remember_me,
                **self._as_user,
            )
        self._should_run = True
        self._session_ids.append(self._process.pid)

    def stop(self, timeout: float = 30.0) -> None:
        """
        Ask the program to end, wait, then end whatever is left of its session.

        :param timeout: seconds to wait after asking before SIGKILL.
        """
        if self._process is not None and self.is_running:
            self._process.send_signal(self._stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Take the program and all its descendants away with SIGKILL, as a crash of the machine would."""
        end_components([self], terminate_seconds=0)

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
        if self._process is None or not self._should_run or self.is_running:
            return
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


def end_components(components: Iterable[Component], *, terminate_seconds: float = sessions.TERMINATE_SECONDS) -> None:
    """
    End several components at once, with everything that they started.

    :param components: running or not.
    :param terminate_seconds: how long they have to end by themselves; 0 kills them at once.
    """
    components = list(components)
    sessions.end_sessions(
        [session_id for component in components for session_id in component._session_ids],
        terminate_seconds=terminate_seconds,
    )
    for component in components:
        component._reap()


def as_user(name: str | None) -> dict[str, Any]:
    """
    Return what makes `subprocess` run a program as a user, and with none of this process's groups.

    :param name: the user; ``None``: whoever runs this.
    """
    if name is None:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def free_ports(count: int) -> list[int]:
    """Return that many different TCP ports of the loopback interface that nothing listens on now."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
        return ports


def every(seconds: float, *, until: float) -> Iterator[None]:
    """Yield at an interval until the monotonic clock passes ``until``, at least once."""
    while True:
        yield
        if time.monotonic() >= until:
            return
        time.sleep(seconds)


class ended_by_signals(contextlib.AbstractContextManager[None]):  # noqa: N801
    """Turn SIGTERM and SIGHUP into `SystemExit`, so that what stops child processes is run as on Ctrl-C."""

    _numbers = (signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._exit) for number in self._numbers}
        # A shell script starts what it runs in the background with SIGINT ignored.
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @staticmethod
    def _exit(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)


def without_proxy(environment: Mapping[str, str]) -> str:
    """Return a ``NO_PROXY`` value that adds the loopback addresses to what the environment has."""
    before = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    return ",".join(filter(None, [before, "127.0.0.1", "localhost"]))


def inherited_environment(without: Collection[str] = ()) -> dict[str, str]:
    """
    Return this process's environment without what would change how Airflow or Python behave.

    :param without: names of further variables to leave out.
    """
    dropped = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", *without}
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "_AIRFLOW")) and name not in dropped
    }
