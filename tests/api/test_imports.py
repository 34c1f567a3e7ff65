from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, pkgutil, sys
import {package}
package = sys.modules["{package}"]
if hasattr(package, "__path__") and {deep}:
    for module in pkgutil.walk_packages(package.__path__, "{package}."):
        importlib.import_module(module.name)
print(sorted(name for name in sys.modules if name.partition(".")[0] == "airflow"))
"""


@pytest.mark.parametrize(("package", "deep"), [("airflow_provider_agenty", False)])
def test_what_knows_nothing_of_airflow_imports_nothing_of_it(package: str, deep: bool) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(package=package, deep=deep)], capture_output=True, text=True, check=True
    )

    assert ran.stdout.strip() == "[]"
