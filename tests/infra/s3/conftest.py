"""A new prefix for each test, in one bucket of the session's server."""

import itertools

import boto3
import pytest

from infra.s3 import Bucket, Limits
from infra.s3.server import RunningServer

# The smallest parts that S3 allows: 11,000,000 bytes are sent in three.
SMALL = Limits(part_bytes=5 << 20, copied_bytes=5 << 20)
_prefixes = itertools.count(1)


@pytest.fixture(scope="session")
def s3_bucket_name(s3_server: RunningServer) -> str:
    name = "objects"
    boto3.session.Session().client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def location(s3_bucket_name: str) -> str:
    return f"s3://{s3_bucket_name}/test-{next(_prefixes)}"


@pytest.fixture
def bucket(location: str) -> Bucket:
    return Bucket(location, budget=20, limits=SMALL)
