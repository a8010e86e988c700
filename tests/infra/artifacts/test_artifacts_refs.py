"""Refs move by compare-and-swap and keep their history."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from artifact_examples import commit, make_spec, reseal

from infra.artifacts import LocalStore, Manifest, RefConflictError, StoreError


@pytest.fixture
def manifests(store: LocalStore) -> list[Manifest]:
    return [commit(store, make_spec(seed)).manifest for seed in range(3)]


def test_a_ref_points_to_an_artifact_with_a_reason(store, manifests):
    assert store.refs.get("production") is None
    ref = store.refs.set("production", manifests[0], expected=None, reason="first")
    assert store.refs.get("production") == ref
    assert (ref.version, ref.kind, ref.key, ref.digest, ref.reason) == (
        1,
        "shards",
        manifests[0].key,
        manifests[0].digest,
        "first",
    )
    assert abs(datetime.now(UTC) - ref.time) < timedelta(minutes=1)
    assert store.load(ref.kind, ref.key).digest == ref.digest


def test_history_keeps_every_entry_oldest_first(store, manifests):
    ref = None
    entries = []
    for manifest in manifests:
        ref = store.refs.set("production", manifest, expected=ref, reason="better")
        entries.append(ref)
    assert store.refs.history("production") == tuple(entries)
    assert [entry.version for entry in entries] == [1, 2, 3]
    assert store.refs.history("absent") == ()


def test_the_document_shows_the_present_entry_on_top(store, manifests):
    first = store.refs.set("production", manifests[0], expected=None, reason="first")
    store.refs.set("production", manifests[1], expected=first, reason="second")
    document = json.loads((store.root / "refs" / "production.json").read_bytes())
    assert (document["version"], document["key"]) == (2, manifests[1].key)
    assert [entry["key"] for entry in document["history"]] == [manifests[0].key]
    assert document["time"].endswith("Z")


def test_a_ref_that_moved_meanwhile_is_not_overwritten(store, manifests):
    first = store.refs.set("production", manifests[0], expected=None, reason="first")
    second = store.refs.set("production", manifests[1], expected=first, reason="second")
    for stale in (None, first):
        with pytest.raises(RefConflictError, match=r"is at version 2 .*expected") as caught:
            store.refs.set("production", manifests[2], expected=stale, reason="late")
        assert "\n" not in str(caught.value)
    with pytest.raises(RefConflictError, match="is at no entry"):
        store.refs.set("other", manifests[2], expected=first, reason="never was")
    assert store.refs.get("production") == second


def test_each_move_has_an_id_of_its_own(store, manifests):
    one = store.refs.set("one", manifests[0], expected=None, reason="first")
    other = store.refs.set("other", manifests[0], expected=None, reason="first")
    assert one.id != other.id
    with pytest.raises(RefConflictError):
        store.refs.set("one", manifests[1], expected=other, reason="another's entry")


def test_a_target_is_marked_as_suspect_and_unmarked_without_a_move(store, manifests):
    sound = store.refs.set("production", manifests[0], expected=None, reason="first")
    marked = store.refs.set(
        "production", sound, expected=sound, reason="checked", suspect="one bit differs"
    )
    again = store.refs.set("production", marked, expected=marked, reason="checked again")
    assert [ref.suspect for ref in (sound, marked, again)] == [None, "one bit differs", None]
    assert {(ref.kind, ref.key, ref.digest) for ref in (sound, marked, again)} == {
        ("shards", manifests[0].key, manifests[0].digest)
    }
    assert store.refs.history("production") == (sound, marked, again)
    with pytest.raises(RefConflictError):
        store.refs.set("production", sound, expected=sound, reason="late", suspect="late")


def test_the_mark_is_part_of_the_sealed_document(store, manifests):
    sound = store.refs.set("production", manifests[0], expected=None, reason="first")
    store.refs.set("production", sound, expected=sound, reason="checked", suspect="doubt")
    path = store.root / "refs" / "production.json"
    path.write_bytes(path.read_bytes().replace(b'"suspect": "doubt"', b'"suspect": null'))
    with pytest.raises(StoreError, match="checksum"):
        store.refs.get("production")


def test_a_suspect_target_needs_a_reason(store, manifests):
    with pytest.raises(StoreError, match="suspect"):
        store.refs.set("production", manifests[0], expected=None, reason="first", suspect="")


def test_names_are_sorted(store, manifests):
    assert store.refs.names() == ()
    for name in ("production", "best.top-1", "Last_good"):
        store.refs.set(name, manifests[0], expected=None, reason="first")
    assert store.refs.names() == ("Last_good", "best.top-1", "production")


@pytest.mark.parametrize("name", ["", ".hidden", "../x", "a/b", "a\n", "a b", "x" * 101])
def test_a_name_is_refused(store, manifests, name):
    with pytest.raises(StoreError, match="no ref can be called"):
        store.refs.get(name)
    with pytest.raises(StoreError, match="no ref can be called"):
        store.refs.set(name, manifests[0], expected=None, reason="first")


@pytest.mark.parametrize("reason", ["", "\ud800"])
def test_a_reason_is_required(store, manifests, reason):
    with pytest.raises(StoreError, match="reason"):
        store.refs.set("production", manifests[0], expected=None, reason=reason)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": 0},
        {"key": "../../etc"},
        {"kind": ".."},
        {"history": None},
        {"time": "2026-01-01T00:00:00"},
        {"id": "0" * 31},
        {"author": "me"},
    ],
)
def test_a_stored_document_is_refused(store, manifests, change):
    store.refs.set("production", manifests[0], expected=None, reason="first")
    path = store.root / "refs" / "production.json"
    path.write_bytes(reseal(path.read_bytes(), **change))
    for read in (store.refs.get, store.refs.history):
        with pytest.raises(StoreError, match="ref 'production' is not valid") as caught:
            read("production")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spoil", [Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_document_that_is_no_file_is_refused(store, spoil):
    (store.root / "refs").mkdir()
    spoil(store.root / "refs" / "production.json")
    with pytest.raises(StoreError, match="not a regular file"):
        store.refs.get("production")
