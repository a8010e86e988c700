"""A data set with copies on both sides, from its staging to the section of the report."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from prefect import flow

from infra.artifacts import open_store
from sknet.records import Dataset, QuarantinedSample, Shards
from sknet.report import write_report
from sknet.report.data_contents import picture_name
from tasks.catalog.runs import collect, thumbnails
from tasks.results import TaskResult
from tasks.stage import stage
from tests.sknet.conftest import write_images
from tests.synthetic_store import Filler

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flow_harness")]


@flow(name="stage-alone")
def stage_alone(data: str, store: str) -> TaskResult:
    return stage(data, store).result()


def test_copies_are_shown_with_their_pictures(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", train=6, val=3)
    shutil.copytree(images / "val", images / "test")
    shutil.copy(images / "train/cat/000.png", images / "val/cat/copy.png")
    shutil.copy(images / "train/dog/001.jpg", images / "train/emu/wrong.jpg")
    cut = (images / "train/dog/003.jpg").read_bytes()
    (images / "train/emu/cut.jpg").write_bytes(cut[: len(cut) // 2])
    left_out = QuarantinedSample(split="train", key="train/emu/cut.jpg", reason="truncated")
    filler = Filler(tmp_path / "store")
    staged = stage_alone(str(images), str(tmp_path / "store"))
    dataset = Dataset.read(filler.store.load("dataset", staged.key).path("dataset.json"))
    shards = Shards(dataset=dataset, files=(), quarantined=(left_out,))
    inputs = {"dataset": staged.digest}
    filler.shards = filler.put("shards", {"shards": 1}, inputs, {"shards.json": shards}, 1.0)
    filler.run(1)

    contents = collect(open_store(str(tmp_path / "store")))
    assert contents.unreadable == ()
    (data,) = contents.data_sets
    assert data.class_counts == {"train": (6, 6, 8), "val": (4, 3, 3), "test": (3, 3, 3)}
    assert data.leaked == {"train": 1, "val": 10, "test": 9}
    assert data.num_copies == {"leaks": 10, "contradictions": 1}
    pictures = thumbnails(filler.store, (), contents.data_sets)
    assert len(data.pictures) == 38, "29 samples of train and val, and the copies in test"
    assert len(data.measured) == 38
    assert set(pictures) == set(data.pictures.values())

    names = write_report(contents, tmp_path / "out", pictures=pictures)
    assert {"data_classes.csv", "data_classes.parquet"} <= {*names}
    table = pd.read_parquet(tmp_path / "out/data_classes.parquet")
    assert table["samples"].sum() == 39
    page = (tmp_path / "out/report.html").read_text("utf-8")
    section = page[page.index('<section id="data">') :].split("</section>")[0]
    assert "20 train, 10 val, 9 test; 1 left out." in section
    assert "1 of train, 10 of val, 9 of test have a copy in another split." in section
    assert "Copies in several splits: 10" in section
    assert "<strong>val</strong>, cat: val/cat/copy.png" in section
    assert "One image under several labels: 1" in section
    assert len(re.findall('<img src="data:image/jpeg', section)) == 22 + 29
    assert '<div class="examples samples">' in section
    assert "no picture" not in section
    assert "chosen at random" not in section, "all that can be decoded were measured"
    for words in ("Shorter side of the images: median", "Brightness, the mean grey value"):
        assert words in section


def test_pictures_have_the_pixels_of_training_whatever_the_depth(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", train=2, val=1)
    grey = Image.linear_gradient("L").convert("I").point(lambda value: value * 257).convert("I;16")
    for split in ("train", "val"):
        grey.save(images / split / "cat/deep.png")
    store = tmp_path / "store"
    stage_alone(str(images), str(store))
    (manifest,) = open_store(str(store)).list("survey")
    directory = open_store(str(store)).load("survey", manifest.key).directory
    names = {picture_name(f"{split}/cat/deep.png") for split in ("train", "val")}
    pictures = [entry for entry in manifest.files if entry.path in names]
    assert len(pictures) == 2
    for entry in pictures:
        with Image.open(directory / entry.path) as picture:
            assert max(picture.size) == 96
            low, high = picture.convert("L").getextrema()
            assert low < 10
            assert high > 245
