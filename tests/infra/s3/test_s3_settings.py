"""The settings of a bucket for artifacts, some of them applied to a real server."""

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters

import infra
import infra.s3
from infra.s3.server import RunningServer

SETTINGS = Path(infra.s3.__file__).with_name("settings")
BUCKET = "settings"

# Permissions that each request needs, from AWS's documentation.
ACTIONS = {
    "AbortMultipartUpload": {"s3:AbortMultipartUpload"},
    "CompleteMultipartUpload": {"s3:PutObject"},
    "CopyObject": {"s3:GetObject", "s3:PutObject"},
    "CreateMultipartUpload": {"s3:PutObject"},
    "DeleteObject": {"s3:DeleteObject"},
    "DeleteObjects": {"s3:DeleteObject"},
    "GetObject": {"s3:GetObject"},
    "HeadObject": {"s3:GetObject"},
    "ListMultipartUploads": {"s3:ListBucketMultipartUploads"},
    "ListObjectsV2": {"s3:ListBucket"},
    "PutObject": {"s3:PutObject"},
    "UploadPart": {"s3:PutObject"},
    "UploadPartCopy": {"s3:GetObject", "s3:PutObject"},
}
# For each setting, the operation that sets it, and the name of its parameter.
OPERATIONS = {
    "public-access-block": ("PutPublicAccessBlock", "PublicAccessBlockConfiguration"),
    "versioning": ("PutBucketVersioning", "VersioningConfiguration"),
    "lifecycle": ("PutBucketLifecycleConfiguration", "LifecycleConfiguration"),
}


def setting(name: str, prefix: str = "store") -> dict[str, Any]:
    text = (SETTINGS / f"{name}.json").read_text()
    return json.loads(text.replace("BUCKET", BUCKET).replace("PREFIX", prefix))


def requests_of_the_code() -> set[str]:
    """Return every operation of S3 that occurs in the code."""
    source = "\n".join(path.read_text() for path in SETTINGS.parent.glob("*.py"))
    source = source.replace((SETTINGS.parent / "server.py").read_text(), "")
    model = boto3.client("s3", region_name="us-east-1").meta
    named = {
        operation
        for method, operation in model.method_to_api_mapping.items()
        if f".{method}(" in source or f".{method}\n" in source or f'"{method}"' in source
    }
    assert "PutObject" in named
    return named


def test_the_policy_allows_the_requests_of_the_code_and_no_others():
    allowed = {action for rule in setting("iam-policy")["Statement"] for action in rule["Action"]}
    needed = set().union(*(ACTIONS[name] for name in requests_of_the_code()))
    assert allowed == needed


def test_the_page_on_artifacts_names_every_request_of_the_code():
    page = (Path(infra.__path__[0]).parent / "docs/artifacts.md").read_text("utf-8")
    table = page.partition("\n## Servers\n")[2].partition("\n\nNo request carries")[0]
    named = set(re.findall(r"[A-Z][A-Za-z]+V?2?", table)) & ACTIONS.keys()
    assert named == requests_of_the_code()


def test_the_policy_allows_no_other_prefix():
    for rule in setting("iam-policy", "my/store")["Statement"]:
        assert rule["Effect"] == "Allow"
        within = rule.get("Condition", {"": rule["Resource"]})
        assert "my/store/*" in json.dumps(within)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_setting_has_the_form_that_the_api_takes(name):
    operation, parameter = OPERATIONS[name]
    shape = boto3.client("s3", region_name="us-east-1").meta.service_model.operation_model(
        operation
    )
    validate_parameters({"Bucket": BUCKET, parameter: setting(name)}, shape.input_shape)


def test_a_server_accepts_the_settings_and_then_refuses_requests_without_tls(
    s3_server: RunningServer,
) -> None:
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="x", Body=b"1")
    for name in ("versioning", "lifecycle"):
        operation, parameter = OPERATIONS[name]
        (method,) = [m for m, o in client.meta.method_to_api_mapping.items() if o == operation]
        getattr(client, method)(Bucket=BUCKET, **{parameter: setting(name)})
    client.put_object(Bucket=BUCKET, Key="x", Body=b"2")
    versions = client.list_object_versions(Bucket=BUCKET, Prefix="x")["Versions"]
    assert len(versions) == 2

    client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(setting("bucket-policy")))
    with pytest.raises(ClientError, match="AccessDenied"):
        client.get_object(Bucket=BUCKET, Key="x")
