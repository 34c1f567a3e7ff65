"""One Airflow, one sandbox and one browser for all tests here, with the Airflow that is installed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_2 import Airflow2
from tests.airflow_harness.airflow_instance import AirflowInstance
from tests.browser.airflow_2 import Airflow2Pages
from tests.browser.airflow_3 import AirflowPages, BrowserError, find_chromium, open_page

DAGS = Path(__file__).with_name("dags")
IS_AIRFLOW_2 = version("apache-airflow").startswith("2.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def page():
    pytest.importorskip("playwright", reason="Playwright is not installed: make test-browser does that.")
    try:
        find_chromium()
    except BrowserError as error:
        pytest.skip(str(error))
    with open_page() as page:
        yield page


@pytest.fixture(scope="session")
def sandbox():
    with Sandbox(manual=True) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def airflow(page, sandbox, tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    environment = {
        "AIRFLOW_CONN_AGENTY_DEFAULT": sandbox.connection_json,
        "LANDING_FOLDER": str(tmp_path_factory.mktemp("landed")),
    }
    kind = Airflow2 if IS_AIRFLOW_2 else AirflowInstance
    with kind(home, dags_folder=DAGS, env=environment) as airflow:
        yield airflow


@pytest.fixture(scope="session")
def pages(airflow, page):
    pages = (Airflow2Pages if IS_AIRFLOW_2 else AirflowPages)(page, airflow.url, airflow.password)
    pages.log_in()
    return pages
