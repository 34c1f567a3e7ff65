"""The pages of an Airflow 2."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.airflow_harness.airflow_api import USER, Run
from tests.browser.airflow_3 import address_behind


class Airflow2Pages:
    """
    The pages of an Airflow 2, with the methods of :class:`tests.browser.airflow_3.AirflowPages`.

    :param page: the browser's page, on which they are opened.
    :param url: where that Airflow is.
    :param password: of the user ``admin``.
    """

    def __init__(self, page: Any, url: str, password: str) -> None:
        self.page = page
        self._url = url
        self._password = password

    def log_in(self) -> None:
        self.page.goto(f"{self._url}/login/")
        self.page.locator("#username").fill(USER)
        self.page.locator("#password").fill(self._password)
        self.page.get_by_role("button", name="Sign In").or_(self.page.locator("input[type=submit]")).first.click()
        self.page.wait_for_url(lambda url: "/login" not in url)

    def open_connection_form(self) -> Any:
        self.page.goto(f"{self._url}/connection/add", wait_until="load")
        self.page.get_by_role("combobox", name="Agenty").or_(self.page.locator("#select2-chosen-1")).first.wait_for()
        self.page.evaluate("$('#conn_type').val('agenty').trigger('change')")
        return self.page.locator("#model_form")

    def show_extra_fields(self, form: Any) -> None:
        """They are shown already."""

    def test_form(self) -> str:
        """Press the form's button "Test", and return what the page then says."""
        with self.page.expect_response(lambda response: "connections/test" in response.url):
            self.page.locator("#test-connection").click()
        alert = self.page.locator(".container .row .alert:visible")
        return str(alert.inner_text())

    def save_connection(self, form: Any) -> None:
        form.get_by_role("button", name="Save").click()
        self.page.wait_for_url(lambda url: "/connection/add" not in url)

    def open_edit_form(self, connection_id: str) -> Any:
        self.page.goto(f"{self._url}/connection/list/")
        self.page.get_by_role("row", name=connection_id).locator("a[href*='/connection/edit/']").click()
        return self.page.locator("#model_form")

    def link(self, run: Run, task_id: str, name: str, *, map_index: int = -1) -> str:
        self._open_task(run, task_id, "details", map_index=map_index)
        return address_behind(self.page.get_by_role("link", name=name))

    def xcoms(self, run: Run, task_id: str) -> Any:
        self._open_task(run, task_id, "xcom")
        return self.page.get_by_role("table").last

    def _open_task(self, run: Run, task_id: str, tab: str, *, map_index: int = -1) -> None:
        where = f"dag_run_id={quote(run.run_id, safe='')}&task_id={task_id}"
        where += f"&map_index={map_index}" if map_index >= 0 else ""
        self.page.goto(f"{self._url}/dags/{run.dag_id}/grid?{where}&tab={tab}")
