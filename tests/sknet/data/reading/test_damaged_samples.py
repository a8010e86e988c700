"""Damaged samples and indexes of shards: named in one line, or refused before they are opened."""

import io
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mindspore.mindrecord import FileWriter
from PIL import Image

from infra.base.files import file_sha256
from sknet import train
from sknet.data.order import epoch_order
from sknet.data.reading.pipeline import eval_batches, sample_images, sample_keys
from sknet.data.reading.training_batches import TrainBatch, TrainingBatches
from sknet.data.reading.training_images import TrainingImages
from sknet.data.shards import SCHEMA, ShardSet, read_shards
from sknet.errors import MemoryRefusedError, SampleError, UserError
from sknet.planning import plan_run
from sknet.recipe import load_recipe
from sknet.records import Dataset, ShardFile, Shards
from sknet.world import ALONE
from tests.sknet.tiny_networks import ThreeLayers

CLASSES = ("cat", "dog", "emu")
KINDS = ["garbage", "truncated"]


def damaged(image: bytes, kind: str) -> bytes:
    """Return a damaged image.

    It is cut after all headers: a cut between those of size and scan ends MindSpore's process.
    """
    return image[: image.index(b"\xff\xda") + 40] if kind == "truncated" else b"no image at all"


def write_shard(path: Path, split: str, rows: list[dict[str, object]]) -> ShardFile:
    writer = FileWriter(str(path), shard_num=1)
    writer.add_schema(SCHEMA, "sknet image classification")
    writer.write_raw_data(rows)
    writer.commit()
    index = path.with_name(f"{path.name}.db")
    return ShardFile(
        split=split,
        name=path.name,
        num_samples=len(rows),
        size=path.stat().st_size,
        sha256=file_sha256(path),
        index_size=index.stat().st_size,
        index_sha256=file_sha256(index),
    )


def write_damaged(folders: Path, out: Path, split: str, kind: str) -> Shards:
    """Write shards as another program might: the second sample of the second shard is damaged."""
    out.mkdir()
    files = []
    for name in ("train", "val"):
        images = sorted((folders / name).glob("*/*.jpg"))
        rows = [
            {
                "image": path.read_bytes(),
                "label": CLASSES.index(path.parent.name),
                "key": path.relative_to(folders).as_posix(),
            }
            for path in images
        ]
        if name == split:
            rows[2]["image"] = damaged(images[2].read_bytes(), kind)
        files.append(write_shard(out / f"{name}-0.mindrecord", name, rows[:1]))
        files.append(write_shard(out / f"{name}-1.mindrecord", name, rows[1:]))
    splits = {file.split: file.num_samples + 1 for file in files[1::2]}
    dataset = Dataset(
        source="class-folders",
        classes=CLASSES,
        titles=CLASSES,
        splits=splits,
        samples_digest="0" * 64,
        index_sha256="0" * 64,
        quarantined=(),
    )
    shards = Shards(dataset=dataset, files=tuple(files), quarantined=())
    shards.write(out / "shards.json")
    return shards


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_sample_that_does_not_decode_is_named_with_shard_class_and_reason(
    folders: Path, recipe_file: Path, away: Path, split: str, kind: str
) -> None:
    record = write_damaged(folders, away / "shards", split, kind)
    shards = ShardSet(record, away / "shards")
    recipe = load_recipe(str(recipe_file), ["num_parallel_workers=2"])
    indices = np.arange(shards.num_samples(split))
    if split == "train":
        run = plan_run(recipe, record, 1, "CPU")
        batches = TrainingBatches(run, shards, ALONE, 2).after(0)
    else:
        batches = eval_batches(recipe, shards, split, indices, 2, [32])
    with pytest.raises(SampleError) as caught:
        list(batches)
    message = str(caught.value)
    sample = sorted((folders / split).glob("*/*.jpg"))[2]
    key, shard = sample.relative_to(folders).as_posix(), away / "shards" / f"{split}-1.mindrecord"
    start = f"{key} (class {sample.parent.name!r}) in shard {shard} doesn't decode: "
    assert message.startswith(start)
    assert ("truncated" if kind == "truncated" else "not a JPEG") in message
    assert "\n" not in message


READ_IN_ANOTHER_THREAD_FIRST = """
import sys
from pathlib import Path
import numpy as np
from sknet.data.reading.threads import read_ahead
from sknet.data.reading.pipeline import eval_batches
from sknet.data.shards import read_rows, read_shards
from sknet.errors import SampleError
from sknet.recipe import load_recipe

recipe, directory = load_recipe(sys.argv[1], ["num_parallel_workers=2"]), Path("shards")
shards = read_shards(directory)
assert len(read_rows(directory / "train-0.mindrecord", [0])) == 1

def batches(split, count):
    yield from eval_batches(recipe, shards, split, np.arange(count), 2, [32])

assert len(list(read_ahead(batches("train", 2), 2))) == 1
try:
    list(batches("val", 3))
except SampleError as error:
    print(error)
"""


def test_damaged_sample_is_named_although_another_thread_read_a_pipeline_before(
    folders: Path, recipe_file: Path, away: Path
) -> None:
    write_damaged(folders, away / "shards", "val", "garbage")
    result = subprocess.run(
        [sys.executable, "-c", READ_IN_ANOTHER_THREAD_FIRST, str(recipe_file)],
        cwd=away,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "in shard shards/val-1.mindrecord doesn't decode: " in result.stdout, result
    assert result.returncode == 0


def training_batches(converted: ShardSet, recipe_file: Path) -> Iterator[TrainBatch]:
    run = plan_run(load_recipe(str(recipe_file)), converted.record, 1, "CPU")
    return TrainingBatches(run, converted, ALONE, 2).after(0)


def test_error_that_no_sample_explains_is_raised_as_it_is(
    converted: ShardSet, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingImages, "pixels", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(training_batches(converted, recipe_file))


def test_refused_memory_names_the_sample_of_training_that_was_being_read(
    converted: ShardSet, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError("Unable to allocate 3 GiB")

    monkeypatch.setattr(TrainingImages, "pixels", refuse)
    recipe = load_recipe(str(recipe_file))
    first = epoch_order(converted.num_samples("train"), recipe.seed, 0)[:1]
    (key,) = sample_keys(converted, "train", first)
    with pytest.raises(MemoryRefusedError) as caught:
        next(training_batches(converted, recipe_file))
    assert str(caught.value).startswith(f"out of memory: sample {key} of ")


def test_refused_memory_names_the_largest_of_the_samples_that_were_being_evaluated(
    converted: ShardSet, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("Failed to allocate memory for tensor.")

    monkeypatch.setattr("sknet.data.reading.pipeline.eval_operations", lambda _: [refuse])
    indices = np.arange(converted.num_samples("val"))
    images = sample_images(converted, "val", indices)
    sizes = [Image.open(io.BytesIO(image)).size for image in images]
    largest = max(range(len(sizes)), key=lambda each: math.prod(sizes[each]))
    (key,) = sample_keys(converted, "val", indices[[largest]])
    width, height = sizes[largest]
    batches = eval_batches(load_recipe(str(recipe_file)), converted, "val", indices, 2, [32])
    with pytest.raises(MemoryRefusedError) as caught:
        next(batches)
    assert str(caught.value).startswith(
        f"out of memory: sample {key} of {width} x {height} pixels, the largest of those being "
        "read: "
    )


def tiny_model(_name: str, num_classes: int) -> ThreeLayers:
    return ThreeLayers(num_classes)


@pytest.mark.usefixtures("program_state")
def test_training_with_a_damaged_sample_ends_with_that_line(
    call: Callable[..., tuple[int, str, str]],
    config: tuple[str, Path],
    folders: Path,
    away: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sknet.training.trainer.create_model", tiny_model)
    # MindSpore's cache reads the script of the process, which pytest-xdist's workers don't have.
    monkeypatch.setenv("MS_COMPILER_CACHE_ENABLE", "0")
    write_damaged(folders, away / "shards", "train", "truncated")
    options = [*config, "--data_dir", "shards", "--set", "global_batch_size=2"]
    code, _, errors = call(train, *options)
    assert code == 1, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "in shard shards/train-1.mindrecord doesn't decode: " in line
    assert "Traceback" not in errors


def test_index_of_another_shard_is_refused(converted: ShardSet, shards_copy: Path) -> None:
    one, other = (shards_copy / file.index_name for file in converted.record.files_of("train"))
    shutil.copy(one, other)
    with pytest.raises(UserError, match=f"{other.name} is damaged"):
        read_shards(shards_copy)
