"""``make screenshots``: make the pictures of the documentation again, of a sandbox."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_instance import AirflowInstance
from tests.browser.airflow_3 import AirflowPages, BrowserError, find_chromium, open_page

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
DAG_FILES = (ROOT / "example_dags" / "agenty_to_csv.py", ROOT / "tests" / "browser" / "dags" / "browser_dags.py")
DAG_ID = "agenty_to_csv"
AGENT = "45l0wewqzk"
RUNS = ("monday", "tuesday", "wednesday", "thursday")
ABORTED = "tuesday"
JOB_SECONDS = 12.0
"""Not less: where a deferred task resumes within seconds, a busy Airflow at times takes it for failed."""


def main() -> int:
    """Make the pictures, and return the exit code."""
    try:
        find_chromium()
    except BrowserError as error:
        print(error, file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Sandbox(seconds=JOB_SECONDS) as sandbox:
        landing_folder, dags = Path(folder, "landed"), Path(folder, "dags")
        environment = {
            "AIRFLOW_CONN_AGENTY_DEFAULT": sandbox.connection_json,
            "LANDING_FOLDER": str(landing_folder),
        }
        dags.mkdir()
        for file in DAG_FILES:
            shutil.copy(file, dags)
        with (
            AirflowInstance(Path(folder, "airflow"), dags_folder=dags, env=environment) as airflow,
            open_page() as page,
        ):
            pages = AirflowPages(page, airflow.url, airflow.password)
            pages.log_in()
            take_connection_form(pages)
            take_task_state(airflow, sandbox, pages)
            take_grid(airflow, sandbox, pages, landing_folder)
    return 0


def take_connection_form(pages: AirflowPages) -> None:
    """Take the picture of the form, filled in as for the real Agenty."""
    form = pages.open_connection_form()
    form.locator("input[name=connection_id]").fill("agenty_default")
    form.locator("textarea[name=description]").fill("The account of the data team")
    form.locator("input[name=password]").fill("0" * 32)
    pages.page.evaluate("document.activeElement.blur()")
    _take(pages, "connection-form.png", height=860)


def take_task_state(airflow: AirflowInstance, sandbox: Sandbox, pages: AirflowPages) -> None:
    """Take the picture of what the task state store tells while a task waits in a worker."""
    figures = {"pages_total": 120, "pages_processed": 37, "pages_failed": 2, "pages_credit": 35}
    sandbox.script([{"status": "running", **figures}])
    run = airflow.trigger("waits_in_worker", run_id="monday")
    pages.task_state(run, "start").get_by_text("37/120 pages").wait_for()
    _take(pages, "task-state.png", height=720)
    for job in sandbox.jobs:
        sandbox.set_status(job["job_id"], "completed")
    airflow.wait_for_run(run)


def take_grid(airflow: AirflowInstance, sandbox: Sandbox, pages: AirflowPages, landing_folder: Path) -> None:
    """Take the picture of a run that waits, beside some that landed and one whose job was aborted."""
    conf = {"agent_id": AGENT, "folder": str(landing_folder)}
    for name in RUNS:
        if name == ABORTED:
            sandbox.plan(times=1, outcome="aborted", error="Not enough page credits")
        state = airflow.wait_for_run(airflow.trigger(DAG_ID, conf, name))
        if state != ("failed" if name == ABORTED else "success"):
            raise SystemExit(f"The run {name} ended as {state}, which the picture is not to show. Try again.")
    sandbox.plan(times=1, seconds=600)
    run = airflow.trigger(DAG_ID, conf, "friday")
    airflow.wait_for_task(run, "wait", {"deferred"})
    pages.open_run(run)
    pages.page.get_by_text("Deferred", exact=True).first.wait_for()
    _widen_grid(pages)
    for name in (*RUNS, run.run_id):
        pages.page.locator(f"a[href*='/runs/{name}/tasks/wait']").first.wait_for()
    _take(pages, "grid.png", height=600)


def _widen_grid(pages: AirflowPages) -> None:
    """Draw the line between the grid and the run to the right, so that there is room for all runs."""
    line = pages.page.get_by_role("separator").first.bounding_box()
    assert line is not None
    mouse = pages.page.mouse
    x, y = line["x"] + line["width"] / 2, line["y"] + line["height"] - 40
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 90, y, steps=10)
    mouse.up()


def _take(pages: AirflowPages, name: str, *, height: int) -> None:
    page = pages.page
    page.set_viewport_size({"width": 1280, "height": height})
    # Nothing tells when the page has come to rest: what slides in, and the grid's bars, take their time.
    page.wait_for_timeout(2_000)
    page.screenshot(path=IMAGES / name, animations="disabled")
    print(f"{(IMAGES / name).relative_to(ROOT)}: {(IMAGES / name).stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    sys.exit(main())
