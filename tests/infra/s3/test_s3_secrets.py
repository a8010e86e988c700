"""Keys, tokens and signatures appear in no log, no message and no representation."""

import itertools
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.s3 import ABSENT, Bucket, Limits, Prefix, S3Error
from infra.s3.errors import redacted
from infra.s3.server import RunningServer
from tests.fault_proxy import Fault, running_proxy

TOKEN = "session-token-that-nobody-may-see"


def test_failing_calls_show_no_secret_at_debug_level(
    s3_server: RunningServer,
    s3_bucket_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    uri = f"s3://{s3_bucket_name}/secrets"
    limits = Limits(attempt_seconds=2)
    caplog.set_level(logging.DEBUG)
    for name in ("boto3", "botocore", "s3transfer", "urllib3"):
        caplog.set_level(logging.DEBUG, logger=name)
    with running_proxy(s3_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://user:password@127.0.0.1:{proxy.port}")

        def disturbed(fault: Fault | None) -> list[str]:
            bucket = Bucket(f"{uri}-{fault}", budget=0.3, limits=limits)
            proxy.inject(f"secrets-{fault}", fault, lasting=True)
            return [repr(bucket), *failing(bucket, tmp_path)]

        with ThreadPoolExecutor() as pool:
            shown = [*itertools.chain(*pool.map(disturbed, (None, *Fault)))]
        monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
        shown += failing(Bucket(uri, budget=0.3, limits=limits), tmp_path)
        with pytest.raises(S3Error) as refused:
            Prefix(uri)
        shown.append(str(refused.value))
    everything = "\n".join([*shown, caplog.text, *map(repr, caplog.records)])
    # The test is worth something only if botocore logged, and calls failed.
    assert "botocore" in {record.name.partition(".")[0] for record in caplog.records}
    assert len(shown) > len(Fault)
    for secret in (s3_server.secret_key, TOKEN, "password"):
        assert secret not in everything
    assert not re.search(r"(?i)signature[=:]\s*[0-9a-f]{8}|\b[0-9a-f]{64}\b", everything)


def failing(bucket: Bucket, directory: Path) -> list[str]:
    """Return every text of the errors of some calls."""
    texts = []
    calls = (
        lambda: bucket.get("key", max_bytes=10),
        lambda: bucket.put("key", b"content", expected=ABSENT),
        lambda: bucket.upload(directory / "file", "key", size=1, sha256="00" * 31, expected=ABSENT),
    )
    for call in calls:
        try:
            call()
        except S3Error as error:
            texts += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    return texts


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: AWS4-HMAC-SHA256 Credential=AK/20261125, Signature=5ec2e7",
        "https://bucket.s3.amazonaws.com/key?X-Amz-Security-Token=5ec2e7&X-Amz-Expires=60",
        "GET /key?X-Amz-Signature=5ec2e7 failed",
        'Could not connect to the endpoint URL: "http://user:5ec2e7@host:1/bucket"',
        "x-amz-security-token:5ec2e7\nhost:x",
    ],
)
def test_messages_of_libraries_are_shown_without_secrets(text: str) -> None:
    assert "5ec2e7" not in redacted(text)
    assert "\n" not in redacted(text)
