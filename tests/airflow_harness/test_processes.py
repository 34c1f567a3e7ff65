"""Child processes end with everything they started, however the one that started them ends."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.airflow_harness.processes import (
    Component,
    ProcessError,
    Watchdog,
    end_components,
    ended_by_signals,
    free_ports,
    inherited_environment,
    processes_of_sessions,
)

ROOT = Path(__file__).resolve().parents[2]

STUBBORN_FAMILY = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setpgid(0, 0)
        if os.fork() == 0:
            os.setpgid(0, 0)
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(600)
"""
"""A process, its child and its grandchild, in three process groups, all deaf to SIGTERM."""


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.02)


@pytest.fixture
def watchdog():
    dog = Watchdog()
    yield dog
    dog.close()


@pytest.fixture
def make_component(tmp_path, watchdog):
    made = []

    def make(code, program=sys.executable, **options):
        component = Component(
            "helper",
            [program, "-c", textwrap.dedent(code)],
            environment=dict(os.environ),
            log_path=tmp_path / "helper.log",
            watchdog=watchdog,
            **options,
        )
        made.append(component)
        return component

    yield make
    end_components(made, terminate_seconds=0)


def written_pids(component):
    return [int(line) for line in component.log_path.read_text().split()] if component.log_path.exists() else []


def test_kill_takes_descendants_in_other_process_groups_along(make_component):
    family = make_component(STUBBORN_FAMILY)
    family.start()
    until(lambda: len(written_pids(family)) == 3)
    assert sorted(family.processes()) == sorted(written_pids(family))
    family.kill()
    assert processes_of_sessions([family.pid]) == []
    assert not family.is_running


def test_stop_kills_what_does_not_end_by_itself(make_component):
    family = make_component(STUBBORN_FAMILY)
    family.start()
    until(lambda: len(written_pids(family)) == 3)
    family.stop(timeout=0.1)
    assert processes_of_sessions([family.pid]) == []


def test_stop_lets_the_program_end_by_itself(make_component):
    polite = make_component("""
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("goodbye", flush=True), sys.exit(0)))
        print("ready", flush=True)
        time.sleep(600)
    """)
    polite.start()
    until(lambda: "ready" in polite.last_lines())
    polite.stop()
    assert "goodbye" in polite.last_lines()


def test_stop_asks_with_the_signal_that_the_program_wants(make_component):
    particular = make_component(
        """
        import signal, sys, time
        signal.signal(signal.SIGINT, lambda *_: (print("goodbye", flush=True), sys.exit(0)))
        print("ready", flush=True)
        time.sleep(600)
        """,
        stop_signal=signal.SIGINT,
    )
    particular.start()
    until(lambda: "ready" in particular.last_lines())
    particular.stop()
    assert "goodbye" in particular.last_lines()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_component_can_run_as_another_user_with_none_of_our_groups(make_component):
    # Not Python: the user may not be allowed to see where this one is.
    other = make_component("id -un; id -Gn; sleep 600", program="/bin/sh", user="nobody")
    other.start()
    until(lambda: len(other.last_lines().split()) >= 2)
    assert other.last_lines().split() == ["nobody", grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name]


def test_a_component_can_be_started_again_after_a_kill_and_only_then(make_component):
    component = make_component("import time; time.sleep(600)")
    component.start()
    first = component.pid
    with pytest.raises(ProcessError, match="running already"):
        component.start()
    component.kill()
    component.start()
    assert component.is_running
    assert component.pid != first


def test_check_tells_an_unexpected_end_from_a_wanted_one(make_component):
    wanted = make_component("import time; time.sleep(600)")
    wanted.start()
    wanted.check()
    wanted.kill()
    wanted.check()
    unexpected = make_component("print('no room left'); raise SystemExit(7)")
    unexpected.start()
    until(lambda: not unexpected.is_running)
    with pytest.raises(ProcessError, match=r"exit code 7(.|\n)*no room left"):
        unexpected.check()


def test_children_end_when_their_starter_is_killed(tmp_path):
    starter = tmp_path / "starter.py"
    starter.write_text(
        textwrap.dedent(f"""
            import os, sys, time
            from pathlib import Path
            from tests.airflow_harness.processes import Component, Watchdog
            code = {textwrap.dedent(STUBBORN_FAMILY)!r}
            log = Path({str(tmp_path / "family.log")!r})
            family = Component("family", [sys.executable, "-c", code], environment=dict(os.environ),
                               log_path=log, watchdog=Watchdog())
            family.start()
            while len(log.read_text().split()) < 3:
                time.sleep(0.02)
            print(family.pid, flush=True)
            time.sleep(600)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(starter)], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    session_id = int(process.stdout.readline())
    assert len(processes_of_sessions([session_id])) == 3
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not processes_of_sessions([session_id]))


def test_the_watchdog_spares_sessions_that_it_was_told_to_forget(make_component):
    component = make_component("import time; time.sleep(600)")
    component.start()
    other = Watchdog()
    other.remember(component.pid)
    other.forget(component.pid)
    other.close()
    assert component.is_running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_unwind_the_stack(number):
    unwound = []

    def be_signalled():
        with ended_by_signals():
            try:
                os.kill(os.getpid(), number)
                time.sleep(30)
            finally:
                unwound.append(True)

    with pytest.raises(SystemExit) as ended:
        be_signalled()
    assert unwound
    assert ended.value.code == 128 + number


def test_free_ports_are_different_and_can_be_bound():
    ports = free_ports(3)
    assert len(set(ports)) == 3
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_the_environment_is_passed_on_without_what_concerns_another_airflow(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", "https://elsewhere.example")
    monkeypatch.setenv("_AIRFLOW__AS_LIBRARY", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.setenv("LANG_OF_USER", "de")
    environment = inherited_environment(without=["SECRET"])
    assert environment["LANG_OF_USER"] == "de"
    assert not [name for name in environment if "AIRFLOW" in name]
    assert not {"PYTHONDONTWRITEBYTECODE", "SECRET"} & environment.keys()


@pytest.mark.parametrize(
    ("before", "after"), [("intern.example", "intern.example,127.0.0.1,localhost"), ("", "127.0.0.1,localhost")]
)
def test_loopback_is_kept_from_a_proxy_beside_what_was(monkeypatch, before, after):
    monkeypatch.setenv("NO_PROXY", before)
    monkeypatch.delenv("no_proxy", raising=False)
    environment = inherited_environment()
    assert environment["NO_PROXY"] == environment["no_proxy"] == after
