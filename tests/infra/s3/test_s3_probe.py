"""What the probe finds out about servers that differ from AWS."""

import pytest

from infra.s3 import Bucket, Profile
from infra.s3.server import RunningServer
from tests.s3_imitations import IMITATIONS, PROFILES, imitating


@pytest.mark.parametrize("name", IMITATIONS)
def test_the_probe_finds_out_what_a_server_does(
    name: str, bucket: Bucket, s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with imitating(IMITATIONS[name], s3_server) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        profile = bucket.probe()
        assert profile == PROFILES[name]
        assert list(bucket.list("")) == []
    assert Profile.model_validate_json(profile.encode()) == profile
