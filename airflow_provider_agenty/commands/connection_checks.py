"""The checks of ``doctor`` for the connection, and for what Agenty answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from airflow_provider_agenty import parameters
from airflow_provider_agenty.api.deadline import time_limit
from airflow_provider_agenty.api.validation import read_date
from airflow_provider_agenty.commands.jobs import connected_hook
from airflow_provider_agenty.commands.output import ERROR, OK, WARNING, Finding
from airflow_provider_agenty.exceptions import AgentyAuthError, AgentyError, AgentyInputError

if TYPE_CHECKING:
    from airflow_provider_agenty.connection import Settings
    from airflow_provider_agenty.hooks.agenty import AgentyHook

MAX_ADDRESSES = 3
ANSWER_SECONDS = 60.0
MAX_CLOCK_DIFFERENCE = 10.0
"""Seconds. A ``Date`` header tells whole ones, and an answer takes some."""


def check_connection(conn_id: str, *, has_database: bool) -> Iterator[Finding]:
    """Follow a connection from where it is kept to what Agenty says to its key."""
    place = _place_of(conn_id, has_database)
    name = parameters.shown(conn_id)
    if place is None and not has_database:
        yield Finding(
            "connection",
            WARNING,
            f"{name} is neither in the environment nor in a secrets backend, and Airflow's database can't be read from "
            "here. Run this where the scheduler runs, or set the environment variable AIRFLOW_CONN_… for this command.",
        )
        return
    try:
        hook = connected_hook(conn_id)
    except AgentyInputError as error:
        yield Finding("connection", ERROR, str(error))
        return
    with hook:
        yield Finding("connection", OK, f"{name}, from {place}.")
        yield from _check_settings(hook.settings)
        yield from _check_network(hook)


def _place_of(conn_id: str, has_database: bool) -> str | None:
    """Tell where a connection is kept, in the order in which Airflow looks; ``None`` if nowhere."""
    from airflow.configuration import ensure_secrets_loaded

    names = {"EnvironmentVariablesBackend": "the environment", "MetastoreBackend": "Airflow's database"}
    unreadable = None
    for backend in ensure_secrets_loaded():
        kind = type(backend).__name__
        place = names.get(kind, f"the secrets backend {kind}")
        if kind == "MetastoreBackend" and not has_database:
            continue
        try:
            if backend.get_connection(conn_id=conn_id):
                return place
        except Exception:
            unreadable = place  # Airflow goes on with the next one
    return unreadable


def _check_settings(settings: Settings) -> Iterator[Finding]:
    verified = "are not checked"
    if settings.verify:
        verified = "are checked" if settings.verify is True else "are checked with a CA bundle"
    text = (
        f"{settings.base_url}, key in the {settings.authentication}, {settings.connect_timeout:g} s to connect, "
        f"{settings.read_timeout:g} s to read, {settings.max_attempts} attempts; certificates {verified}."
    )
    yield Finding("settings", OK, text)
    if settings.authentication == "query":
        yield Finding("settings", WARNING, "The key is a part of URLs, which proxies log: set auth to header.")
    if not settings.verify:
        yield Finding("settings", WARNING, "Anybody on the way can read the key: set verify to true or a CA bundle.")


def _check_network(hook: AgentyHook) -> Iterator[Finding]:
    from requests.utils import select_proxy

    url = hook.base_url
    proxy = select_proxy(url, hook.get_conn().merge_environment_settings(url, {}, None, None, None)["proxies"])
    if proxy:
        origin = "the connection" if proxy in hook.settings.proxies.values() else "the environment"
        url = proxy if "://" in proxy else f"http://{proxy}"
        yield Finding("proxy", OK, f"{urlsplit(url).hostname}, from {origin}.")
    host = urlsplit(url).hostname
    try:
        addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None)})
    except (OSError, UnicodeError):
        text = f"{host} could not be resolved: correct the connection, or the DNS of this machine."
        yield Finding("DNS", ERROR, text)
        return
    yield Finding("DNS", OK, f"{host} is {', '.join(addresses[:MAX_ADDRESSES])}.")
    yield from _check_answers(hook)


def _check_answers(hook: AgentyHook) -> Iterator[Finding]:
    asked = time.time()
    answer = _ask(hook, "/jobs")
    answered = time.time()
    worked, said = hook.test_connection()
    if answer is None and not worked:
        yield Finding("network", ERROR, said)
        return
    over = "TLS" if hook.base_url.startswith("https") else "plain HTTP"
    yield Finding("network", OK, f"{urlsplit(hook.base_url).hostname} answers over {over}.")
    yield Finding("key", OK if worked else ERROR, said)
    if worked:
        yield _check_agents(hook)
    yield _check_clock(answer, asked, answered)


class _Answer(NamedTuple):
    status: int
    date: str | None


def _ask(hook: AgentyHook, path: str) -> _Answer | None:
    try:
        with time_limit(ANSWER_SECONDS), hook.get_conn().get(path, params={"limit": 1}, stream=True) as answer:
            return _Answer(answer.status_code, answer.headers.get("Date"))
    except Exception:  # not told: its text may hold the key
        return None


def _check_agents(hook: AgentyHook) -> Finding:
    """Tell whether the key may list agents, which it takes to find one by its name."""
    try:
        with time_limit(ANSWER_SECONDS), hook.without_retries() as asking:
            next(asking.list_agents(), None)
    except AgentyAuthError as error:
        return Finding("agents", WARNING, f"The key may not list agents, which tasks with agent_name need. {error}")
    except AgentyError as error:
        return Finding("agents", WARNING, f"The list of agents could not be read: {error}")
    return Finding("agents", OK, "The key may list agents.")


def _check_clock(answer: _Answer | None, asked: float, answered: float) -> Finding:
    moment = read_date(answer.date) if answer else None
    if moment is None:
        return Finding("clock", WARNING, "Agenty's answer has no date to compare with: check that NTP sets the clock.")
    theirs = moment.timestamp()
    # The header leaves out a part of a second.
    difference = max(asked - (theirs + 1), theirs - answered, 0)
    if difference > MAX_CLOCK_DIFFERENCE:
        text = f"This machine's clock differs from Agenty's by {difference:.0f} s: let NTP set it."
        return Finding("clock", WARNING, text)
    return Finding("clock", OK, f"It differs from Agenty's by less than {MAX_CLOCK_DIFFERENCE:g} s.")
