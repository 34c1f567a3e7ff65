"""Agents as assets, and where files are, as URIs that Airflow takes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from airflow_provider_agenty.airflow_compat import HookLineage, asset_class
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.assets import agenty
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.landing import lineage
from airflow_provider_agenty.landing.land import ExportedFile
from tests.features import IS_AIRFLOW_3, has

EXPORTED = ExportedFile("/data/books.csv", 30, 2, "ab" * 32, 7, 1)
JOB = Job(7, "completed", agent_id="books", pages_credit=3)
LOG = logging.getLogger("lineage-test")


def find(name: str, *modules: str):
    return next(getattr(import_module(module), name) for module in modules if has(module, name))


class TestAgentUris:
    def test_airflow_takes_them_by_the_providers_handler(self):
        asset = asset_class()(uri="agenty://API.Agenty.com/agents/45l0wewqzk/")
        assert asset.uri == asset.normalized_uri == "agenty://api.agenty.com/agents/45l0wewqzk"

    def test_a_login_is_dropped(self):
        assert (
            asset_class()(uri="agenty://key@api.agenty.com/agents/a").normalized_uri
            == "agenty://api.agenty.com/agents/a"
        )

    @pytest.mark.skipif(not IS_AIRFLOW_3, reason="Airflow 2 only warns")
    @pytest.mark.parametrize(
        "uri",
        [
            "agenty://api.agenty.com",
            "agenty://h/agents/",
            "agenty://h/jobs/7",
            "agenty://h/agents/a/b",
            "agenty:///agents/a",
        ],
    )
    def test_others_are_refused(self, uri):
        with pytest.raises(ValueError, match="must name a host and an agent"):
            asset_class()(uri=uri)

    @pytest.mark.parametrize("uri", ["agenty://h", "agenty://h/agents/", "agenty://h/agents", "agenty:///agents/a"])
    def test_others_are_refused_in_whatever_form_they_come(self, uri):
        with pytest.raises(ValueError, match="must name a host and an agent"):
            agenty.sanitize_uri(urlsplit(uri))

    def test_the_factory_makes_what_the_hook_tells_of(self):
        asset = agenty.create_asset(host="127.0.0.1:8000", agent_id="a b/c", extra={"x": 1})
        assert (asset.uri, asset.extra) == ("agenty://127.0.0.1:8000/agents/a%20b%2Fc", {"x": 1})
        assert agenty.agent_uri("API.Agenty.com", "Ab") == "agenty://api.agenty.com/agents/Ab"

    def test_openlineage_names_them_by_host_and_agent(self):
        pytest.importorskip("openlineage.client.event_v2")
        asset = agenty.create_asset(host="127.0.0.1:8000", agent_id="books")
        named = agenty.convert_asset_to_openlineage(asset, None)
        assert (named.namespace, named.name) == ("agenty://127.0.0.1:8000", "agents/books")


class TestFileUris:
    @pytest.mark.parametrize(
        ("path", "uri"),
        [
            ("/data/my books.csv", "file:///data/my books.csv"),
            ("/data/a@b/books.csv", "file:///data/a@b/books.csv"),
            ("/data/why? #1.csv", "file:///data/why%3F %231.csv"),
            ("s3://lake/books/a@b.csv", "s3://lake/books/a@b.csv"),
            ("s3://my_conn@lake/books.csv", "s3://lake/books.csv"),
            ("s3://key:sec@ret@lake/books.csv", "s3://lake/books.csv"),
            ("s3a://lake/books.csv", "s3://lake/books.csv"),
            ("s3n://lake/books.csv", "s3://lake/books.csv"),
            ("gcs://lake/books.csv", "gs://lake/books.csv"),
            ("ABFS://box/books.csv", "abfs://box/books.csv"),
        ],
    )
    def test_name_no_connection_and_no_login(self, path, uri):
        assert lineage.file_uri(path) == uri
        assert asset_class()(uri=uri).uri == uri


class Events(dict):
    """Events by their outlets' URIs: not every Airflow's assets can be keys."""

    def __getitem__(self, outlet):
        return super().__getitem__(outlet.uri)


class TestOutlets:
    def test_airflows_own_events_take_it(self):
        events = find("OutletEventAccessors", "airflow.sdk.execution_time.context", "airflow.utils.context")()
        alias = find("AssetAlias", "airflow.sdk") if IS_AIRFLOW_3 else find("DatasetAlias", "airflow.datasets")
        outlet = asset_class()(uri="file:///books")
        lineage.tell_outlets([outlet, alias(name="of_this_run")], events, EXPORTED, LOG)
        assert len(events) == 1
        assert events[outlet].extra == lineage.extra_of(EXPORTED)
        assert json.loads(json.dumps(events[outlet].extra)) == {
            "rows": 2,
            "bytes": 30,
            "sha256": "ab" * 32,
            "job_id": 7,
            "collection": 1,
        }

    def test_what_else_is_in_an_event_stays(self):
        outlet = asset_class()(uri="file:///books")
        events = Events({"file:///books": SimpleNamespace(extra={"mine": 1})})
        lineage.tell_outlets([outlet], events, EXPORTED, LOG)
        assert events[outlet].extra == {"mine": 1, **lineage.extra_of(EXPORTED)}

    @pytest.mark.skipif(not IS_AIRFLOW_3, reason="Airflow 2 has no references")
    def test_a_reference_is_an_outlet_like_any_other(self):
        reference = asset_class().ref(uri="file:///books")
        events = Events({"file:///books": SimpleNamespace(extra={})})
        lineage.tell_outlets([reference], events, EXPORTED, LOG)
        assert events[reference].extra == lineage.extra_of(EXPORTED)

    def test_an_outlet_that_airflow_does_not_find_fails_nothing(self, caplog):
        found, missing = asset_class()(uri="file:///books"), asset_class()(uri="file:///missing")
        events = Events({"file:///books": SimpleNamespace(extra={})})
        lineage.tell_outlets([missing, "a text", found], events, EXPORTED, LOG)
        assert events[found].extra["rows"] == 2
        assert [record.message for record in caplog.records if "file:///missing" in record.message]


class TestHookLineage:
    @pytest.fixture
    def collector(self, monkeypatch):
        collector = find("HookLineageCollector", "airflow.sdk.lineage", "airflow.lineage.hook")()
        monkeypatch.setattr(lineage, "hook_lineage", lambda: HookLineage(collector))
        return collector

    @staticmethod
    def told(infos):
        return [
            (asset.uri, asset.extra or {}) for asset in (getattr(info, "asset", None) or info.dataset for info in infos)
        ]

    @pytest.mark.parametrize(
        ("agent_id", "inputs"), [("books", [("agenty://h:8443/agents/books", {})]), (None, [])], ids=["agent", "none"]
    )
    def test_has_the_agent_as_input_and_the_file_as_output(self, collector, caplog, agent_id, inputs):
        exported = replace(EXPORTED, path="s3a://my_conn@lake/books.csv")
        job = replace(JOB, agent_id=agent_id)
        lineage.tell_hook_lineage(AgentyHook(), exported, job, base_url="https://me:pw@H:8443/v2", log=LOG)
        collected = getattr(collector, "collected_assets", None) or collector.collected_datasets
        assert self.told(collected.inputs) == inputs
        assert self.told(collected.outputs) == [("s3://lake/books.csv", {**lineage.extra_of(EXPORTED), "credits": 3})]
        assert not caplog.records

    def test_is_not_missed_where_nobody_reads_it(self, monkeypatch, caplog):
        monkeypatch.setattr(lineage, "hook_lineage", lambda: None)
        lineage.tell_hook_lineage(AgentyHook(), EXPORTED, JOB, base_url="https://h/v2", log=LOG)
        assert not caplog.records

    def test_what_airflow_refuses_fails_nothing(self, monkeypatch, caplog):
        class Refuses:
            def add_input(self, *_, **__):
                raise ValueError("not like this")

        monkeypatch.setattr(lineage, "hook_lineage", Refuses)
        lineage.tell_hook_lineage(object(), EXPORTED, JOB, base_url="https://h/v2", log=LOG)
        assert "/data/books.csv was not recorded: not like this" in caplog.text

    @pytest.mark.skipif(
        not has("airflow.sdk.plugins_manager", "get_hook_lineage_readers_plugins")
        or has("airflow.providers.openlineage"),
        reason="needs Airflow 3.2, and that nobody reads",
    )
    def test_where_nobody_reads_it_nothing_is_made(self):
        code = (
            "import sys; from airflow_provider_agenty.airflow_compat import hook_lineage; lineage = hook_lineage();"
            "print(lineage is None, 'boto3' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "True False"
