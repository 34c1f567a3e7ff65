"""The policy on docs/landing.md is enough to land in a bucket, and nothing more may be done with it."""

from __future__ import annotations

import json

import pytest
import requests

from airflow_provider_agenty.exceptions import AgentyDestinationError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from tests.docs.pages import ROOT, blocks
from tests.s3_server import s3_server

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")
pytest.importorskip("airflow.providers.amazon")


@pytest.fixture
def guarded_bucket(monkeypatch):
    """Make a bucket of moto's server that asks for rights, and give the process a user with those of the page."""
    with s3_server() as endpoint:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="lake")
        users = boto3.client("iam")
        users.create_user(UserName="worker")
        [policy] = blocks(ROOT / "docs" / "landing.md", "json")
        users.put_user_policy(UserName="worker", PolicyName="land", PolicyDocument=json.dumps(json.loads(policy.code)))
        key = users.create_access_key(UserName="worker")["AccessKey"]
        # A connection of its own: without one, Airflow would take the file system of another test's server.
        connection = {
            "conn_type": "aws",
            "login": key["AccessKeyId"],
            "password": key["SecretAccessKey"],
            "extra": {"endpoint_url": endpoint, "region_name": "us-east-1"},
        }
        monkeypatch.setenv("AIRFLOW_CONN_WORKER_OF_THE_PAGE", json.dumps(connection))
        requests.post(f"{endpoint}/moto-api/reset-auth", data="0", timeout=10).raise_for_status()  # from now on it asks
        yield
        # The next server would have these buckets, and ask for rights too.
        requests.post(f"{endpoint}/moto-api/reset-auth", data="inf", timeout=10).raise_for_status()
        requests.post(f"{endpoint}/moto-api/reset", timeout=10).raise_for_status()


def test_the_policy_of_the_page_lets_a_file_land_there_and_nowhere_else(guarded_bucket, agenty_sandbox):
    hook = AgentyHook()
    job = hook.wait_for_job(hook.start_job("45l0wewqzk").job_id, poll_interval=0.05)

    for _ in range(2):
        assert hook.download_export(job.job_id, "s3://worker_of_the_page@lake/books/books.csv").rows == 60
    with pytest.raises(AgentyDestinationError, match="permission denied"):
        hook.download_export(job.job_id, "s3://worker_of_the_page@lake/other/books.csv")
