"""A file far larger than the memory that a process may still take."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.repeated_csv import RepeatedCsv

SIZE, MORE = 5 * 10**8, 256 * 1024**2
CONTENT = RepeatedCsv(SIZE)

LAND = """
import json, resource, sys

from airflow_provider_agenty.hooks.agenty import AgentyHook

job_id, small_job_id, more, path = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
with AgentyHook() as hook:
    # What Airflow and its libraries need: all of them are imported by a small file.
    hook.download_export(small_job_id, path)
    with open("/proc/self/status") as status:
        needed = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (needed + more, needed + more))
    try:
        bytearray(more + 16 * 1024**2)
    except MemoryError:
        bites = True
    else:
        bites = False
    print(json.dumps([bites, hook.download_export(job_id, path).to_dict()]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
@pytest.mark.agenty_sandbox(agents={"large": CONTENT, "small": b"name\r\nA book\r\n"})
@pytest.mark.timeout(600)
def test_half_a_gigabyte_is_landed_with_256_mib_more_than_airflow_needs(agenty_sandbox, tmp_path):
    job_ids = [agenty_sandbox.add_older_jobs(agent_id, 1)[0] for agent_id in ("large", "small")]
    path = tmp_path / "large.csv"
    try:
        done = subprocess.run(
            [sys.executable, "-c", LAND, *map(str, [*job_ids, MORE, path])],
            env={**os.environ, "AIRFLOW_CONN_AGENTY_DEFAULT": agenty_sandbox.connection_json},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]
        limit_bites, landed = json.loads(done.stdout.splitlines()[-1])
        assert limit_bites
        assert (landed["size"], landed["rows"]) == (CONTENT.size, CONTENT.row_count)
        assert path.stat().st_size == CONTENT.size > 0.99 * SIZE
    finally:
        path.unlink(missing_ok=True)
