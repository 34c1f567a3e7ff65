"""
A hostile Agenty: whatever it answers, each call ends in time and in bounded memory, with a value that Airflow can store
or with an ``AgentyError``, and no secret is told.

The bad answers are in ``bad_answers.py``, the calls in ``calls.py``, the promise in ``promise.py``. Random cases are
mixed of all of them. ``AGENTY_HOSTILE_EXAMPLES=5000`` tries more of both, ``AGENTY_HOSTILE_SEED`` others. A failure
names its case: ``AGENTY_HOSTILE_ONLY`` with a part of that name makes it again.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_agenty.hooks.agenty import AgentyHook
from tests.hostile import honest
from tests.hostile.bad_answers import KINDS, BadAnswer, Make, Situation, mutated, quick
from tests.hostile.calls import ASKS_NOTHING, CALLS, HANDS_OUT_A_SESSION, HOOK_CALLS, public_methods
from tests.hostile.server import Elsewhere, HostileServer, Reply, Request
from tests.hostile.subject import SECONDS, Subject

EXAMPLES = int(os.environ.get("AGENTY_HOSTILE_EXAMPLES", "240"))
"""How many random cases are tried."""

MOST = EXAMPLES // 6
"""How many cases of a kind are tried at most: in longer runs each bad answer in more of the calls."""

SEED = int(os.environ.get("AGENTY_HOSTILE_SEED", "1"))
ONLY = os.environ.get("AGENTY_HOSTILE_ONLY", "")
"""A part of the name of the cases to try: all others are left out."""

AT_ONCE = 16
"""How many slow calls are made at once."""

KILLED = 3
"""After so many calls that had to be killed, a test has seen enough."""

WATCHED = 3
"""How many cases of a kind are tried on what watches for ever, each for a while."""

# The calls are made in forks of this process. A fork has none of its threads, and hangs where it counts on them. So no
# other test may run in this process before. And each call has a time of its own, after which it is killed.
pytestmark = [pytest.mark.hostile, pytest.mark.timeout(0)]


@dataclass(frozen=True)
class Case:
    """
    A call, and the bad answer that it gets at one of its routes.

    :param route: The route; empty: all of them.
    """

    call: str
    route: str
    bad: BadAnswer
    auth: str = "header"

    def __str__(self) -> str:
        return f"{self.bad.name} at {self.route or 'each route'}, in {self.call}, key in the {self.auth}"

    def answer(self, request: Request, server: HostileServer, elsewhere: Elsewhere) -> Reply:
        """Return the bad answer at its route, an honest one at all others."""
        said = CALLS[self.call].job if self.call in CALLS else {}
        reply = honest.answer(request, server.port, **said)
        if self.route and request.route != self.route:
            return reply
        return self.bad.make(Situation(request, reply, server.port, elsewhere.port))


class Theatre:
    """
    A hostile server, another host, and the process that makes the calls.

    :param make_context: Makes the context of a task.
    """

    def __init__(self, make_context: Callable[..., dict[str, Any]]) -> None:
        self.server, self.elsewhere = HostileServer(), Elsewhere()
        self.subject = Subject(make_context)
        self.killed = 0

    def try_case(self, case: Case, *, seconds: float = SECONDS, **extra: Any) -> list[tuple[Case, str]]:
        """Make a call, and return the promises that it broke."""
        self.elsewhere.received = b""
        self.server.asked.clear()
        self.server.answer = lambda request: case.answer(request, self.server, self.elsewhere)
        connection = honest.connection(self.server.port, auth=case.auth, **extra)
        report = self.subject.make(case.call, connection, seconds=seconds)
        self.server.drop_connections()
        self.killed += not report.is_alive
        broken = list(report.broken)
        if case.bad.has_to_fail and report.ended == "a value":
            broken.append("it returned a value")
        return [(case, promise) for promise in broken] + self.stolen(case)

    def stolen(self, case: Case) -> list[tuple[Case, str]]:
        """Return what the other host got of the secrets."""
        stolen = honest.SECRETS.found_in(self.elsewhere.received.decode("latin-1"))
        return [(case, f"another host got {stolen!a}")] if stolen else []

    def close(self) -> None:
        self.subject.close()
        self.server.close()
        self.elsewhere.close()


@pytest.fixture
def theatre(make_context) -> Iterator[Theatre]:
    theatre = Theatre(make_context)
    yield theatre
    theatre.close()


def cases_of(bads: list[BadAnswer], *, auths: tuple[str, ...] = ("header",)) -> list[Case]:
    """Return the cases of a kind: each bad answer once, then once again in another call, up to as many as are tried."""
    chance = random.Random(SEED)
    rounds: list[list[Case]] = []
    for bad in bads:
        cases = [
            Case(name, route, bad, chance.choice(auths))
            for name, call in CALLS.items()
            for route in call.routes
            if route in bad.routes and (not bad.calls or name in bad.calls)
        ]
        chance.shuffle(cases)
        for number, case in enumerate(case for case in cases if ONLY in str(case)):
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(case)
    chosen: list[Case] = []
    watched = 0
    for together in rounds[: 1 if EXAMPLES < 1000 and bads[0].is_costly and not ONLY else None]:
        chance.shuffle(together)
        for case in sorted(together, key=lambda case: not case.bad.is_known):
            watched += CALLS[case.call].watches
            if not CALLS[case.call].watches or watched <= max(WATCHED, MOST // 20):
                chosen.append(case)
    return chosen[: None if ONLY else MOST]


def check(broken: list[tuple[Case, str]], tried: int) -> None:
    """Fail if promises were broken: those that are alike are told once, with the first of their cases."""
    alike: dict[str, list[str]] = {}
    for case, promise in broken:
        alike.setdefault(re.sub(r"\d+|/v2\S+", "#", promise)[:70], []).append(f"{promise[:300]}\n    {case}")
    if broken:
        shown = "\n".join(f"{len(lines)} times, first: {lines[0]}" for lines in list(alike.values())[:40])
        pytest.fail(f"{len(broken)} promises broken in {tried} cases, in {len(alike)} ways:\n{shown}", pytrace=False)


@pytest.mark.parametrize("kind", [kind for kind, bads in KINDS.items() if not bads[0].is_slow])
def test_each_call_keeps_its_promises(theatre, kind):
    auths = ("header", "query") if kind in {"an honest answer", "secrets", "redirects"} else ("header",)
    broken, tried = [], 0
    for case in cases_of(KINDS[kind], auths=auths):
        broken += theatre.try_case(case, max_attempts=1 if case.bad.is_costly else 2)
        tried += 1
        if theatre.killed >= KILLED:
            break
    check(broken, tried)


def slow_cases(bads: list[BadAnswer]) -> list[Case]:
    """Return one of the bad answers for each call and route, since each takes seconds; in long runs all of them."""
    chance = random.Random(SEED)
    cases = []
    for name, call in CALLS.items():
        for route in call.routes:
            fitting = [Case(name, route, bad) for bad in bads if route in bad.routes]
            fitting = [case for case in fitting if ONLY in str(case)]
            cases += fitting if EXAMPLES >= 1000 or ONLY else [chance.choice(fitting)]
    return cases


@pytest.mark.parametrize("kind", [kind for kind, bads in KINDS.items() if bads[0].is_slow])
def test_each_call_ends_in_time(make_context, kind):
    cases = slow_cases(KINDS[kind])
    theatres = [Theatre(make_context) for _ in range(AT_ONCE)]

    def try_some(theatre: Theatre, some: list[Case]) -> list[tuple[Case, str]]:
        broken = []
        for case in some:
            if theatre.killed < 2:
                broken += theatre.try_case(case, timeout={"connect": 0.5, "read": 0.25}, max_attempts=1)
        return broken

    try:
        with ThreadPoolExecutor(AT_ONCE) as together:
            found = list(together.map(try_some, theatres, [cases[n::AT_ONCE] for n in range(AT_ONCE)]))
    finally:
        for theatre in theatres:
            theatre.close()
    check([line for lines in found for line in lines], len(cases))


@pytest.mark.parametrize(
    ("call", "route"),
    [
        ("wait_for_job", "job"),
        ("AgentyStartJobOperator", "job"),
        ("AgentyStartJobOperator", "logs"),
        ("AgentyJobTrigger, with the log", "logs"),
    ],
)
def test_a_wait_ends_at_its_deadline_however_patient_the_connection_is(theatre, call, route):
    bad = next(bad for bad in KINDS["drips"] if bad.name == "a drip in the body")

    broken = theatre.try_case(Case(call, route, bad), seconds=10, timeout={"connect": 5, "read": 60})

    check(broken, 1)


def test_twenty_thousand_running_jobs_are_not_asked_for_one_by_one(theatre, monkeypatch):
    monkeypatch.setattr("tests.hostile.calls.WATCH", 2.0)

    def make(at: Situation) -> Reply:
        if at.request.number:
            return Reply({"total": 0, "result": []})
        rows = [{"job_id": 2**30 - n, "status": "running", "agent_id": honest.AGENT} for n in range(20_000)]
        return Reply({"total": len(rows), "result": rows})

    case = Case("AgentyJobEventTrigger", "jobs", BadAnswer("20,000 running jobs", ("jobs",), make))
    check(theatre.try_case(case), 1)

    asked = " ".join(theatre.server.asked)
    longest = max(looks.split().count("job") for looks in asked.split("jobs"))
    assert longest <= 200, f"{longest} jobs were asked for one by one between two requests for the list"


def mixed(seed: int, bads: list[BadAnswer]) -> Make:
    """Return a bad answer that is another one at each request: honest ones, odd ones, and those of the tables."""

    def make(at: Situation) -> Reply:
        chance = random.Random(f"{seed} {at.request.route} {at.request.number}")
        fitting = [bad for bad in bads if at.request.route in bad.routes]
        how = chance.random()
        if how < 0.35 or not fitting:
            return at.reply
        return mutated(at, chance) if how < 0.65 else chance.choice(fitting).make(at)

    return make


def test_random_cases(theatre):
    broken, tried = [], 0
    bads = quick()
    for number in range(SEED, SEED + EXAMPLES):
        chance = random.Random(number)
        call = chance.choice([call for call, about in CALLS.items() if not about.watches])
        bad = BadAnswer(f"AGENTY_HOSTILE_SEED={number} AGENTY_HOSTILE_EXAMPLES=1", (), mixed(number, bads))
        broken += theatre.try_case(Case(call, "", bad, chance.choice(("header", "header", "query"))))
        tried += 1
        if theatre.killed >= KILLED:
            break
    check(broken, tried)


def test_the_key_never_goes_through_a_proxy_to_this_machine(theatre, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{theatre.elsewhere.port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    broken = [
        line
        for call in ("get_job", "start_job", "download_export")
        for auth in ("header", "query")
        for line in theatre.try_case(Case(call, "", KINDS["an honest answer"][0], auth))
    ]

    check(broken, 6)


@pytest.mark.parametrize("auth", ["header", "query"])
def test_a_session_that_was_handed_out_keeps_the_key_with_agenty(theatre, monkeypatch, auth):
    connection = honest.connection(theatre.server.port, auth=auth)
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", connection)
    broken = []
    with AgentyHook() as hook:
        for bad in KINDS["redirects"]:
            case = Case("get_conn", "jobs", bad, auth)
            theatre.elsewhere.received = b""
            theatre.server.answer = lambda request, case=case: case.answer(request, theatre.server, theatre.elsewhere)
            # Its errors are those of requests, and its users' affair.
            with contextlib.suppress(Exception):
                hook.get_conn().get("/jobs")
            broken += theatre.stolen(case)

    check(broken, len(KINDS["redirects"]))


@pytest.mark.parametrize("call", CALLS)
def test_each_call_comes_by_its_routes(theatre, monkeypatch, call):
    monkeypatch.setattr("tests.hostile.calls.WATCH", 2.0)

    check(theatre.try_case(Case(call, "", KINDS["an honest answer"][0])), 1)

    assert set(CALLS[call].routes) <= set(theatre.server.asked)


def test_each_public_method_is_called():
    named = {call.partition(",")[0] for call in HOOK_CALLS}

    assert public_methods() == named | ASKS_NOTHING | HANDS_OUT_A_SESSION
