"""Manifests that were written to do harm are refused in one line, at once, in little memory."""

import resource
import subprocess
import sys
import time

import pytest
from artifact_examples import commit, make_spec, reseal

from infra.artifacts import LocalStore, StoreError
from infra.artifacts.documents import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_VALUES

KEY = make_spec().key
GIB = 2**30


def entry(**change):
    return {"path": "a", "size": 1, "sha256": "0" * 64, **change}


def refusal(store: LocalStore, document: bytes) -> str:
    """Return why the store refuses an artifact with this manifest."""
    artifact = commit(store)
    (artifact.directory / "manifest.json").write_bytes(document)
    (damage,) = store.verify("shards", KEY, level="size")
    assert (damage.problem, damage.path) == ("manifest", "manifest.json")
    assert "\n" not in str(damage)
    assert len(str(damage)) < 500
    with pytest.raises(StoreError):
        store.load("shards", KEY)
    assert store.get(make_spec()) is None
    return damage.detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": [entry(path="../a")]}, "plain relative"),
        ({"files": [entry(path="/etc/passwd")]}, "plain relative"),
        ({"files": [entry(path="a/../../b")]}, "plain relative"),
        ({"files": [entry(path="a\\b")]}, "backslash"),
        ({"files": [entry(path="a\x1b[2J")]}, "don't print"),
        ({"files": [entry(path="manifest.json")]}, "store's own"),
        ({"files": [entry(), entry()]}, "each named once"),
        ({"files": [entry(path="b"), entry()]}, "sorted by path"),
        ({"files": [entry(size=2**63)]}, "less than"),
        ({"files": [entry(size=-1)]}, "greater than"),
        ({"files": [entry(size=True)]}, "valid integer"),
        ({"files": [entry(size=1.0)]}, "valid integer"),
        ({"files": [entry(size=10**4000)]}, "less than"),
        ({"files": [entry(mode=0o777)]}, "Extra inputs"),
        ({"files": {"a": 1}}, "valid array"),
        ({"files": None}, "valid array"),
        ({"format_version": 2**63}, "less than"),
        ({"format_version": 2}, "key is"),
        ({"inputs": {str(n): "0" * 64 for n in range(1001)}}, "has 1001 entries"),
        ({"kind": "../../etc"}, "match pattern"),
        ({"key": "../../etc"}, "match pattern"),
        ({"stats": {"loss": float("nan")}}, "not JSON compliant"),
        ({"schema": 2}, "1 unknown fields, first 'schema'"),
        ({"x" * 10**6: 1}, "1 unknown fields"),
    ],
)
def test_a_sealed_manifest_with_hostile_values_is_refused(store, change, message):
    assert message in refusal(store, reseal(commit(store).manifest.encode(), **change))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "Invalid JSON"),
        (b"null\n", "no JSON object"),
        (b"[" * 10**5, "recursion"),
        (b'{"a":' * 10**5, "recursion"),
        (b"{" * (MAX_DOCUMENT_VALUES + 1), f"at most {MAX_DOCUMENT_VALUES}"),
        (b'{"size": ' + b"9" * 5000 + b"}", "Invalid JSON"),
        (b'{\n "a": 1e999\n}\n', "Invalid JSON"),
        (b'{\n "a": "\\ud800"\n}\n', "Invalid JSON"),
        (b'{\n "a": 1,\n "a": 1\n}\n', "unknown fields"),
        ('{"a": 1}'.encode("utf-16"), "Invalid JSON"),
    ],
)
def test_a_manifest_that_is_hostile_json_is_refused(store, document, message):
    assert message in refusal(store, document)


def test_a_field_given_twice_is_refused(store):
    document = commit(store).manifest.encode()
    twice = document.replace(b'{\n "checksum"', b'{\n "kind": "shards",\n "checksum"', 1)
    assert "written otherwise" in refusal(store, twice)


def test_100_mb_of_json_are_refused_unread(store):
    directory = commit(store).directory
    (directory / "manifest.json").write_bytes(b" " * 100 * 2**20)
    began = time.perf_counter()
    (damage,) = store.verify("shards", KEY, level="size")
    assert f"expected at most {MAX_DOCUMENT_BYTES}" in damage.detail
    assert time.perf_counter() - began < 1


def test_an_artifact_whose_files_are_links_to_elsewhere_is_damaged(store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"zero")
    path = commit(store).path("shards/0.bin")
    path.unlink()
    path.symlink_to(secret)
    (damage,) = store.verify("shards", KEY)
    assert (damage.problem, damage.path) == ("type", "shards/0.bin")


COSTLY = {
    "values in place of files": {"files": [1] * (MAX_DOCUMENT_VALUES - 50)},
    "files without end": {"files": [entry()] * (MAX_DOCUMENT_VALUES // 4 - 50)},
    "params without end": {"params": {"a": [[]] * (MAX_DOCUMENT_VALUES // 2 - 50)}},
    "wrong inputs": {"inputs": {str(n): 1 for n in range(MAX_DOCUMENT_VALUES - 50)}},
}
DECODE = """
import resource, sys
from pathlib import Path
from infra.artifacts import Manifest, StoreError
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
try:
    Manifest.decode(Path(sys.argv[1]).read_bytes())
except StoreError as error:
    print((peak() - before) * 1024, str(error)[:300])
"""


@pytest.mark.parametrize(
    "name",
    [
        "files without end",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in sorted(COSTLY.keys() - {"files without end"})
        ),
    ],
)
def test_the_largest_document_that_is_parsed_costs_little_memory(store, tmp_path, name):
    path = tmp_path / "document.json"
    path.write_bytes(reseal(commit(store).manifest.encode(), **COSTLY[name]))
    done = subprocess.run(
        [sys.executable, "-c", DECODE, path],
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 * GIB, 2 * GIB)),
    )
    assert done.returncode == 0, done.stderr
    peak, message = done.stdout.split(maxsplit=1)
    assert int(peak) < GIB // 2
    assert message.count("\n") == 1
