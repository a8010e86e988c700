"""Every flipped bit of an artifact or a ref is found."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from artifact_examples import FILES, commit, make_spec, read_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.artifacts import LocalStore, Manifest, StoreError
from infra.artifacts.refs import RefDocument

# Values that JSON can write in several ways, so that a flip may give the same value.
STATS = {
    "small": 1e-05,
    "large": 1e300,
    "text": "é \x1f \\ \U0001f600",
    "nested": {"list": [0.5, None, True], "empty": {}},
}


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def every_flip(content: bytes) -> Iterator[bytes]:
    return (flipped(content, bit) for bit in range(8 * len(content)))


def put(store: LocalStore, source: Path):
    for name, content in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    provenance = {"created": datetime(2026, 1, 1).isoformat(), "host": "h"}
    return store.put(make_spec(), source, stats=STATS, provenance=provenance)


def test_every_flipped_bit_of_a_manifest_is_refused(store, tmp_path):
    document = put(store, tmp_path / "source").manifest.encode()
    Manifest.decode(document)
    for spoilt in every_flip(document):
        with pytest.raises(StoreError):
            Manifest.decode(spoilt)


def test_every_flipped_bit_of_a_ref_is_refused(store):
    manifest = commit(store).manifest
    first = store.refs.set("production", manifest, expected=None, reason="first \x1f")
    store.refs.set("production", manifest, expected=first, reason="second")
    document = (store.root / "refs" / "production.json").read_bytes()
    RefDocument.decode(document)
    for spoilt in every_flip(document):
        with pytest.raises(StoreError):
            RefDocument.decode(spoilt)


def test_every_flipped_bit_of_every_file_is_named(store, tmp_path):
    artifact = put(store, tmp_path / "source")
    for name, content in FILES.items():
        for spoilt in every_flip(content):
            artifact.path(name).write_bytes(spoilt)
            (damage,) = store.verify("shards", make_spec().key)
            assert (damage.problem, damage.path) == ("sha256", name)
        artifact.path(name).write_bytes(content)
    assert store.verify("shards", make_spec().key) == ()


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from([*FILES, "manifest.json"]), st.integers(min_value=0))
def test_a_flipped_bit_anywhere_is_named_and_repaired_by_a_rebuild(store, tmp_path, name, bit):
    path = put(store, tmp_path / "source").directory / name
    path.write_bytes(flipped(path.read_bytes(), bit % (8 * path.stat().st_size)))
    (damage,) = store.verify("shards", make_spec().key, level="full")
    assert damage.path == name
    assert store.lookup(make_spec(), level="full").damages == (damage,)
    assert read_files(put(store, tmp_path / "source")) == FILES
    assert store.verify("shards", make_spec().key, level="full") == ()


def test_a_flipped_bit_in_a_stored_ref_is_reported_in_one_line(store):
    manifest = commit(store).manifest
    store.refs.set("production", manifest, expected=None, reason="first")
    path = store.root / "refs" / "production.json"
    path.write_bytes(path.read_bytes().replace(b"first", b"fIrst"))
    with pytest.raises(StoreError, match=r"ref 'production' is not valid: .*checksum is") as caught:
        store.refs.get("production")
    assert "\n" not in str(caught.value)
