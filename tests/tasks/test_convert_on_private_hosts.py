"""Converting on hosts that share nothing: shards go from each host to the store, and no other way.

One host is cut off while it converts, and comes back after the commit.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import boto3
import pytest

from infra.artifacts import digest_of, open_store
from infra.s3 import Bucket
from infra.s3.server import RunningServer
from tests.private_training import private_cluster
from tests.sknet.conversions import convert
from tests.store_roots import BUCKET, S3Root
from tests.waiting import HANG_SECONDS, wait_for

pytestmark = [pytest.mark.long, pytest.mark.alone]

NUM_SHARDS = 8
"""Of each split."""
FLOW = f"""
import sys
from prefect import flow
from tasks.convert import ConversionSettings, convert
from tasks.programs import LaunchSettings
from tasks.stage import stage

@flow
def run(source, store):
    dataset = stage(source, store).result()
    settings = ConversionSettings(shards={NUM_SHARDS})
    launch = LaunchSettings(launcher="ray:auto")
    return convert(source, dataset, store, settings, 1, launch).result()

print("key", run(*sys.argv[1:]).key)
"""
IMPATIENT = {
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}
"""For the flow's process, in which Ray otherwise waits for seven minutes for the answer of a host
whose link is cut. Not for longer tasks: workers that are asked so often close the connection."""
SECONDS_TO_COME_BACK = 10
"""Time in which a host that is plugged in again could still change something."""


@pytest.fixture
def source(images: Path, root: S3Root) -> str:
    """The images on S3, beside the store."""
    client = boto3.client("s3")
    prefix = f"images/{root.prefix}"
    for path in images.rglob("*.png"):
        key = f"{prefix}/{path.relative_to(images)}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    return f"s3://{BUCKET}/{prefix}"


@pytest.fixture
def root(s3_server: RunningServer, tmp_path: Path) -> S3Root:
    del s3_server  # so that its settings are there
    return S3Root(tmp_path / "hosts")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[str]]:
    with (tmp_path / "flow.log").open("w") as file:
        yield file


def test_shards_go_from_each_host_to_the_store_and_a_host_that_comes_back_changes_nothing(
    s3_server: RunningServer,
    root: S3Root,
    source: str,
    images: Path,
    tmp_path: Path,
    log: IO[str],
) -> None:
    convert(images, tmp_path / "local", num_shards=NUM_SHARDS)

    def output() -> str:
        return Path(log.name).read_text("utf-8")

    with private_cluster(s3_server, 2) as cluster:
        of_head, of_lost, of_other = cluster.count(f"{root.prefix}/shards/").values()
        command = (sys.executable, "-c", FLOW, source, root.uri)
        flow = cluster.start_on_head(*command, stdout=log, stderr=subprocess.STDOUT, env=IMPATIENT)
        wait_for(lambda: flow.poll() is not None or of_lost.requests, output, pause=0.01)
        lost = cluster.workers[0]
        lost.cut()
        assert flow.wait(HANG_SECONDS) == 0, output()

        (key,) = [line.split()[1] for line in output().splitlines() if line.startswith("key ")]
        store = open_store(root.uri)
        assert store.load("shards", key).digest == digest_of(tmp_path / "local")
        sent = {
            asked.path.rpartition("/")[2] for asked in of_other.requests if asked.method == "PUT"
        }
        assert len(sent) > NUM_SHARDS, "one host has uploaded most of the shards"
        assert not [
            asked
            for asked in of_head.requests
            if asked.method in ("GET", "PUT") and ".mindrecord" in asked.path
        ], "no shard has come to the host of the flow"

        before = {each.key: (each.etag, each.modified) for each in Bucket(root.uri).list("")}
        lost.mend()
        time.sleep(SECONDS_TO_COME_BACK)
        after = {each.key: (each.etag, each.modified) for each in Bucket(root.uri).list("")}
    assert after == before
    assert store.verify("shards", key) == ()
