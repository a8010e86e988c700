"""`sknet run --dry-run` says what a run would do, and does nothing of it."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import NoReturn

import pytest

from flows import dry_run, train_sknet
from infra.artifacts import Manifest, open_store
from sknet.recipe import load_recipe
from sknet.records import Shards
from sknet.records.data import QuarantinedSample
from tests.tiny_pipeline import Trained, train_options

Ended = CompletedProcess[str]
ROW = ("stage", "convert", "train", "validate", "promote", "report")


class Shown:
    """What a dry run has printed."""

    def __init__(self, output: str) -> None:
        self.recipe, _, rest = output.partition("\n# device ")
        lines = rest.splitlines()
        self.store = next(line for line in lines if line.startswith("# store "))
        header = next(line for line in lines if line.startswith("task "))
        starts = [header.index(name) for name in ("task", "does", "artifact", "size")]
        ends = [*starts[1:], None]
        rows = [line for line in lines if line.split(" ")[0] in ROW]
        self.rows = [
            tuple(row[start:end].strip() for start, end in zip(starts, ends, strict=True))
            for row in rows
        ]

    def of(self, task: str) -> Sequence[str]:
        """Return what is done, the artifact and the size."""
        return next(row[1:] for row in self.rows if row[0] == task)


@pytest.fixture
def show(
    call_command: Callable[..., Ended], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Shown]:
    """Call the dry run of `trained` on a store; nothing of Prefect may be started."""

    def refuse() -> NoReturn:
        raise AssertionError("a server was started")

    monkeypatch.setattr(train_sknet, "prepare", refuse)

    def call(store: Path, *more: str, images: Path = trained.images) -> Shown:
        options = train_options(trained.recipe, images, store, 2)
        ended = call_command(train_sknet, *options, "--dry-run", "--quiet", *more)
        assert (ended.returncode, ended.stderr) == (0, "")
        return Shown(ended.stdout)

    return call


def manifest(trained: Trained, task: str) -> Manifest:
    result = trained.of(task)
    return open_store(str(trained.store)).load(result.kind, result.key).manifest


def content(directory: Path) -> dict[str, str]:
    """Return the digests of all files, and the time at which each was last changed."""
    return {
        str(path.relative_to(directory)): (
            f"{path.lstat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_all_that_a_run_has_stored_would_be_reused_and_is_left_as_it_is(
    show: Callable[..., Shown], trained: Trained
) -> None:
    before = content(trained.store)
    shown = show(trained.store)
    assert [row[0] for row in shown.rows] == [*ROW]
    for task in ("stage", "convert", "train", "validate"):
        result = trained.of(task)
        assert shown.of(task)[:2] == ("reuse", f"{result.kind}/{result.key}")
    assert shown.of("promote") == ("judge", "not again: it is in production", "")
    assert content(trained.store) == before


def test_the_recipe_is_printed_as_one_of_the_same_digest(
    show: Callable[..., Shown], trained: Trained, tmp_path: Path
) -> None:
    printed = tmp_path / "printed.yaml"
    printed.write_text(show(trained.store, "--set", "lr=0.5").recipe, "utf-8")
    expected = load_recipe(str(trained.recipe), ["lr=0.5"])
    assert load_recipe(str(printed)).digest == expected.digest


def test_with_other_choices_only_what_depends_on_them_would_be_built(
    show: Callable[..., Shown], trained: Trained
) -> None:
    shown = show(trained.store, "--set", "lr=0.5")
    assert [row[1] for row in shown.rows[:4]] == ["reuse", "reuse", "build", "build"]
    kind, _, key = shown.of("train")[1].partition("/")
    assert kind == "checkpoint"
    assert key != trained.of("train").key
    assert shown.of("train")[2].startswith("2 epochs of ")
    assert shown.of("promote")[1] == f"against checkpoint/{trained.of('train').key}"


def test_keys_that_follow_from_the_images_are_known_before_there_is_a_store(
    show: Callable[..., Shown], trained: Trained, tmp_path: Path
) -> None:
    shown = show(tmp_path / "new")
    assert shown.store == f"# store {tmp_path / 'new'}, which would be made"
    for task in ("stage", "convert"):
        result = trained.of(task)
        assert shown.of(task)[:2] == ("build", f"{result.kind}/{result.key}")
    assert shown.of("train")[:2] == (
        "build",
        "checkpoint, its key is known once the shards are built",
    )
    assert shown.of("promote")[1] == "by its floors alone, as nothing is promoted yet"
    assert not (tmp_path / "new").exists()


def test_the_size_of_shards_is_foreseen_to_a_few_percent(
    show: Callable[..., Shown], trained: Trained, tmp_path: Path
) -> None:
    stored = manifest(trained, "convert").num_bytes / 1e6
    about, size, unit, *_ = show(tmp_path / "new").of("convert")[2].split()
    assert (about, unit) == ("about", "MB")
    assert float(size) == pytest.approx(stored, rel=0.05)


def test_a_damaged_artifact_would_be_built_again_and_is_not_set_aside(
    show: Callable[..., Shown], trained: Trained, copied_store: Path
) -> None:
    result = trained.of("train")
    damaged = copied_store / result.kind / result.key / "model.ckpt"
    damaged.unlink()
    before = content(copied_store)
    does, artifact, _ = show(copied_store).of("train")
    assert does == "build again, as the stored one is damaged"
    assert artifact == f"{result.kind}/{result.key}"
    assert content(copied_store) == before


def test_an_interrupted_training_would_be_resumed(
    show: Callable[..., Shown], trained: Trained, copied_store: Path
) -> None:
    result = trained.of("train")
    left = copied_store / ".work" / result.kind / result.key
    left.parent.mkdir(parents=True, exist_ok=True)
    (copied_store / result.kind / result.key).rename(left)
    assert show(copied_store).of("train")[0] == "resume an interrupted build"


def test_images_that_take_long_to_read_are_not_read(
    show: Callable[..., Shown],
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = shutil.copytree(trained.images, tmp_path / "others")
    num_files = sum(path.is_file() for path in others.rglob("*"))
    monkeypatch.setattr(dry_run, "READ_AT_MOST", 0)
    shown = show(tmp_path / "new", images=others)
    assert shown.of("stage")[0].startswith(f"read {num_files:,} files, ")
    assert shown.of("stage")[1] == "dataset, its key is known then"
    assert shown.of("convert")[:2] == ("build or reuse", "shards, their key is known after stage")
    assert shown.of("validate")[1] == "evaluation, its key is known after train"


def test_the_warnings_of_a_run_are_shown(
    call_command: Callable[..., Ended], trained: Trained, tmp_path: Path
) -> None:
    images = shutil.copytree(trained.images, tmp_path / "images")
    shutil.copy(images / "train" / "red" / "00.png", images / "val" / "red" / "copy.png")
    recipe = tmp_path / "theirs.yaml"
    of_mindcv = "dataset_sink_mode: true\nopt: momentum\nwarmup_epochs: 0\n"
    recipe.write_text(trained.recipe.read_text("utf-8") + of_mindcv, "utf-8")
    options = train_options(recipe, images, tmp_path / "store", 2)
    ended = call_command(train_sknet, *options, "--dry-run", "--quiet")
    assert ended.returncode == 0
    of_recipe, *of_images = ended.stderr.splitlines()
    assert of_recipe.startswith("warning: ")
    assert of_recipe.endswith("without effect here: dataset_sink_mode")
    assert of_images
    assert all(line.startswith("warning: stage: ") for line in of_images)


def test_shards_with_more_unreadable_images_than_tolerated_are_refused_as_by_the_run(
    call_command: Callable[..., Ended], trained: Trained, copied_store: Path, tmp_path: Path
) -> None:
    store = open_store(str(copied_store))
    shards = store.load("shards", trained.of("convert").key)
    files = shutil.copytree(shards.directory, tmp_path / "files")
    (files / "manifest.json").unlink()
    left_out = QuarantinedSample(split="val", key="red/00.png", reason="it is cut off")
    record = Shards.read(files / "shards.json").model_copy(update={"quarantined": (left_out,)})
    record.write(files / "shards.json")
    store.remove("shards", shards.manifest.key)
    store.put(shards.manifest.spec, files, stats={}, provenance={})
    options = train_options(trained.recipe, trained.images, copied_store, 2)
    ended = call_command(train_sknet, *options, "--dry-run", "--max-quarantine", "0.001")
    assert ended.returncode == 2
    assert "red/00.png" in ended.stderr


def test_wrong_input_is_refused_as_by_the_run(
    call_command: Callable[..., Ended], trained: Trained, tmp_path: Path
) -> None:
    options = train_options(trained.recipe, tmp_path / "none", tmp_path / "store", 2)
    ended = call_command(train_sknet, *options, "--dry-run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: data directory {tmp_path / 'none'} does not exist")
    assert ended.stderr.count("\n") == 1
