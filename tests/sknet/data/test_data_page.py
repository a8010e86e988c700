"""The page of a data set: what is measured and suspect, and a page that stands alone."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sknet.data.__main__ as data_program
from sknet.data.conversion.conversion import write_shards
from sknet.data.images import decode
from sknet.data.shards import read_shards
from sknet.data.sources import ALL_SPLITS, open_source
from sknet.data.staging import stage_source
from sknet.data.survey import measure, pixels_of, survey_shards, survey_source
from sknet.errors import MemoryRefusedError
from sknet.records import CopyGroup, Dataset
from sknet.report.data_contents import MAX_PICTURES, MAX_SUSPECTS, DataContents
from sknet.report.data_page import render_data_page
from tests.documented import documented
from tests.sknet.conversions import in_this_process, stage

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def odd(images_copy: Path) -> Path:
    """The images of `folders`, a sealed split, and one image of each kind that is suspect."""
    for path in (images_copy / "val").glob("*/*"):
        turned = images_copy / "test" / path.relative_to(images_copy / "val")
        turned.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(turned)
    cat = images_copy / "train/cat"
    noise = np.random.default_rng(0).integers(0, 17, (40, 40, 1), np.uint8).repeat(3, axis=2)
    Image.new("RGB", (40, 40), (200, 10, 10)).save(cat / "blank.png")
    Image.fromarray(noise).save(cat / "dark.png")
    Image.fromarray(255 - noise).save(cat / "bright.png")
    Image.fromarray(noise[:6, :6] * 15).save(cat / "tiny.png")
    Image.fromarray(np.tile(noise * 15, (1, 5, 1))[:30]).save(cat / "wide.png")
    content = (cat / "001.jpg").read_bytes()
    (cat / "cut.jpg").write_bytes(content[: len(content) // 2])
    Image.fromarray(noise.transpose(1, 0, 2)[::-1] * 15).save(cat / "strange.png")
    png = (cat / "strange.png").read_bytes()
    (cat / "strange.png").write_bytes(png[:33] + b"\x21" + png[34:])  # only MindSpore refuses it
    (cat / "notes.txt").write_text("two of these are not ours")
    return images_copy


def survey(source: Path, **options: int) -> DataContents:
    opened = open_source(str(source))
    staged = stage_source(opened, max_quarantine=1.0)
    return survey_source(staged, opened, "data", **options)


def found(contents: DataContents) -> dict[str, list[str]]:
    return {kind.kind: [Path(key).stem for key in kind.rows["key"]] for kind in contents.suspects}


def test_refused_memory_names_the_image_that_is_measured(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: bytes) -> None:
        raise MemoryError("refused")

    monkeypatch.setattr("sknet.data.survey.measure", refuse)
    with pytest.raises(MemoryRefusedError, match=r"decoding train/cat/000\.png: refused"):
        survey(folders)


def test_measures_are_size_sides_brightness_and_contrast(folders: Path, tmp_path: Path) -> None:
    grey = np.array([[0, 0, 100], [200, 200, 100]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "1.png")
    content = (tmp_path / "1.png").read_bytes()
    size, width, height, mean, deviation = measure(content)
    assert (size, width, height, mean) == (len(content), 3, 2, 100.0)
    assert deviation == pytest.approx(grey.std())


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_measures_and_pictures_are_of_the_pixels_of_training(mode: str) -> None:
    grey = np.random.default_rng(1).integers(0, 65_536, (40, 60)).astype(np.uint16)
    image = (
        Image.fromarray(grey)
        if mode == "I;16"
        else Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB").convert(mode)
    )
    file = io.BytesIO()
    image.save(file, "JPEG" if mode in ("L", "RGB", "CMYK") else "PNG")
    trained_on = decode(file.getvalue())
    assert np.abs(np.asarray(pixels_of(file.getvalue()), np.int16) - trained_on).max() <= 1


def test_suspect_images_are_found_and_named(odd: Path) -> None:
    contents = survey(odd)
    assert found(contents) == {
        "tiny": ["tiny"],
        "odd aspect": ["wide"],
        "blank": ["blank"],
        "dark": ["dark"],
        "bright": ["bright"],
    }
    assert [sample.key for sample in contents.left_out] == [
        "train/cat/cut.jpg",
        "train/cat/strange.png",
    ]
    assert contents.counts.to_numpy().tolist() == [[12, 2, 2], [5, 2, 2], [5, 2, 2]]
    page = render_data_page(contents)
    for text in (
        "34 images of 3 classes",
        "tiny.png (cat): 6 x 6 pixels",
        "cut.jpg",
        "OSError",
        "notes.txt",
        "Split test: test/",
    ):
        assert text in page


def test_shards_give_the_same_page_as_their_source(odd: Path, tmp_path: Path) -> None:
    staged = stage(odd, max_quarantine=1.0)
    (out := tmp_path / "shards").mkdir()
    write_shards(
        staged,
        str(odd),
        out,
        num_shards=2,
        max_quarantine=1.0,
        parallel_map=in_this_process,
    )
    contents = survey_shards(read_shards(out, ALL_SPLITS), "data")
    of_source = survey(odd)
    assert found(contents) == found(of_source)
    assert contents.left_out == of_source.left_out
    assert contents.pictures == of_source.pictures
    measured = of_source.measured.sort_values(["split", "key"])
    pd.testing.assert_frame_equal(
        contents.measured.sort_values(["split", "key"]).reset_index(drop=True),
        measured.reset_index(drop=True),
    )


def test_nothing_of_the_sealed_split_is_shown_unless_it_is_suspect(odd: Path) -> None:
    shown = [key for keys in survey(odd).sheets.values() for key in keys]
    assert len(shown) == 8 + 7 + 7
    assert not [key for key in shown if key.startswith("test/")]
    shutil.copy(odd / "train/cat/blank.png", odd / "test/cat/blank.png")
    assert "test/cat/blank.png" in survey(odd).pictures


def test_of_many_images_a_random_sample_is_measured(folders: Path) -> None:
    contents = survey(folders, max_measured=8)
    assert len(contents.measured) == 8
    page = render_data_page(contents)
    assert "are those of 8 images, chosen at random from 21." in page
    assert page == render_data_page(survey(folders, max_measured=8))
    assert "chosen at random" not in render_data_page(survey(folders))


def test_the_page_loads_nothing_and_escapes_names(folders: Path, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    shutil.copytree(folders, tmp_path / "images")
    for split in ("train", "val"):
        (tmp_path / "images" / split / "cat").rename(tmp_path / "images" / split / evil)
    page = render_data_page(survey(tmp_path / "images"))
    assert evil not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert {each[0] for each in re.findall(r'(?:src|href)="([^"]+)', page)} == {"d", "#"}


def make_contents(
    num_classes: int, num_samples: int, copies: tuple[CopyGroup, ...] = ()
) -> DataContents:
    names = tuple(f"class {label}" for label in range(num_classes))
    samples = pd.DataFrame(
        {
            "split": ["train", "val"] * (num_samples // 2),
            "key": [f"{number:05}" for number in range(num_samples)],
            "label": [number // 2 % num_classes for number in range(num_samples)],
        }
    )
    dataset = Dataset(
        source="class-folders",
        classes=names,
        titles=names,
        splits={"train": num_samples // 2, "val": num_samples // 2},
        samples_digest="0" * 64,
        index_sha256="0" * 64,
        quarantined=(),
        copies=copies,
    )
    measured = samples.assign(size=100, width=640, height=480, brightness=100.0, contrast=0.0)
    return DataContents("data", dataset, samples, measured)


def test_page_of_many_classes_and_suspects_stays_small() -> None:
    contents = make_contents(num_classes=2 * MAX_PICTURES, num_samples=4 * MAX_PICTURES)
    assert len(contents.shown_keys()) <= MAX_PICTURES + MAX_SUSPECTS
    page = render_data_page(contents)
    assert f"The first {MAX_PICTURES} of {2 * MAX_PICTURES} classes." in page
    assert f"Blank: {4 * MAX_PICTURES:,}" in page
    assert f"The {MAX_SUSPECTS} worst are shown." in page


def test_copies_are_shown_with_their_splits_and_labels() -> None:
    copies = (
        CopyGroup(keys=("00000", "00001"), splits=("train", "val"), labels=(0, 0), exact=True),
        CopyGroup(keys=("00002", "00004"), splits=("train", "train"), labels=(1, 2), exact=False),
        CopyGroup(
            keys=("00006", *(f"{n:05}" for n in range(20, 30, 2))),
            splits=("train",) * 6,
            labels=(0,) * 6,
            exact=False,
        ),
    )
    contents = make_contents(num_classes=3, num_samples=40, copies=copies)
    assert [len(kind.groups) for kind in contents.copies] == [1, 1, 1]
    page = render_data_page(contents)
    for text in (
        "Copies in several splits: 1",
        "One image under several labels: 1",
        "Copies within a split: 1",
        "<strong>val</strong>, class 0: 00001",
        "<strong>train</strong>, class 2: 00004",
        "and 2 more",
    ):
        assert text in page


def test_the_program_writes_the_page_and_says_what_is_suspect(
    call: Call, odd: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pages" / "data.html"
    written = documented("sknet data", {"DIR": odd, "data.html": out}, page="docs/data.md")
    code, printed, _ = call(data_program, *written[2:])
    assert code == 0
    assert printed.splitlines()[-1] == (
        f"{out}: 34 images of 3 classes, tiny: 1, odd aspect: 1, blank: 1, dark: 1, bright: 1, "
        "left out: 2"
    )
    assert out.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_a_place_where_no_page_can_be_is_refused(
    refused: Callable[[ModuleType, object], str], folders: Path, tmp_path: Path
) -> None:
    line = refused(data_program, *("--source", folders, "--out", tmp_path))
    assert line == f"error: --out {tmp_path} is a directory, expected a file"
    line = refused(data_program, *("--data_dir", folders, "--out", tmp_path / "data.html"))
    assert line.startswith(f"error: --data_dir {folders} has no shards.json: expected")
    (tmp_path / "file").touch()
    line = refused(data_program, *("--source", folders, "--out", tmp_path / "file/data.html"))
    assert line.startswith(f"error: --out {tmp_path / 'file'} can't be made")
