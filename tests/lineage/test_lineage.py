"""What the rest of Airflow is told of landed files, by a real run of tasks in the Airflow that is installed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from tests.features import IS_AIRFLOW_3, IS_AIRFLOW_3_0, has

HERE = Path(__file__).parent
AGENT, EMPTY_AGENT = "books", "nothing"
COLLECTIONS = {
    number: b"name,price\r\n" + b"".join(b"Book %d,\xc2\xa3%d\r\n" % (row, number) for row in range(number))
    for number in (1, 2, 3)
}

pytestmark = pytest.mark.timeout(600)
needs_openlineage = pytest.mark.skipif(
    not has("airflow.providers.openlineage"), reason="needs apache-airflow-providers-openlineage"
)


@dataclass
class Ran:
    """One run of the DAG, and all that it left behind."""

    home: Path
    landed: Path
    agent_uri: str
    key: str
    job_id: int
    output: str
    events: list[tuple[str, dict]] = field(default_factory=list)

    @property
    def lineage(self) -> dict[str, list]:
        return json.loads(self.landed.joinpath("lineage.json").read_text())

    @property
    def openlineage(self) -> list[dict]:
        return [json.loads(path.read_text()) for path in sorted(self.home.glob("openlineage-*"))]

    def extra(self, content: bytes, collection: int = 1, size: int | None = None) -> dict:
        return {
            "rows": content.count(b"\n") - 1,
            "bytes": len(content) if size is None else size,
            "sha256": hashlib.sha256(content).hexdigest(),
            "job_id": self.job_id,
            "collection": collection,
            "credits": 12,
        }


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    home, landed = tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("landed")
    with Sandbox(agents={AGENT: COLLECTIONS, EMPTY_AGENT: b"name,price\r\n"}) as sandbox:
        job_id, empty_job_id = sandbox.add_older_jobs(AGENT, 1)[0], sandbox.add_older_jobs(EMPTY_AGENT, 1)[0]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(HERE / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW_CONN_AGENTY_DEFAULT": sandbox.connection_json,
            "AGENTY_LINEAGE_FOLDER": str(landed),
            "AGENTY_LINEAGE_JOBS": f"{job_id},{empty_job_id}",
            # For the OpenLineage provider, where it is installed.
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(home / "openlineage"), "append": False}
            ),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        output = airflow(environment, "db", "migrate")
        if IS_AIRFLOW_3:
            # It stores the assets that references are looked up by.
            output += airflow(environment, "dags", "reserialize")
        output += airflow(environment, "dags", "test", "lineage")
        host = urlsplit(sandbox.url).netloc
        key = sandbox.key
    table, column = ("asset", "asset_id") if IS_AIRFLOW_3 else ("dataset", "dataset_id")
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        rows = database.execute(
            f"select a.uri, e.extra from {table}_event e join {table} a on a.id = e.{column} order by e.id"
        ).fetchall()
    events = [(uri, json.loads(extra)) for uri, extra in rows]
    return Ran(home, landed, f"agenty://{host}/agents/{AGENT}", key, job_id, output, events)


def airflow(environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def events_of(ran, uri):
    return [extra for each, extra in ran.events if each == uri]


@pytest.mark.skipif(not IS_AIRFLOW_3, reason="`dags test` writes no events on Airflow 2")
class TestAssetEvents:
    def test_an_assets_event_has_rows_bytes_checksum_and_job(self, ran):
        expected = ran.extra(COLLECTIONS[1])
        assert events_of(ran, "s3://lake/books.csv") == [expected]
        assert ran.landed.joinpath("export.csv").stat().st_size == expected["bytes"]

    @pytest.mark.parametrize("uri", ["by_name", "known_by_name", "file:///known_by_uri"])
    def test_so_has_that_of_a_name_or_a_reference(self, ran, uri):
        assert events_of(ran, uri) == [ran.extra(COLLECTIONS[1])]

    def test_so_has_that_of_a_paged_result(self, ran):
        content = ran.landed.joinpath("result.jsonl").read_bytes()
        (extra,) = events_of(ran, "file:///of_result")
        assert extra == {**ran.extra(content), "rows": 1}

    def test_each_mapped_task_has_its_own(self, ran):
        events = sorted(events_of(ran, "file:///of_mapped"), key=lambda extra: extra["collection"])
        assert events == [ran.extra(COLLECTIONS[each], each) for each in (1, 2, 3)]

    def test_what_was_skipped_has_none(self, ran):
        assert not ran.landed.joinpath("skipped.csv").exists()
        assert events_of(ran, "file:///of_skipped") == []

    def test_an_alias_has_none_of_its_own(self, ran):
        assert {uri for uri, _ in ran.events} <= {
            *("s3://lake/books.csv", "file:///of_result", "file:///of_mapped"),
            *("by_name", "known_by_name", "file:///known_by_uri"),
        }


class TestMapping:
    def test_collections_are_landed_at_a_templated_path(self, ran):
        landed = {path.name: path.read_bytes() for path in ran.landed.joinpath("lineage").iterdir()}
        assert landed == {f"{AGENT}-{ran.job_id}-{each}.csv": COLLECTIONS[each] for each in (1, 2, 3)}

    def test_so_are_their_rows(self, ran):
        landed = [ran.landed.joinpath(f"rows of {index}.csv").read_bytes() for index in range(3)]
        assert landed == [COLLECTIONS[each] for each in (1, 2, 3)]


class TestHookLineage:
    def test_the_agent_is_the_input_of_all_that_was_landed(self, ran):
        assert {uri for uri, _ in ran.lineage["inputs"]} == {ran.agent_uri}

    def test_each_landed_file_is_an_output(self, ran):
        files = [path for path in ran.landed.rglob("*") if path.is_file() and path.name != "lineage.json"]
        assert len(files) == 9
        expected = {f"file://{path}".replace("#", "%23") for path in files}
        assert {uri for uri, _ in ran.lineage["outputs"]} == expected

    def test_it_has_what_the_assets_event_has(self, ran):
        extras = [extra for uri, extra in ran.lineage["outputs"] if "by hook" in uri]
        size = ran.landed.joinpath("by hook #1.csv.gz").stat().st_size
        assert extras == [ran.extra(COLLECTIONS[1], size=size)]


@needs_openlineage
class TestOpenLineage:
    def test_shows_the_edge_from_the_agent_to_the_file(self, ran):
        namespace, _, name = ran.agent_uri.rpartition("/agents/")
        completed = {
            event["job"]["name"]: event
            for event in ran.openlineage
            if event["eventType"] == "COMPLETE" and event["job"]["name"].startswith("lineage.")
        }
        # All tasks of a test run share one process, and what is collected in it.
        inputs, outputs = (
            {(each["namespace"], each["name"]) for each in completed["lineage.export"][kind]}
            for kind in ("inputs", "outputs")
        )
        assert inputs == {(namespace, f"agents/{name}")}
        assert ("file", str(ran.landed / "export.csv")) in outputs


class TestSecrets:
    def test_neither_key_nor_link_is_in_what_airflow_wrote(self, ran):
        written = {str(path): path.read_bytes() for path in ran.home.rglob("*") if path.is_file()}
        written["lineage"] = ran.landed.joinpath("lineage.json").read_bytes()
        assert any(name.endswith(".db") for name in written)
        if IS_AIRFLOW_3 and not IS_AIRFLOW_3_0:  # which hide secrets in what `dags test` prints too
            # It is its own supervisor there, and with DEBUG it tells what it is asked to hide.
            lines = [line for line in ran.output.encode().splitlines() if b"MaskSecret(" not in line]
            written["output"] = b"\n".join(lines)
        secret = re.compile(re.escape(ran.key.encode()) + rb"|signature=[\w.-]{20,}")
        leaks = [
            (name, line) for name, content in written.items() for line in content.splitlines() if secret.search(line)
        ]
        assert leaks == []
