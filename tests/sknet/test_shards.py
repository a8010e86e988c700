"""Shards hold every sample once; their bytes depend on the data alone; damage is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mindspore.dataset import MindDataset
from PIL import Image

from sknet.data.pipeline import eval_batches, train_batches
from sknet.data.shards import plan_shards, read_shards, undecodable, write_shard, write_shards
from sknet.data.sources import open_source
from sknet.data.staging import Staged, stage
from sknet.errors import UserError
from sknet.recipe import Recipe, load_recipe
from sknet.records import QuarantinedSample, Shards


def silent(done: int, total: int) -> None:
    """No line of progress."""


def write(
    staged: Staged, source: Path, out: Path, *, num_shards: int = 2, num_workers: int = 1
) -> Shards:
    out.mkdir(parents=True, exist_ok=True)
    return write_shards(
        staged,
        str(source),
        out,
        num_shards=num_shards,
        num_workers=num_workers,
        on_progress=silent,
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def rows(directory: Path, shards: Shards, split: str) -> list[tuple[str, int, bytes]]:
    files = [str(directory / file.name) for file in shards.files_of(split)]
    data = MindDataset(files, columns_list=["key", "label", "image"], shuffle=False)
    return [
        (str(key), int(label), image.tobytes())
        for key, label, image in data.create_tuple_iterator(num_epochs=1, output_numpy=True)
    ]


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def staged(folders: Path) -> Staged:
    return stage(open_source(str(folders)))


@pytest.fixture
def shards_copy(converted: tuple[Shards, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted[1], tmp_path / "copy"))


@pytest.fixture
def images_copy(folders: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders, tmp_path / "images"))


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file), ["num_parallel_workers=2"])


def test_two_workers_elsewhere_write_the_same_bytes_and_nothing_else_remains(
    images_copy: Path, tmp_path: Path, converted: tuple[Shards, Path]
) -> None:
    out = tmp_path / "else" / "where"
    out.mkdir(parents=True)
    (out / "train-00000-of-00009.mindrecord").write_bytes(b"of an earlier attempt")
    write(stage(open_source(str(images_copy))), images_copy, out, num_workers=2)
    assert contents(out) == contents(converted[1])


def test_every_sample_is_held_exactly_once_with_its_bytes(
    converted: tuple[Shards, Path], folders: Path, staged: Staged
) -> None:
    shards, out = converted
    for split in ("train", "val"):
        held = rows(out, shards, split)
        index = staged.index[staged.index["split"] == split]
        expected = [
            (key, label, (folders / key).read_bytes())
            for key, label in zip(index["key"], index["label"], strict=True)
        ]
        assert sorted(held) == sorted(expected)
        assert shards.num_samples(split) == len(expected)


def test_samples_are_numbered_as_planned(converted: tuple[Shards, Path], staged: Staged) -> None:
    shards, out = converted
    planned = [row.key for plan in plan_shards(staged, 2) for row in plan.rows]
    assert [key for split in ("train", "val") for key, _, _ in rows(out, shards, split)] == planned


def test_shards_differ_in_length_by_one_at_most(staged: Staged) -> None:
    lengths = [len(plan.rows) for plan in plan_shards(staged, 4) if plan.split == "train"]
    assert sorted(lengths) == [3, 4, 4, 4]


def test_there_are_no_more_shards_than_samples(staged: Staged) -> None:
    plans = plan_shards(staged, 100)
    assert [len(plan.rows) for plan in plans] == [1] * 21
    assert plans[-1].name == "val-00005-of-00006.mindrecord"


def test_too_many_undecodable_images_are_refused(images_copy: Path, tmp_path: Path) -> None:
    (images_copy / "train/dog/002.png").write_bytes(b"no image")
    bad = stage(open_source(str(images_copy)))
    message = refusal(lambda: write(bad, images_copy, tmp_path / "out"))
    assert message.startswith("1 of 21 samples don't decode, more than 0.1%; the first is ")
    assert "train/dog/002.png" in message
    assert not (tmp_path / "out" / "shards.json").exists()


def test_undecodable_image_is_quarantined_with_its_name_and_reason(
    images_copy: Path, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sknet.data.shards.MAX_QUARANTINED_SHARE", 0.1)
    (images_copy / "val/dog/000.png").write_bytes(b"no image")
    staged = stage(open_source(str(images_copy)))
    # As many shards as samples, so that one shard is left without any.
    shards = write(staged, images_copy, tmp_path / "one", num_shards=6)
    reason = "UnidentifiedImageError: not a JPEG, PNG or BMP image"
    assert shards.quarantined == (
        QuarantinedSample(split="val", key="val/dog/000.png", reason=reason),
    )
    assert (shards.num_samples("train"), shards.num_samples("val")) == (15, 5)

    batches = eval_batches(recipe, shards, tmp_path / "one", "val", np.arange(5), 5)
    assert sorted(next(batches)[1].tolist()) == [0, 0, 1, 2, 2]

    write(staged, images_copy, tmp_path / "two", num_shards=6, num_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_sound_images_decode(folders: Path) -> None:
    assert [undecodable(path.read_bytes()) for path in folders.glob("val/*/*")] == [None] * 6


@pytest.mark.parametrize("name", ["000.png", "001.jpg"])
def test_truncated_image_does_not_decode(folders: Path, name: str) -> None:
    content = (folders / "val/dog" / name).read_bytes()
    assert "truncated" in (undecodable(content[: len(content) // 2]) or "")


@pytest.mark.parametrize("content", [b"", b"no image", b"GIF89a"])
def test_what_is_no_image_does_not_decode(content: bytes) -> None:
    assert undecodable(content) == "UnidentifiedImageError: not a JPEG, PNG or BMP image"


def test_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    reason = undecodable((folders / "val/dog/000.png").read_bytes())
    assert (reason or "").startswith("DecompressionBomb")


def test_source_that_changed_since_staging_is_refused(images_copy: Path, tmp_path: Path) -> None:
    staged = stage(open_source(str(images_copy)))
    Image.new("RGB", (32, 32)).save(images_copy / "train/cat/000.png")
    message = refusal(lambda: write(staged, images_copy, tmp_path))
    assert message.startswith("sample train/cat/000.png changed while the pipeline ran")


def test_sample_that_vanished_since_staging_is_named(images_copy: Path, tmp_path: Path) -> None:
    (plan, *_) = plan_shards(stage(open_source(str(images_copy))), 1)
    (images_copy / "train/cat/000.png").unlink()
    message = refusal(lambda: write_shard(plan, str(images_copy), tmp_path))
    assert message == "sample train/cat/000.png can't be read: No such file or directory"


def test_sound_shards_are_read(converted: tuple[Shards, Path]) -> None:
    assert read_shards(converted[1]) == converted[0]


@pytest.mark.parametrize("suffix", ["", ".db"])
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_flipped_byte_is_named(shards_copy: Path, suffix: str, place: float) -> None:
    damaged = shards_copy / f"val-00001-of-00002.mindrecord{suffix}"
    content = bytearray(damaged.read_bytes())
    content[int(place * len(content)) if place > 0 else int(place)] ^= 1
    damaged.write_bytes(content)
    message = refusal(lambda: read_shards(shards_copy))
    assert message == f"shard {damaged} is damaged (SHA-256 differs): convert it again"


def test_split_that_is_not_asked_for_is_not_read(shards_copy: Path) -> None:
    (shards_copy / "val-00001-of-00002.mindrecord").unlink()
    read_shards(shards_copy, ["train"])
    assert "is missing: convert the data again" in refusal(lambda: read_shards(shards_copy))


def test_directory_without_a_record_is_refused(tmp_path: Path) -> None:
    assert refusal(lambda: read_shards(tmp_path)).startswith(f"{tmp_path / 'shards.json'}")


def test_a_segment_gives_the_samples_asked_for_in_their_order(
    converted: tuple[Shards, Path], recipe: Recipe
) -> None:
    shards, out = converted
    labels = [label for _, label, _ in rows(out, shards, "train")]
    indices = np.array([14, 0, 7, 3, 9, 2])
    batches = list(train_batches(recipe, shards, out, indices, 4, seed=1))
    assert [images.shape for images, _ in batches] == [(4, 3, 32, 32), (2, 3, 32, 32)]
    read = np.concatenate([part for _, part in batches]).tolist()
    assert read == [labels[index] for index in indices]


def test_augmentation_depends_on_the_seed_and_not_on_what_was_read_before(
    converted: tuple[Shards, Path], recipe: Recipe
) -> None:
    def pixels(seed: int) -> bytes:
        batches = train_batches(recipe, *converted, np.arange(12), 4, seed=seed)
        return b"".join(images.tobytes() for images, _ in batches)

    first, other, again = pixels(1), pixels(2), pixels(1)
    assert first == again
    assert first != other
