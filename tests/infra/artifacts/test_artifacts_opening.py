"""A URI opens a store, or is refused in one line that says why."""

from pathlib import Path

import pytest
from artifact_examples import make_spec, write_files

from infra.artifacts import (
    Artifact,
    ArtifactStore,
    LocalStore,
    StoreError,
    absolute_uri,
    default_store,
    open_store,
)
from tests.store_roots import S3Root


def opened_root(uri: str) -> Path:
    store = open_store(uri)
    assert isinstance(store, LocalStore)
    assert list(store.root.iterdir()) == []
    return store.root


def test_a_plain_path_a_relative_one_and_a_file_uri_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert opened_root(str(tmp_path / "a/b")) == tmp_path / "a/b"
    assert opened_root("c") == tmp_path / "c"
    assert opened_root("./d:e") == tmp_path / "d:e"
    assert opened_root("f#?%20") == tmp_path / "f#?%20"
    assert opened_root(f"file://{tmp_path}/g%20h") == tmp_path / "g h"


def test_another_process_finds_a_store_by_its_absolute_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for uri in ("artifacts", "./artifacts", f"file://{tmp_path}/artifacts"):
        assert absolute_uri(uri) == str(tmp_path / "artifacts")
    assert absolute_uri("s3://bucket/prefix") == "s3://bucket/prefix"
    with pytest.raises(StoreError, match="unknown form"):
        absolute_uri("http://host")


def test_the_environment_chooses_the_store_of_flows_that_are_not_given_one(monkeypatch):
    assert default_store() == "artifacts"
    monkeypatch.setenv("SKNET_STORE", "s3://bucket/runs")
    assert default_store() == "s3://bucket/runs"
    monkeypatch.setenv("SKNET_STORE", "")  # as compose passes a variable that isn't set
    assert default_store() == "artifacts"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://", "is not an S3 location, expected s3://bucket/prefix"),
        ("http://host/x", "expected file:///abs/path, s3://bucket/prefix or a plain path"),
        ("file://host/x", "unknown form"),
        ("file:x", "unknown form"),
        ("C:\\store", "unknown form"),
        ("", "is no path"),
        ("a\0b", "is no path"),
        ("file:///a%00b", "is no path"),
        ("/proc/sknet-store", "can't be created or written"),
    ],
)
def test_a_uri_is_refused_in_one_line(uri, message):
    with pytest.raises(StoreError) as caught:
        open_store(uri)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("below", ["", "/store"])
def test_a_root_at_or_below_a_regular_file_is_refused(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be created or written"):
        open_store(f"{tmp_path}/file{below}")


@pytest.mark.parametrize("name", ["absent", "n" * 300])
def test_a_store_to_look_into_is_not_created(tmp_path, name):
    with pytest.raises(StoreError, match="does not exist"):
        open_store(str(tmp_path / name), create=False)
    assert list(tmp_path.iterdir()) == []


NOWHERE = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": None}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, "nonsense"),
    ],
)
def test_wrong_settings_of_s3_are_refused_in_one_line(monkeypatch, change, message):
    for name, value in {**NOWHERE, **change}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=r"^store 's3://bucket/x' can't be used: ") as caught:
        open_store("s3://bucket/x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bucket_has_to_be_there(s3_server):
    with pytest.raises(StoreError, match=r"NoSuchBucket.*create the bucket"):
        open_store("s3://no-such-bucket/x")


@pytest.mark.parametrize("variable", ["SKNET_CACHE_GB", "SKNET_ON_DEMAND_GB"])
@pytest.mark.parametrize("text", ["", "many", "-1", "nan", "1e3"])
def test_a_limit_that_is_no_number_is_refused(s3_server, monkeypatch, tmp_path, variable, text):
    monkeypatch.setenv(variable, text)
    with pytest.raises(StoreError, match=f"{variable} is '{text}', expected a number"):
        open_store(S3Root(tmp_path).uri)


def test_copies_of_a_store_on_s3_are_where_the_setting_says(s3_server, monkeypatch, tmp_path):
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SKNET_CACHE_GB", "0.5")
    store = open_store(S3Root(tmp_path).uri)
    artifact = commit(store, write_files(tmp_path / "source"))
    assert artifact.directory.is_relative_to(tmp_path / "cache")


def commit(store: ArtifactStore, directory: Path) -> Artifact:
    return store.put(make_spec(), directory, stats={}, provenance={})
