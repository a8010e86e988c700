"""docs/artifacts.md: each command runs, and each promise names a test that exists."""

import re
import shlex
from pathlib import Path

from artifact_examples import FILES, commit, make_spec

from infra.artifacts import ArtifactSpec, LocalStore
from infra.artifacts.__main__ import main
from tests.documented import commands

TEXT = (Path(__file__).parents[3] / "docs" / "artifacts.md").read_text("utf-8")
START = "sknet store "

TESTS = Path(__file__).parents[2]


def test_each_command_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = LocalStore(Path("artifacts"))
    store.root.mkdir()
    shards = commit(store, ArtifactSpec(kind="shards", format_version=1, params={}, inputs={}))
    ref = None
    for version in range(2):
        spec = ArtifactSpec(
            kind="checkpoint",
            format_version=1,
            params={"version": version},
            inputs={"shards": shards.digest},
        )
        manifest = commit(store, spec).manifest
        ref = store.refs.set("production", manifest, expected=ref, reason="better")
    damaged = commit(store, make_spec(), {"a": b"b"})
    lines = re.findall(r"^\$ (.+)$", TEXT, re.MULTILINE)
    assert len({line.split()[2] for line in lines}) == 8
    for line in lines:
        assert line.startswith(START)
        if " repair " in line:
            damaged.path("a").write_bytes(b"c")
        words = line.removeprefix(START).replace("/mnt/archive", "archive")
        assert main(shlex.split(words)) == 0, capsys.readouterr().err
    assert [entry.version for entry in store.refs.history("production")] == [1, 2, 3]
    assert {path.name for path in Path("checkpoint").rglob("*") if path.is_file()} == {
        Path(name).name for name in FILES
    }
    assert len(list(LocalStore(Path("archive")).list())) == 2
    assert damaged.manifest.key not in {manifest.key for manifest in store.list()}


def test_the_commands_of_the_page_on_revalidation_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = LocalStore(Path("artifacts"))
    store.root.mkdir()
    shards = commit(store, ArtifactSpec(kind="shards", format_version=1, params={}, inputs={}))
    made = {"shards": shards}
    for kind, source in (("checkpoint", "shards"), ("evaluation", "checkpoint")):
        inputs = {source: made[source].digest}
        made[kind] = commit(
            store, ArtifactSpec(kind=kind, format_version=1, params={"is": kind}, inputs=inputs)
        )
    lines = [line for line in commands("docs/revalidation.md") if line.startswith(START)]
    assert len(lines) == 3
    for line in lines:
        words = line.removeprefix(START).replace("/mnt/archive", "archive")
        for kind in ("checkpoint", "evaluation"):
            words = words.replace(f"{kind}/KEY", f"{kind}/{made[kind].manifest.key}")
        assert main(shlex.split(words)) == 0, capsys.readouterr().err
    assert store.refs.get("production").digest == made["checkpoint"].digest
    assert len(list(LocalStore(Path("archive")).list())) == 3


def test_each_promise_names_tests_that_exist():
    table = TEXT.partition("## Promises")[2]
    promises = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(promises) > 15
    for promise in promises:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", promise)
        assert named, promise
        for file, test in named:
            (path,) = TESTS.rglob(file)
            assert f"\ndef {test}(" in path.read_text("utf-8"), f"{file}::{test}"
