"""Work for `traced`: each function changes something in the store at a root."""

from datetime import UTC, datetime
from pathlib import Path

from artifact_examples import make_spec, write_files

from infra.artifacts import BuildOutput, LocalStore
from infra.artifacts import resolve as resolve_spec
from infra.artifacts.gc import collect, survey


def build(workspace: Path) -> BuildOutput:
    return BuildOutput(write_files(workspace / "out"), stats={}, provenance={})


def put(root: str, source: str) -> None:
    LocalStore(Path(root)).put(make_spec(), Path(source), stats={}, provenance={})


def resolve(root: str) -> None:
    resolve_spec(LocalStore(Path(root)), make_spec(), build)


def look_up(root: str) -> None:
    LocalStore(Path(root)).get(make_spec())


def move_ref(root: str) -> None:
    store = LocalStore(Path(root))
    manifest = store.load("shards", make_spec().key).manifest
    store.refs.set("production", manifest, expected=store.refs.get("production"), reason="one more")


def collect_garbage(root: str) -> None:
    store, now = LocalStore(Path(root)), datetime.now(UTC)
    collect(store, survey(store, unused_since=now), unused_since=now)
