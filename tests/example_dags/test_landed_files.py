"""The examples that go on from the landed file: a real PostgreSQL takes it, and DuckDB reads it."""

from __future__ import annotations

import csv
import hashlib
import runpy
from contextlib import closing

import pytest

from tests.airflow_harness.services import missing_packages, postgres
from tests.example_dags.conftest import EXAMPLES

BOOKS = "45l0wewqzk"
COLUMNS = ("name", "price", "image", "details_page_url")

# Only against hanging, as for the other examples.
pytestmark = pytest.mark.timeout(1200)


def books_of(names):
    return [{"name": name, "price": "£1.00", "image": "https://a.example/", "details_page_url": ""} for name in names]


@pytest.fixture(scope="module")
def database():
    if "postgresql" in missing_packages():
        pytest.skip("PostgreSQL is not installed. On Debian: apt-get install postgresql.")
    with postgres() as server:
        yield server.url.replace("+psycopg2", "")


@pytest.fixture
def in_table(database):
    """Give what is in the table, which is not there yet, as a list of run and name for each row."""
    import psycopg2

    with closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS books")

    def read():
        with closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT run_id, name FROM books ORDER BY run_id, name")
            return cursor.fetchall()

    return read


def test_agenty_to_postgres(run_example, agenty_sandbox, database, in_table):
    names = ["Dune", 'Emma, or: a "novel"', "Ulysses\nby day"]
    agenty_sandbox.set_agent(BOOKS, books_of(names))
    (landed,) = run_example("agenty_to_postgres", connections={"AIRFLOW_CONN_POSTGRES_DEFAULT": database})

    loaded = in_table()
    assert [name for _, name in loaded] == names
    assert {run_id for run_id, _ in loaded} == {landed.stem}


@pytest.fixture
def load_file(database, tmp_path, monkeypatch):
    """Load a CSV file by the example's task, as it is landed or as something else is said of it."""
    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_DEFAULT", database)
    load = runpy.run_path(str(EXAMPLES / "agenty_to_postgres.py"))["load"].function

    def load_file(names, *, run_id="a-run", columns=COLUMNS, **landed):
        path = tmp_path / "books.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(books_of(names))
        right = {"path": str(path), "rows": len(names), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        return load({**right, **landed}, run_id)

    return load_file


def test_a_run_replaces_what_it_loaded_before_and_nothing_else(load_file, in_table):
    load_file(["Dune", "Emma"])
    load_file(["Emma", "Ulysses"], run_id="another-run")
    load_file(["Walden"])
    assert in_table() == [("a-run", "Walden"), ("another-run", "Emma"), ("another-run", "Ulysses")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": 3}, "took 2 rows of .*, which has 3"),
        ({"sha256": "0" * 64}, "has changed since it was landed"),
        ({"columns": COLUMNS[::-1]}, 'column name mismatch in header line field 1: got "details_page_url"'),
    ],
    ids=["rows", "sha256", "columns"],
)
def test_a_load_that_fails_leaves_the_table_as_it_was(load_file, in_table, wrong, message):
    assert load_file(["Dune"]) == 1
    with pytest.raises(Exception, match=message):
        load_file(["Emma", "Walden"], **wrong)
    assert in_table() == [("a-run", "Dune")]


def test_agenty_to_duckdb(run_example, agenty_sandbox):
    pounds = [*range(1, 12), 9.5]
    agenty_sandbox.set_agent(BOOKS, [{"name": f"Book {each}", "price": f"£{each}"} for each in pounds])
    summary, landed = run_example("agenty_to_duckdb")
    dearest = list(csv.DictReader(summary.read_text(encoding="utf-8").splitlines()))
    assert landed.suffix == ".parquet"
    assert [row["name"] for row in dearest] == [f"Book {each}" for each in [11, 10, 9.5, 9, 8, 7, 6, 5, 4, 3]]
    assert dearest[2]["pounds"] == "9.50"


def test_a_query_of_another_file_than_was_landed_fails(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "books.parquet"
    parquet.write_table(pyarrow.table({"name": ["Dune"], "price": ["£1.00"]}), path)
    query = runpy.run_path(str(EXAMPLES / "agenty_to_duckdb.py"))["query"].function

    assert query({"path": str(path), "rows": 1}).endswith("books.dearest.csv")
    with pytest.raises(ValueError, match=r"sees 1 rows in .*books\.parquet, but 2 were landed"):
        query({"path": str(path), "rows": 2})
