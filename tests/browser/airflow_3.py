"""A person before the web pages of Airflow 3: a headless Chromium, and where things are in them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.airflow_harness.airflow_api import USER, Run

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM_VARIABLE = "CHROMIUM"
WIDTH, HEIGHT = 1280, 900

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_ELSEWHERE = re.compile(r"https://")
"""The addresses that are not Airflow's own."""

_WAIT_MILLISECONDS = 90_000.0
"""For one thing to appear: the first page of a busy machine's Airflow has taken half a minute."""


class BrowserError(Exception):
    """There is no browser to look with."""


def find_chromium() -> str:
    """
    Return the path of Chromium, or of Chrome: what ``CHROMIUM`` names, or else what there is.

    :raises BrowserError: where there is none, and how to get one.
    """
    named = os.environ.get(CHROMIUM_VARIABLE)
    for name in (named,) if named else _NAMES:
        if path := shutil.which(name):
            return path
    raise BrowserError(
        f"There is no Chromium{f' at {named}' if named else ''}. On Debian: apt-get install chromium. "
        f"Elsewhere, name it by its path: {CHROMIUM_VARIABLE}=/path/of/chromium."
    )


@contextlib.contextmanager
def open_page() -> Iterator[Page]:
    """
    Open an empty page of a Chromium without a window, with a profile of its own.

    :raises BrowserError: where there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_SWITCHES))
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.set_default_timeout(_WAIT_MILLISECONDS)
            page.set_default_navigation_timeout(_WAIT_MILLISECONDS)
            yield page
        finally:
            browser.close()


class AirflowPages:
    """
    The pages of one Airflow 3.

    :param page: the browser's page, on which they are opened.
    :param url: where that Airflow is.
    :param password: of the user ``admin``.
    """

    def __init__(self, page: Page, url: str, password: str) -> None:
        self.page = page
        self._url = url
        self._password = password

    def log_in(self) -> None:
        """Log in as ``admin``."""
        self.page.goto(f"{self._url}/")
        self.page.locator("input[name=username]").fill(USER)
        self.page.locator("input[name=password]").fill(self._password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda url: "/login" not in url)

    def open_connection_form(self) -> Locator:
        """Open the form for a new connection of type Agenty, with all its parts, and return it."""
        self.page.goto(f"{self._url}/connections")
        self.page.get_by_role("button", name="Add Connection").click()
        form = self.page.get_by_role("dialog")
        form.get_by_role("combobox").fill("Agenty")
        self.page.get_by_role("option", name="Agenty", exact=True).click()
        form.locator("input[name=password]").wait_for()
        return form

    def show_extra_fields(self, form: Locator) -> None:
        """Unfold the fields that a form keeps in the connection's extra; the others are folded up by it."""
        form.get_by_role("button", name="Extra Fields", exact=True).click()
        form.locator("[name=element_max_attempts]").wait_for()

    def save_connection(self, form: Locator) -> None:
        """Save the form, which then is gone."""
        form.get_by_role("button", name="Save").click()
        form.wait_for(state="hidden")

    def test_connection(self, connection_id: str) -> str:
        """Press the button that tests a saved connection, and return all that the page then says of it."""
        self.page.goto(f"{self._url}/connections")
        self.page.get_by_role("row", name=connection_id).get_by_role("button", name="Test Connection").click()
        told = self.page.get_by_role("status").filter(has_text="Test Connection").first
        return str(told.inner_text())

    def open_edit_form(self, connection_id: str) -> Locator:
        """Open the form of a saved connection, and return it."""
        self.page.goto(f"{self._url}/connections")
        self.page.get_by_role("row", name=connection_id).get_by_role("button", name="Edit Connection").click()
        return self.page.get_by_role("dialog")

    def open_run(self, run: Run) -> None:
        """Open the page of a run, with the grid beside it."""
        self.page.goto(f"{self._url}{_path(run)}")

    def open_task(self, run: Run, task_id: str, tab: str = "", *, map_index: int = -1) -> None:
        """
        Open the page of a task instance.

        :param tab: the part of it, as in its address, such as ``details`` or ``xcom``; by default the log.
        """
        mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
        self.page.goto(f"{self._url}{_path(run)}/tasks/{task_id}{mapped}/{tab}".rstrip("/"))

    def link(self, run: Run, task_id: str, name: str, *, map_index: int = -1) -> str:
        """Press a task instance's link with this name, and return the address to which it leads."""
        self.open_task(run, task_id, "details", map_index=map_index)
        return address_behind(self.page.get_by_role("link", name=name))

    def xcoms(self, run: Run, task_id: str) -> Locator:
        """Open the table of a task instance's XComs, and return it."""
        self.open_task(run, task_id, "xcom")
        self.page.get_by_role("button", name=re.compile("^Expand")).first.click()
        return self.page.get_by_role("table")

    def task_state(self, run: Run, task_id: str) -> Locator:
        """Open the table of what a task instance has in the task state store (3.3 and later), and return it."""
        self.open_task(run, task_id, "task-state-store")
        return self.page.get_by_role("table")


def address_behind(link: Locator) -> str:
    """
    Press a link that opens a page of its own, and return the address of that page.

    An empty page is shown in its place: nothing here leaves this machine.
    """
    context = link.page.context
    context.route(_ELSEWHERE, lambda route: route.fulfill(body="", content_type="text/html"))
    try:
        with context.expect_page() as opened:
            link.first.click()
        opened.value.wait_for_url(_ELSEWHERE)
        address: str = opened.value.url
        opened.value.close()
    finally:
        context.unroute(_ELSEWHERE)
    return address


def _path(run: Run) -> str:
    return f"/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}"
