"""Reuse or build: what a task does on every start."""

import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from artifact_examples import FILES, commit, make_spec, read_files, reseal, write_files

from infra.artifacts import (
    BuildOutput,
    DigestConflictError,
    LocalStore,
    Manifest,
    foresee,
    resolve,
)
from infra.artifacts.resolution import Pending
from infra.artifacts.staging import describe


class Builder:
    """Builds the example files, and counts the builds."""

    def __init__(self) -> None:
        self.num_builds = 0

    def __call__(self, workspace: Path) -> BuildOutput:
        self.num_builds += 1
        return BuildOutput(
            write_files(workspace / "out"), stats={"n": 3}, provenance={"mindspore": "2.10.0"}
        )


@pytest.fixture
def builder() -> Builder:
    return Builder()


def workspaces(store: LocalStore) -> list[Path]:
    return [path for path in (store.root / ".work").glob("*/*") if path.is_dir()]


def test_the_first_call_builds_and_later_ones_reuse(store, builder):
    first = resolve(store, make_spec(), builder)
    second = resolve(store, make_spec(), builder, level="full")
    assert (first.status, second.status, builder.num_builds) == ("built", "reused", 1)
    assert first.artifact == second.artifact
    assert read_files(first.artifact) == FILES
    assert first.artifact.manifest.stats == {"n": 3}
    assert first.damages == second.damages == ()
    assert 0 < first.seconds < 60
    assert workspaces(store) == []


def test_provenance_has_time_host_and_duration(store, builder):
    provenance = resolve(store, make_spec(), builder).artifact.manifest.provenance
    assert set(provenance) == {"mindspore", "created", "seconds", "host", "python"}
    assert datetime.fromisoformat(provenance["created"]).utcoffset() == timedelta(0)


def test_the_workspace_itself_may_be_committed(store):
    resolution = resolve(
        store,
        make_spec(),
        lambda workspace: BuildOutput(write_files(workspace), stats={}, provenance={}),
    )
    assert read_files(resolution.artifact) == FILES
    assert workspaces(store) == []


def test_a_damaged_artifact_is_rebuilt_and_its_damage_reported(store, builder):
    first = resolve(store, make_spec(), builder)
    (first.artifact.directory / "index.json").unlink()
    second = resolve(store, make_spec(), builder)
    assert second.status == "rebuilt"
    assert [damage.path for damage in second.damages] == ["index.json"]
    assert second.artifact.digest == first.artifact.digest
    assert resolve(store, make_spec(), builder).status == "reused"


def test_a_changed_byte_is_found_and_rebuilt_when_files_are_read(store, builder):
    first = resolve(store, make_spec(), builder)
    first.artifact.path("index.json").write_bytes(b"[!")
    assert resolve(store, make_spec(), builder).status == "reused"
    assert resolve(store, make_spec(), builder, level="full").status == "rebuilt"


def test_a_failed_build_leaves_its_work_for_the_next(store):
    def fail(workspace: Path) -> BuildOutput:
        (workspace / "step-1").write_bytes(b"one")
        raise RuntimeError("out of memory")

    def go_on(workspace: Path) -> BuildOutput:
        return BuildOutput(
            write_files(workspace, {"step-2": (workspace / "step-1").read_bytes() + b" two"}),
            stats={},
            provenance={},
        )

    with pytest.raises(RuntimeError, match="out of memory"):
        resolve(store, make_spec(), fail)
    assert store.get(make_spec()) is None
    assert foresee(store, make_spec()) == ("resumed", None)
    assert read_files(resolve(store, make_spec(), go_on).artifact)["step-2"] == b"one two"
    assert workspaces(store) == []


def test_a_build_that_differs_from_the_store_is_an_error_and_leaves_its_work(store):
    def build_while_another_commits(workspace: Path) -> BuildOutput:
        commit(store, files={"index.json": b"other"})
        return BuildOutput(write_files(workspace), stats={}, provenance={})

    with pytest.raises(DigestConflictError):
        resolve(store, make_spec(), build_while_another_commits)
    assert read_files(store.get(make_spec())) == {"index.json": b"other"}
    (workspace,) = workspaces(store)
    assert (workspace / "index.json").read_bytes() == FILES["index.json"]


def test_builders_of_one_key_build_once(store, builder):
    resolutions = []
    threads = [
        threading.Thread(target=lambda: resolutions.append(resolve(store, make_spec(), builder)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builder.num_builds == 1
    assert sorted(resolution.status for resolution in resolutions) == ["built"] + ["reused"] * 3
    assert workspaces(store) == []


def fail_to_commit(store: LocalStore, builder: Builder) -> Path:
    """Build where no commit is possible, and return the workspace."""
    (store.root / ".staging").touch()
    with pytest.raises(FileExistsError):
        resolve(store, make_spec(), builder)
    (store.root / ".staging").unlink()
    (workspace,) = workspaces(store)
    return workspace


def test_what_could_not_be_committed_is_committed_by_the_next_call_without_a_build(store, builder):
    fail_to_commit(store, builder)
    time.sleep(1.1)  # the times in provenance are of the build, not of the commit
    before = datetime.now(UTC)
    resolution = resolve(store, make_spec(), builder)
    assert (resolution.status, builder.num_builds) == ("built", 1)
    assert read_files(resolution.artifact) == FILES
    manifest = resolution.artifact.manifest
    assert manifest.stats == {"n": 3}
    assert datetime.fromisoformat(manifest.provenance["created"]) < before
    assert list((store.root / ".work" / "shards").iterdir()) == []


def flip_a_byte(workspace: Path) -> None:
    (workspace / "out/shards/0.bin").write_bytes(b"zerO")


def remove_a_file(workspace: Path) -> None:
    (workspace / "out/shards/0.bin").unlink()


def add_a_file(workspace: Path) -> None:
    (workspace / "out/extra").touch()


def remove_all(workspace: Path) -> None:
    shutil.rmtree(workspace / "out")


def pending(workspace: Path) -> Path:
    return workspace.with_name(f"{workspace.name}.pending.json")


def tear_the_description(workspace: Path) -> None:
    os.truncate(pending(workspace), 500)


def change_the_description(workspace: Path) -> None:
    document = pending(workspace).read_bytes()
    pending(workspace).write_bytes(document.replace(b'"n": 3', b'"n": 4'))


def describe_an_output_elsewhere(workspace: Path) -> None:
    shutil.move(workspace / "out", workspace.parent / "elsewhere")
    path = pending(workspace)
    path.write_bytes(reseal(path.read_bytes(), output="../elsewhere"))


def describe_another_spec(workspace: Path) -> None:
    entries = describe(workspace / "out", FILES)
    other = Manifest.describe(make_spec(1), entries, stats={"n": 4}, provenance={})
    Pending(output="out", manifest=other).save(workspace)


@pytest.mark.parametrize(
    "spoil",
    [
        flip_a_byte,
        remove_a_file,
        add_a_file,
        remove_all,
        tear_the_description,
        change_the_description,
        describe_an_output_elsewhere,
        describe_another_spec,
    ],
)
def test_an_output_that_is_not_what_was_described_is_built_again(store, builder, spoil):
    spoil(fail_to_commit(store, builder))
    resolution = resolve(store, make_spec(), builder)
    assert builder.num_builds == 2
    assert FILES.items() <= read_files(resolution.artifact).items()
    assert resolution.artifact.manifest.spec == make_spec()
    assert resolution.artifact.manifest.stats == {"n": 3}
