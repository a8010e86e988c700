"""Data that was staged or converted before is as `--on-leak` demands, or it is refused."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import sknet.convert
from sknet.data.conversion.conversion import write_shards
from sknet.data.data_directory import shards_at
from tests.refusals import refusal
from tests.sknet.conversions import convert, in_this_process, stage

COPIED = "train/cat/again.png = val/cat/000.png"


@pytest.fixture
def leaking(images_copy: Path) -> Path:
    shutil.copy(images_copy / "val/cat/000.png", images_copy / "train/cat/again.png")
    return images_copy


def test_shards_with_leaks_are_named_refused_and_can_not_be_mended(
    leaking: Path, tmp_path: Path
) -> None:
    shards, lines = tmp_path / "shards", list[str]()
    convert(leaking, shards)
    open_shards = partial(shards_at, str(shards), tmp_path / "cache", num_workers=1)
    open_shards(rank=1, report=lines.append)
    assert lines == []
    open_shards(rank=0, report=lines.append)
    assert lines == [
        "images in several splits: 1 of 16 in train, 1 of 6 in val; "
        "--on-leak drop leaves copies out",
        f"  equal: {COPIED}",
    ]
    refused = refusal(lambda: open_shards(rank=0, on_leak="refuse"))
    assert refused.startswith("2 samples show an image that is in another split, too, such as ")
    assert refusal(lambda: open_shards(rank=0, on_leak="drop")) == (
        f"the shards in {shards} hold copies in several splits: convert the images again with "
        "--on-leak drop"
    )


def test_shards_without_leaks_suit_every_choice(leaking: Path, tmp_path: Path) -> None:
    (leaking / "train/cat/again.png").unlink()
    convert(leaking, tmp_path / "shards")
    for on_leak in ("warn", "refuse", "drop"):
        shards_at(str(tmp_path / "shards"), tmp_path, rank=0, num_workers=1, on_leak=on_leak)


def test_conversion_of_staged_samples_with_leaks_is_refused(
    leaking: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "staged").mkdir()
    stage(leaking).write(tmp_path / "staged")
    options = ("--source", leaking, "--staged", tmp_path / "staged", "--shards", 1)
    code, _, errors = call(sknet.convert, *options, "--out", tmp_path / "o", "--on-leak", "drop")
    assert code == 2
    assert errors.endswith(
        f"the staged samples in {tmp_path / 'staged'} hold copies in several splits: convert the "
        "images again with --on-leak drop\n"
    )
    code, _, errors = call(sknet.convert, *options, "--out", tmp_path / "o", "--on-leak", "refuse")
    assert (code, COPIED in errors) == (2, True)
    assert not (tmp_path / "o").exists()


def test_last_line_of_a_conversion_also_counts_the_copies_that_are_dropped(
    leaking: Path,
    tmp_path: Path,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_process = partial(write_shards, parallel_map=in_this_process)
    monkeypatch.setattr(sknet.convert, "write_shards", in_process)
    options = ("--source", leaking, "--out", tmp_path / "o", "--shards", 1)
    code, output, _ = call(sknet.convert, *options, "--on-leak", "drop")
    assert (code, output.splitlines()[-1]) == (0, "21 images converted, 1 left out")
