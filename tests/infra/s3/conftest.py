"""A bucket of its own for each test, on the session's server."""

import itertools

import boto3
import pytest

from infra.s3 import Bucket, Limits
from infra.s3.server import RunningServer

# Parts of the least size that S3 allows: 11,000,000 bytes travel in three.
SMALL = Limits(part_bytes=5 << 20, copied_bytes=5 << 20)
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def s3_bucket_name(s3_server: RunningServer) -> str:
    name = "objects"
    boto3.session.Session().client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def location(s3_bucket_name: str) -> str:
    return f"s3://{s3_bucket_name}/test-{next(_numbers)}"


@pytest.fixture
def bucket(location: str) -> Bucket:
    return Bucket(location, budget=20, limits=SMALL)
