"""
Which processes belong to a POSIX session, and how a whole session is ended.

A process that Airflow starts may move to a process group of its own, but it stays in the session of the
component that started it. So the session, not the process group, is what has to be ended.

Only the standard library is used here, and nothing of this package: the watchdog runs this file by its path.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

TERMINATE_SECONDS = 1.5
"""How long processes have to end by themselves after SIGTERM before SIGKILL is sent."""

_POLL_SECONDS = 0.02
_PROC = Path("/proc")


def processes_of_sessions(session_ids: Iterable[int]) -> list[int]:
    """
    Return the ids of all live processes that belong to one of the sessions.

    :param session_ids: session ids, each the process id of the session's first process.
    :return: process ids in ascending order; processes that have ended but were not waited for are left out.
    """
    wanted = set(session_ids)
    return [pid for pid in _live_processes() if _session_of(pid) in wanted] if wanted else []


def end_sessions(session_ids: Iterable[int], *, terminate_seconds: float = TERMINATE_SECONDS) -> None:
    """
    End every process of the sessions: SIGTERM first, SIGKILL for what is left.

    :param session_ids: session ids.
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


def watch(commands: IO[str]) -> None:
    """
    Remember the sessions named on a stream and end them when the stream ends.

    :param commands: lines ``+<session id>`` (remember) and ``-<session id>`` (forget). The stream ends when the
        process that writes it has gone, however it went.
    """
    remembered: set[int] = set()
    for line in commands:
        session_id = int(line[1:])
        if line.startswith("+"):
            remembered.add(session_id)
        else:
            remembered.discard(session_id)
    end_sessions(remembered)


def _live_processes() -> list[int]:
    if _PROC.joinpath("self", "stat").exists():
        numbers = sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
        return [pid for pid in numbers if _state_from_proc(pid) not in ("Z", "X", "")]
    listing = subprocess.run(["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in listing.stdout.splitlines())
    return sorted(int(pid) for pid, state, *_ in rows if not state.startswith("Z"))


def _state_from_proc(pid: int) -> str:
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
    except OSError:
        return ""
    # The command name stands in parentheses and may itself contain any character.
    return stat.rpartition(")")[2].split()[0]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watch(sys.stdin)
