"""What garbage collection keeps, and why; and what it removes."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from artifact_examples import CONTEXT, another_process, commit, make_spec, write_files
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.artifacts import ArtifactSpec, FileEntry, LocalStore, Manifest, StoreError
from infra.artifacts.gc import Stored, collect, plan, survey
from infra.artifacts.refs import next_document

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LONG_AGO, SINCE = NOW - timedelta(days=90), NOW - timedelta(days=30)


def stored(name: str, *inputs: Stored, used: datetime = LONG_AGO, **params: str) -> Stored:
    spec = ArtifactSpec(
        kind="k",
        format_version=1,
        params={"name": name, **params},
        inputs={str(n): made.manifest.digest for n, made in enumerate(inputs)},
    )
    entry = FileEntry(path=name, size=1, sha256="0" * 64)
    return Stored(Manifest.describe(spec, [entry], stats={}, provenance={}), used)


def kept_names(artifacts, refs=None, held=()) -> list[str]:
    planned = plan(artifacts, refs or {}, held, unused_since=SINCE)
    names = {artifact.address: artifact.manifest.params["name"] for artifact in artifacts}
    gone = {artifact.address for artifact in planned.garbage}
    assert planned.kept.keys() | gone == names.keys()
    assert not planned.kept.keys() & gone
    return sorted(names[address] for address in planned.kept)


DATA, OTHER_DATA = stored("data"), stored("other-data")
RUN, OLD_RUN = stored("run", DATA), stored("old-run", OTHER_DATA)
EVALUATION = stored("evaluation", RUN, OTHER_DATA)
LOG = stored("log", run=RUN.manifest.key)
ALL = [DATA, OTHER_DATA, RUN, OLD_RUN, EVALUATION, LOG]


def history(*targets: Stored):
    document = None
    for target in targets:
        expected = document.current if document else None
        document = next_document(
            "x", document, target.manifest, expected=expected, reason="r", suspect=None
        )
    return document.entries


def test_what_is_old_and_not_referred_to_is_garbage():
    assert kept_names(ALL) == []


def test_what_was_used_lately_stays_with_all_it_was_made_from():
    recent = stored("recent", RUN, used=SINCE)
    assert kept_names([*ALL, recent]) == ["data", "recent", "run"]


def test_the_target_of_a_ref_stays_with_what_was_made_from_it_and_what_each_was_made_from():
    everything_but_the_old_run = ["data", "evaluation", "log", "other-data", "run"]
    assert kept_names(ALL, {"production": history(RUN)}) == everything_but_the_old_run


def test_a_former_target_stays_for_a_rollback():
    assert kept_names(ALL, {"production": history(OLD_RUN, DATA)}) == [
        "data", "old-run", "other-data", "run",
    ]  # fmt: skip


def test_what_is_being_built_and_its_inputs_stay():
    spec = stored("new", RUN).manifest.spec
    assert kept_names(ALL, held=[spec]) == ["data", "run"]
    assert kept_names(ALL, held=[EVALUATION.manifest.spec]) == [
        "data",
        "evaluation",
        "other-data",
        "run",
    ]


@settings(max_examples=50)
@given(st.data())
def test_no_kept_artifact_lacks_an_input_that_is_there(data):
    artifacts: list[Stored] = []
    for number in range(data.draw(st.integers(1, 8))):
        inputs = data.draw(st.lists(st.sampled_from(artifacts), max_size=3)) if artifacts else []
        used = data.draw(st.sampled_from([LONG_AGO, NOW]))
        artifacts.append(stored(str(number), *inputs, used=used))
    target = data.draw(st.sampled_from(artifacts))
    planned = plan(artifacts, {"x": history(target)}, [], unused_since=SINCE)
    assert target.address in planned.kept
    there = {artifact.manifest.digest: artifact.address for artifact in artifacts}
    for artifact in artifacts:
        if artifact.address in planned.kept:
            assert {there[d] for d in artifact.manifest.inputs.values()} <= planned.kept.keys()
        else:
            assert artifact.used < SINCE


def age(path: Path, days: int = 90) -> None:
    then = (datetime.now(UTC) - timedelta(days=days)).timestamp()
    for each in [*path.rglob("*"), path]:
        os.utime(each, (then, then))


def since(days: int = 30) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def collected(store: LocalStore) -> list[str]:
    collect(store, survey(store, unused_since=since()), unused_since=since())
    return sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*"))


def test_an_old_artifact_goes_with_all_the_store_knows_of_it_and_a_used_one_stays(store):
    old, used = (commit(store, make_spec(seed)) for seed in range(2))
    for artifact in (old, used):
        age(artifact.directory)
    store.get(make_spec(1))
    left = collected(store)
    assert f"shards/{used.manifest.key}/manifest.json" in left
    assert not any(old.manifest.key in path for path in left if not path.startswith(".digests"))
    with pytest.raises(StoreError, match="has no artifact"):
        store.remove("shards", old.manifest.key)


def test_what_came_into_use_after_the_plan_stays(store):
    artifacts = [commit(store, make_spec(seed), {"a": bytes([seed])}) for seed in range(3)]
    for artifact in artifacts:
        age(artifact.directory)
    planned = survey(store, unused_since=since())
    assert len(planned.garbage) == 3
    store.get(make_spec(0))
    new = ArtifactSpec(
        kind="index", format_version=1, params={}, inputs={"shards": artifacts[1].digest}
    )
    with store.workspace(new):
        collect(store, planned, unused_since=since())
    assert {m.key for m in store.list()} == {make_spec(0).key, make_spec(1).key}


def hold(root: Path, connection) -> None:
    with LocalStore(root).workspace(make_spec(1)):
        connection.send(None)
        connection.recv()


def test_the_workspace_of_a_living_builder_stays_and_a_dead_ones_goes_when_it_is_old(store):
    ours, theirs = CONTEXT.Pipe()
    builder = another_process(hold, store.root, theirs)
    builder.start()
    ours.recv()
    with store.workspace(make_spec(2)) as recent:
        (recent / "step-1").touch()
    with store.workspace(make_spec(3)) as old:
        write_files(old)
    for workspace in (store.root / ".work" / "shards" / make_spec(1).key, old):
        age(workspace)
    assert [build.key for build in store.held()] == [make_spec(1).key]
    planned = survey(store, unused_since=since())
    assert [left.name for left in planned.leftovers] == [f".work/shards/{make_spec(3).key}"]
    left = collected(store)
    assert f".work/shards/{make_spec(1).key}" in left
    assert f".work/shards/{make_spec(2).key}/step-1" in left
    assert not any(make_spec(3).key in path for path in left)
    builder.kill()
    builder.join()
    assert list(store.held()) == []


def test_what_was_set_aside_goes_when_it_is_old_and_dead_commits_at_once(store):
    for seed in range(2):
        commit(store, make_spec(seed)).path("index.json").unlink()
        store.get(make_spec(seed))
    (first,) = store.root.glob(f".quarantine/shards-{make_spec(0).key}-*.damage.json")
    age(store.root / ".quarantine")
    os.utime(next(store.root.glob(f".quarantine/shards-{make_spec(1).key}-*.damage.json")))
    write_files(store.root / ".staging" / "dead")
    names = [left.name for left in survey(store, unused_since=since()).leftovers]
    assert names == [".staging/dead", f".quarantine/{first.name.removesuffix('.damage.json')}"]
    left = collected(store)
    assert sum(path.endswith(".damage.json") for path in left) == 1
    assert not any("dead" in path or make_spec(0).key in path for path in left)


def test_damaged_artifacts_are_left_to_repair(store):
    artifact = commit(store)
    (artifact.directory / "manifest.json").unlink()
    age(artifact.directory)
    collected(store)
    assert artifact.directory.is_dir()


def test_two_collections_at_once_do_not_end_each_other(store):
    for seed in range(3):
        age(commit(store, make_spec(seed)).directory)
    planned = survey(store, unused_since=since())
    assert len(planned.garbage) == 3
    collect(store, survey(store, unused_since=since()), unused_since=since())
    assert collect(store, planned, unused_since=since()) == {}
