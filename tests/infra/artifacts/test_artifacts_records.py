"""Keys, digests and manifests."""

import hashlib
import json
import math

import pytest
from artifact_examples import make_spec, reseal
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.artifacts import ArtifactSpec, FileEntry, Manifest, StoreError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT
)
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXT, v, max_size=3), max_leaves=8
)
PARAMS = st.dictionaries(TEXT, VALUES, max_size=4)


def with_params(params: dict) -> ArtifactSpec:
    return ArtifactSpec(kind="shards", format_version=1, params=params, inputs={})


def reversed_order(value):
    if isinstance(value, dict):
        return {name: reversed_order(value[name]) for name in reversed(value)}
    return [reversed_order(each) for each in value] if isinstance(value, list) else value


def test_the_key_is_sha256_of_sorted_json_without_white_space():
    spec = ArtifactSpec(
        kind="shards", format_version=2, params={"b": [1, 0.5], "a": "é"}, inputs={"x": "f" * 64}
    )
    text = (
        '{"format_version":2,"inputs":{"x":"' + "f" * 64 + '"},'
        '"kind":"shards","params":{"a":"é","b":[1,0.5]}}'
    )
    assert spec.key == hashlib.sha256(text.encode()).hexdigest()


@given(PARAMS)
def test_the_order_of_params_does_not_change_the_key(params):
    assert with_params(reversed_order(params)).key == with_params(params).key


@given(PARAMS, TEXT, LEAVES, LEAVES)
def test_any_changed_value_changes_the_key(params, name, one, other):
    assume(type(one) is not type(other) or one != other)
    assert with_params({**params, name: one}).key != with_params({**params, name: other}).key


@given(PARAMS)
def test_the_key_survives_a_json_round_trip(params):
    spec = with_params(params)
    assert ArtifactSpec.model_validate_json(spec.encode()).key == spec.key


def test_kind_version_and_inputs_change_the_key():
    base = {"kind": "shards", "format_version": 1, "params": {}, "inputs": {"a": "0" * 64}}
    changes = [
        {},
        {"kind": "index"},
        {"format_version": 2},
        {"inputs": {"b": "0" * 64}},
        {"inputs": {"a": "1" * 64}},
    ]
    assert len({ArtifactSpec(**{**base, **change}).key for change in changes}) == len(changes)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Shards"},
        {"kind": "../x"},
        {"kind": "x\n"},
        {"kind": "refs"},
        {"kind": "x" * 65},
        {"format_version": 0},
        {"format_version": True},
        {"params": {"x": math.nan}},
        {"params": {"x": math.inf}},
        {"params": {"x": "\ud800"}},
        {"params": {"x": (1,)}},
        {"params": {"x": {1: 2}}},
        {"inputs": {"x": "F" * 64}},
        {"inputs": {"\ud800": "f" * 64}},
        {"time": 1},
    ],
)
def test_a_spec_refuses(change):
    base = {"kind": "shards", "format_version": 1, "params": {}, "inputs": {}}
    with pytest.raises(ValidationError):
        ArtifactSpec(**{**base, **change})


SEGMENT = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\"), min_size=1, max_size=6
).filter(lambda segment: segment not in (".", ".."))


def entry(path: str, size: int = 0) -> FileEntry:
    return FileEntry(path=path, size=size, sha256="0" * 64)


@given(st.lists(SEGMENT, min_size=1, max_size=3))
def test_a_plain_relative_path_is_accepted(segments):
    path = "/".join(segments)
    assume(path != "manifest.json")
    assert entry(path).path == path


@given(
    st.lists(SEGMENT, max_size=2),
    st.sampled_from(["..", ".", "", "a\\b", "a\0", "a\n", "a\x1b[2J"]),
    st.lists(SEGMENT, max_size=2),
)
def test_a_path_with_a_bad_segment_is_refused(before, bad, after):
    with pytest.raises(ValidationError):
        entry("/".join([*before, bad, *after]))


@pytest.mark.parametrize("path", ["/etc/passwd", "manifest.json", "a/", "//a", "a//b", "./a"])
def test_a_path_is_refused(path):
    with pytest.raises(ValidationError):
        entry(path)


def make_manifest() -> Manifest:
    return Manifest.describe(
        make_spec(), [entry("b", 2), entry("a", 1)], stats={"n": 2}, provenance={"host": "h"}
    )


def test_the_digest_is_sha256_over_sorted_path_size_and_sha256():
    text = json.dumps([["a", 1, "0" * 64], ["b", 2, "0" * 64]], separators=(",", ":"))
    assert make_manifest().digest == hashlib.sha256(text.encode()).hexdigest()


def test_stats_and_provenance_change_neither_key_nor_digest():
    other = Manifest.describe(
        make_spec(), make_manifest().files, stats={"n": 3}, provenance={"host": "i"}
    )
    assert (other.key, other.digest) == (make_manifest().key, make_manifest().digest)


def test_a_manifest_is_stable_readable_json():
    encoded = make_manifest().encode()
    document = json.loads(encoded)
    assert encoded.decode() == json.dumps(document, indent=1, sort_keys=True) + "\n"
    fields = {"kind", "key", "format_version", "params", "inputs", "files", "digest"}
    assert set(document) == fields | {"stats", "provenance", "checksum"}
    assert Manifest.decode(encoded) == make_manifest()
    assert make_manifest().spec == make_spec()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "1" * 64}, "key is"),
        ({"digest": "1" * 64}, "digest is"),
        ({"params": {"seed": 1}}, "key is"),
        ({"kind": "other"}, "key is"),
        ({"files": []}, "digest is"),
        ({"files": [{"path": "a", "size": 1, "sha256": "0" * 64}] * 2}, "sorted by path"),
        ({"files": [{"path": "../a", "size": 1, "sha256": "0" * 64}]}, "plain relative"),
        ({"files": [{"path": "a", "size": -1, "sha256": "0" * 64}]}, "greater than"),
        ({"files": [{"path": "a", "size": "1", "sha256": "0" * 64}]}, "valid integer"),
        ({"files": [{"path": "a", "size": 1, "sha256": "A" * 64}]}, "match pattern"),
        ({"stats": {"loss": math.nan}}, "JSON compliant"),
        ({"stats": [1]}, "be an object"),
        ({"author": "me"}, "1 unknown fields"),
        ({"format_version": 1.0}, "valid integer"),
    ],
)
def test_a_stored_manifest_is_refused(change, message):
    with pytest.raises(StoreError, match=message) as caught:
        Manifest.decode(reseal(make_manifest().encode(), **change))
    assert "\n" not in str(caught.value)


def test_a_manifest_with_a_missing_field_is_refused():
    document = json.loads(make_manifest().encode())
    for name in set(document) - {"checksum"}:
        partial = {key: value for key, value in document.items() if key != name}
        with pytest.raises(StoreError, match="Field required"):
            Manifest.decode(reseal(json.dumps(partial).encode()))


def test_a_manifest_without_a_checksum_is_refused():
    document = json.loads(make_manifest().encode())
    del document["checksum"]
    with pytest.raises(StoreError, match="checksum is 'None'"):
        Manifest.decode(json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


def test_the_checksum_is_sha256_over_the_canonical_json_of_the_other_fields():
    document = json.loads(make_manifest().encode())
    checksum = document.pop("checksum")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert checksum == hashlib.sha256(text.encode()).hexdigest()


def test_an_input_or_a_parameter_that_a_manifest_does_not_have_is_named():
    spec = ArtifactSpec(
        kind="shards", format_version=1, params={"number": 4}, inputs={"dataset": "f" * 64}
    )
    entry = FileEntry(path="file", size=1, sha256="a" * 64)
    manifest = Manifest.describe(spec, (entry,), stats={}, provenance={})
    assert (manifest.made_from("dataset"), manifest.made_with("number")) == ("f" * 64, 4)
    for missing in (manifest.made_from, manifest.made_with):
        with pytest.raises(StoreError, match=f"^shards/{spec.key} does not say its colour: "):
            missing("colour")
