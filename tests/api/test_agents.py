"""Agents: read, listed, chosen and found, by the sandbox and by servers that answer oddly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_agenty.api import agents
from airflow_provider_agenty.api.agents import Agent
from airflow_provider_agenty.exceptions import (
    AgentyAuthError,
    AgentyInputError,
    AgentyNotFoundError,
    AgentyUnexpectedAnswerError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox
from tests.over_the_wire import BOOKS, Connect, page

RETAILERS, QUOTES = "w9qmlp5475", "lmqdjwd972"


def ids(found: Iterator[Agent]) -> list[str]:
    return [agent.agent_id for agent in found]


def asked(sandbox: Sandbox) -> list[str]:
    return [request.path for request in sandbox.requests]


def row(agent_id: str, **values: Any) -> dict[str, Any]:
    return {"agent_id": agent_id, "name": agent_id.title(), "type": "scraping"} | values


class TestGetAgent:
    def test_has_what_agenty_says(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.set_agent(BOOKS, name="Books", project_id=7, tags=["daily", "prices"])

        agent = hook.get_agent(BOOKS)

        assert (agent.agent_id, agent.name, agent.type) == (BOOKS, "Books", "scraping")
        assert (agent.project_id, agent.tags) == (7, ("daily", "prices"))
        assert agent.fields == {1: ("name", "price", "image", "details_page_url")}
        assert agent.raw["is_public"] == 0

    def test_becomes_json(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.set_agent(BOOKS, tags=["daily"])
        values = hook.get_agent(BOOKS).to_dict()
        assert json.loads(json.dumps(values)) == values
        assert (values["tags"], values["fields"]) == (["daily"], {"1": ["name", "price", "image", "details_page_url"]})

    def test_needs_nothing_but_the_id(self) -> None:
        assert Agent.from_answer({"data": {"agent_id": "a"}}) == Agent("a")

    @pytest.mark.parametrize(
        "odd",
        [
            {"tags": "daily", "config": [], "project_id": "x", "name": None},
            {"tags": [None, {}, True], "config": {"collections": {}}},
            {"tags": None, "config": {"collections": None}},
        ],
    )
    def test_passes_over_what_is_none(self, odd: dict[str, Any]) -> None:
        agent = Agent.from_answer({"agent_id": "a"} | odd)
        assert (agent.tags, agent.fields, agent.project_id, agent.name) == ((), {}, None, None)

    def test_counts_collections_that_are_none(self) -> None:
        config = {"collections": ["x", {"fields": [{"name": "title"}, {"name": None}, 7, {"name": "# Stores"}]}]}
        assert Agent.from_answer({"agent_id": "a", "config": config}).fields == {1: (), 2: ("title", "# Stores")}

    def test_texts_are_clean(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        body = row(BOOKS, name=f"a\x1b[31m {sandbox.key}", tags=["b\nc"])
        sandbox.fault("GET", "/agents/{id}", status=200, body=body)
        agent = hook.get_agent(BOOKS)
        assert (agent.name, agent.tags) == ("a\\x1b[31m ***", ("b\\nc",))

    def test_of_another_id_is_an_error(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.fault("GET", "/agents/{id}", status=200, body=row("other"))
        with pytest.raises(AgentyUnexpectedAnswerError, match="holds another agent, other"):
            hook.get_agent(BOOKS)

    def test_that_is_not_there_is_an_error(self, hook: AgentyHook) -> None:
        with pytest.raises(AgentyNotFoundError):
            hook.get_agent("nosuch")


class TestListAgents:
    def test_are_all_of_the_account(self, hook: AgentyHook, sandbox: Sandbox) -> None:
        assert sorted(ids(hook.list_agents())) == sandbox.agent_ids

    @pytest.mark.agenty_sandbox(page_cap=2)
    def test_no_page_is_asked_for_before_it_is_needed(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        found = hook.list_agents()
        assert asked(sandbox) == []
        next(found)
        next(found)
        assert [request.query["offset"] for request in sandbox.requests] == ["0"]
        assert len(list(found)) == 1
        assert [request.query["offset"] for request in sandbox.requests] == ["0", "2"]

    def test_are_chosen_by_tag_type_and_project(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.set_agent(BOOKS, project_id=7, tags=["daily", "prices"])
        sandbox.set_agent(QUOTES, project_id=7, tags=["Daily"])
        sandbox.set_agent(RETAILERS, project_id=8, tags=["daily"])

        assert ids(hook.list_agents(tag="daily")) == [BOOKS, RETAILERS]
        assert ids(hook.list_agents(type="changedetection")) == [QUOTES]
        assert set(asked(sandbox)) == {"/agents"}
        sandbox.clear()
        assert ids(hook.list_agents(project_id="7")) == [BOOKS, QUOTES]
        assert [agent.project_id for agent in hook.list_agents(project_id=8)] == [8]
        assert asked(sandbox) == ["/projects/7", "/projects/8"]
        assert ids(hook.list_agents(project_id=7, tag="daily", type="scraping")) == [BOOKS]
        assert ids(hook.list_agents(tag="weekly")) == []

    @pytest.mark.parametrize("own", [{}, {"project_id": None}])
    def test_need_not_name_the_project_that_lists_them(
        self, sandbox: Sandbox, hook: AgentyHook, own: dict[str, Any]
    ) -> None:
        sandbox.set_agent(BOOKS, project_id=7)
        listed = {"project_id": 7, "agents": [{"agent_id": BOOKS}]}
        sandbox.fault("GET", "/projects/{id}", status=200, body=listed)
        sandbox.fault("GET", "/agents/{id}", status=200, body={"agent_id": BOOKS, "tags": ["daily"], **own})

        (agent,) = hook.list_agents(project_id=7, tag="daily")
        assert (agent.agent_id, agent.project_id) == (BOOKS, 7)

    def test_of_a_project_that_is_not_there_is_an_error(self, hook: AgentyHook) -> None:
        with pytest.raises(AgentyNotFoundError, match="/projects/99"):
            list(hook.list_agents(project_id=99))

    def test_rows_without_tags_are_looked_up_once(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.set_agent(BOOKS, tags=["daily"])
        rows = [row(BOOKS), row(QUOTES), row("gone"), row(RETAILERS, tags=["daily"])]
        sandbox.fault("GET", "/agents", status=200, body=page(4, *rows), times=None)

        assert ids(hook.list_agents(tag="daily")) == [BOOKS, RETAILERS]
        assert asked(sandbox) == ["/agents", f"/agents/{BOOKS}", f"/agents/{QUOTES}", "/agents/gone"]
        sandbox.clear()
        sandbox.fault("GET", "/agents", status=200, body=page(4, *rows), times=None)
        assert len(ids(hook.list_agents())) == 4
        assert asked(sandbox) == ["/agents"]

    def test_a_project_that_lists_no_agents_is_looked_for_in_the_list(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.set_agent(BOOKS, project_id=7)
        sandbox.fault("GET", "/projects/{id}", status=200, body={"project_id": 7, "name": "Shops"})
        sandbox.fault("GET", "/agents", status=200, body=page(2, row(BOOKS), row(QUOTES, project_id=None)))

        assert ids(hook.list_agents(project_id=7)) == [BOOKS]
        assert asked(sandbox) == ["/projects/7", "/agents", f"/agents/{BOOKS}"]

    def test_a_row_of_a_project_may_say_of_none(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        body = {"project_id": 7, "agents": [row(BOOKS, project_id=None), row(BOOKS)]}
        sandbox.fault("GET", "/projects/{id}", status=200, body=body)
        assert [(each.agent_id, each.project_id) for each in hook.list_agents(project_id=7)] == [(BOOKS, 7)]


class TestOddLists:
    def test_a_plain_list_is_one(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.fault("GET", "/agents", status=200, body=[row("a"), row("b"), row("a")], times=None)
        assert ids(hook.list_agents()) == ["a", "b"]
        assert [request.query["offset"] for request in sandbox.requests] == ["0", "3"]

    def test_so_is_an_envelope_in_another(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.fault("GET", "/agents", status=200, body={"data": page(1, row("a"))})
        assert ids(hook.list_agents()) == ["a"]

    def test_no_agent_comes_twice_and_the_same_page_ends_the_list(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.fault("GET", "/agents", status=200, body=page(10**6, row("a"), row("a"), row("b")), times=None)
        assert ids(hook.list_agents()) == ["a", "b"]
        assert len(sandbox.requests) == 2

    def test_an_empty_page_ends_the_list(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.fault("GET", "/agents", status=200, body=page(10), times=None)
        assert ids(hook.list_agents()) == []

    @pytest.mark.parametrize(
        "body", [b"<html>Sign in</html>", {"result": []}, page(1, {"name": "A"}), page(1, None), [7], "x", None]
    )
    def test_what_is_no_list_is_an_error(self, sandbox: Sandbox, hook: AgentyHook, body: Any) -> None:
        sandbox.fault("GET", "/agents", status=200, body=body, times=None)
        with pytest.raises(AgentyUnexpectedAnswerError, match="GET /agents: the answer"):
            list(hook.list_agents())

    @pytest.mark.parametrize(("status", "kind"), [(403, AgentyAuthError), (404, AgentyNotFoundError)])
    def test_a_refusal_is_its_error(self, sandbox: Sandbox, hook: AgentyHook, status: int, kind: type) -> None:
        sandbox.fault("GET", "/agents", status=status, times=None)
        with pytest.raises(kind):
            hook.find_agent("Books")

    def test_a_list_without_end_is_an_error(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        from http.server import BaseHTTPRequestHandler

        from tests.loopback import serving

        monkeypatch.setattr(agents, "MAX_PAGES", 20)
        paths: list[str] = []

        class EverNew(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                paths.append(urlsplit(self.path).path)
                body = json.dumps(page(10**9, row(f"a{len(paths)}"))).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        with serving(EverNew) as url, pytest.raises(AgentyUnexpectedAnswerError, match="is page 20 of the list"):
            connect(host=f"{url}/v2").find_agent("Books")
        assert paths == ["/v2/agents"] * 20


class TestFindAgent:
    def test_takes_the_whole_name(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.set_agent("other", name="Books and more")
        assert hook.find_agent(" Books ").agent_id == BOOKS
        assert asked(sandbox) == ["/agents"]

    @pytest.mark.parametrize("name", ["why? a=b", "//x@y", "token=abc", "Bücher 📚", 'a"b', "x" * 5000, "7"])
    def test_takes_any_name(self, sandbox: Sandbox, hook: AgentyHook, name: str) -> None:
        sandbox.set_agent("other", name=name)
        assert hook.find_agent(name).agent_id == "other"

    def test_none_is_an_error_that_lists_agents(self, hook: AgentyHook) -> None:
        with pytest.raises(AgentyInputError) as caught:
            hook.find_agent("books")
        assert str(caught.value).startswith("There is no agent called 'books'. The account has ")
        assert f"{BOOKS} (Books)" in str(caught.value)

    def test_an_account_without_agents_has_none(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.fault("GET", "/agents", status=200, body=page(0))
        with pytest.raises(AgentyInputError, match=r"The account has none\."):
            hook.find_agent("Books")

    def test_a_long_list_is_cut(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.fault("GET", "/agents", status=200, body=page(30, *(row(f"a{number}") for number in range(30))))
        with pytest.raises(AgentyInputError, match=r"a19 \(A19\) and 10 more\. Correct"):
            hook.find_agent("Books")

    def test_several_are_an_error_that_lists_them(self, sandbox: Sandbox, hook: AgentyHook) -> None:
        sandbox.set_agent("other", name="Books")
        with pytest.raises(AgentyInputError) as caught:
            hook.find_agent("Books")
        assert str(caught.value) == (
            f"2 agents are called 'Books': {BOOKS} (Books), other (Books). Give agent_id in place of the name."
        )
