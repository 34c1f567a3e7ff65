"""Folders that stand for machines: what runs on one of them has no folder in common with the others."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.airflow_harness.airflow_settings import Settings, write_configuration


class Machine:
    """
    A folder with an ``AIRFLOW_HOME``, DAG files, task logs and temporary files of its own.

    :param home: the ``AIRFLOW_HOME``. What an earlier one left in it is replaced.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._configuration_file = home / "airflow.cfg"
        self._dags_folder = home / "dags"
        self._temporary_folder = home / "tmp"

    def set_up(self, settings: Settings, dags_folder: Path, *, with_database: bool) -> None:
        """
        Make the folder, with a copy of the DAG files.

        :param settings: those of the Airflow that it is part of.
        :param dags_folder: where that Airflow's DAG files are.
        :param with_database: whether what runs here may use Airflow's database. Since Airflow 3 workers need not:
            they know only the API server and the broker.
        """
        shutil.rmtree(self.home, ignore_errors=True)
        self._temporary_folder.mkdir(parents=True)
        shutil.copytree(dags_folder, self._dags_folder, ignore=shutil.ignore_patterns("__pycache__"))
        here = {section: dict(values) for section, values in settings.items()}
        here["core"]["dags_folder"] = str(self._dags_folder)
        here["logging"]["base_log_folder"] = str(self.home / "logs")
        if not with_database:
            del here["database"]
        write_configuration(self._configuration_file, here)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a component run here."""
        return {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONFIG": str(self._configuration_file),
            "TMPDIR": str(self._temporary_folder),
        }
