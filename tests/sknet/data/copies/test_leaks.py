"""Leaks: what the record says of copies, and what --on-leak does about those in several splits."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import PIL.Image
import pytest

from infra.base.records import Record
from sknet import convert, train, validate
from sknet.data.copies import leaks
from sknet.data.copies.leaks import (
    copy_groups,
    copy_warnings,
    refuse_leaks,
    table_rows,
    without_leaks,
)
from sknet.data.scan_cache import ScanCache
from sknet.data.sources import Sample, open_source
from sknet.data.staging import Staged, stage_source
from sknet.records import CopyGroup, Dataset, QuarantinedSample
from tests.imagenet import photos, write_archives
from tests.photographs import encoded, photographs, tiles
from tests.refusals import refusal
from tests.sknet.conversions import stage


def sample(key: str, label: int = 0, sha256: str = "") -> Sample:
    return Sample(key.split("/")[0], key, label, 1, sha256 or key, key, 0)


SAMPLES = [
    sample("test/a", sha256="x"),
    sample("train/a", sha256="x"),
    sample("train/b"),
    sample("train/c", 1, sha256="y"),
    sample("train/d", sha256="y"),
    sample("train/e"),
    sample("train/f"),
    sample("val/a", sha256="x"),
    sample("val/b", 1),
]
COPIES = [
    ("train/e", "train/f"),
    ("train/d", "train/c"),
    ("val/b", "train/b"),
    ("val/a", "test/a", "train/a"),
]


def group(*keys: str, labels: Sequence[int] = (), exact: bool = False) -> CopyGroup:
    return CopyGroup(
        keys=keys,
        splits=tuple(key.split("/")[0] for key in keys),
        labels=tuple(labels or [0] * len(keys)),
        exact=exact,
    )


def test_leaks_come_first_and_of_each_kind_those_with_several_labels() -> None:
    assert copy_groups(SAMPLES, COPIES) == (
        group("train/b", "val/b", labels=(0, 1)),
        group("test/a", "train/a", "val/a", exact=True),
        group("train/c", "train/d", labels=(1, 0), exact=True),
        group("train/e", "train/f"),
    )


def test_copies_that_are_no_samples_count_for_nothing() -> None:
    kept = [each for each in SAMPLES if each.key not in ("train/b", "train/a", "test/a")]
    assert [each.keys for each in copy_groups(kept, COPIES)] == [
        ("train/c", "train/d"),
        ("train/e", "train/f"),
    ]


def test_groups_that_do_no_harm_are_listed_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "MAX_OTHERS", 1)
    assert [each.keys[0] for each in copy_groups(SAMPLES, COPIES)] == [
        "train/b",
        "test/a",
        "train/c",
    ]


def test_more_leaks_than_a_record_lists_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "MAX_LEAKING", 4)
    message = refusal(lambda: copy_groups(SAMPLES, COPIES))
    assert message.startswith("5 samples have copies in other splits, more than the 4 that")


def test_test_split_keeps_its_samples_then_validation() -> None:
    kept, dropped = without_leaks(SAMPLES, COPIES)
    assert dropped == (
        QuarantinedSample(
            split="train", key="train/a", reason="a copy of test/a, which is in test"
        ),
        QuarantinedSample(split="train", key="train/b", reason="a copy of val/b, which is in val"),
        QuarantinedSample(split="val", key="val/a", reason="a copy of test/a, which is in test"),
    )
    assert kept == [each for each in SAMPLES if each.key not in {one.key for one in dropped}]
    assert not any(each.leaks for each in copy_groups(kept, COPIES))


def test_refusal_names_one_leak() -> None:
    refuse_leaks(copy_groups(SAMPLES, COPIES[:2]))
    assert refusal(lambda: refuse_leaks(copy_groups(SAMPLES, COPIES))) == (
        "5 samples show an image that is in another split, too, such as train/b = val/b: "
        "leave one of them out, or choose --on-leak drop or warn"
    )


def test_record_knows_the_leaked_keys_of_a_split() -> None:
    record = dataset(copies=copy_groups(SAMPLES, COPIES))
    assert record.leaked("train") == {"train/a", "train/b"}
    assert record.leaked("val") == {"val/a", "val/b"}
    assert record.leaked("test") == {"test/a"}
    assert record.leaked("other") == frozenset()


def test_record_without_copies_has_the_digest_that_it_had_before_copies_were_looked_for() -> None:
    class DatasetOfOld(Record):
        source: str
        classes: tuple[str, ...]
        titles: tuple[str, ...]
        splits: dict[str, int]
        samples_digest: str
        index_sha256: str
        quarantined: tuple[QuarantinedSample, ...]

    record = dataset()
    old = DatasetOfOld.model_validate_json(record.encode())
    assert old.encode() == record.encode()
    assert old.content_digest == record.content_digest
    assert dataset(copies=copy_groups(SAMPLES, COPIES)).content_digest != old.content_digest


def dataset(**fields: object) -> Dataset:
    return Dataset(
        source="class-folders",
        classes=("cat", "dog"),
        titles=("cat", "dog"),
        splits={"train": 6, "val": 2, "test": 1},
        samples_digest="0" * 64,
        index_sha256="0" * 64,
        quarantined=(),
        **fields,
    )


def test_group_has_a_split_and_a_label_for_each_key() -> None:
    with pytest.raises(ValueError, match="as many splits and labels as keys"):
        CopyGroup(keys=("a", "b"), splits=("train",), labels=(0, 0), exact=True)


def test_warnings_say_how_many_and_which() -> None:
    kept, dropped = without_leaks(SAMPLES, COPIES[:3])
    assert copy_warnings(dataset(copies=copy_groups(SAMPLES, COPIES))) == [
        "images in several splits: 2 of 6 in train, 2 of 2 in val, 1 of 1 in test; "
        "--on-leak drop leaves copies out",
        "  near copies: train/b (cat) = val/b (dog)",
        "  equal: test/a = train/a = val/a",
        "images under several labels: 2",
        "  near copies: train/b (cat) = val/b (dog)",
        "  equal: train/c (dog), train/d (cat)",
    ]
    assert copy_warnings(dataset(copies=copy_groups(kept, COPIES[:1]), dropped=dropped)) == [
        "left out by --on-leak drop: 1",
        "  train/b: a copy of val/b, which is in val",
    ]
    assert copy_warnings(dataset(), alike=True) == [
        "more than half of the images look alike: only equal files count as copies"
    ]
    assert copy_warnings(dataset()) == []


def test_warnings_and_tables_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    record = dataset(copies=tuple(group(f"train/{each:03}", f"val/{each}") for each in range(150)))
    assert copy_warnings(record)[-1] == "  and 140 more, in dataset.json"
    assert len(table_rows(record)) == 100
    crowded = group(*(f"train/{each}" for each in range(5)), "val/a")
    assert table_rows(dataset(copies=(crowded,)))[0] == {
        "images": "train/0, train/1, train/2 and 2 more = val/a",
        "splits": "train, val",
        "classes": "cat",
        "equal": "nearly",
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of two classes, with a copy of a validation image and one of another label."""
    root = tmp_path_factory.mktemp("planted")
    for name in ("flower", "temple"):
        for number, tile in zip(range(6), tiles(photographs()[name], 64), strict=False):
            path = root / ("val" if number < 2 else "train") / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(tile))
    with PIL.Image.open(root / "val/flower/0.jpg") as image:
        (root / "train/flower/again.jpg").write_bytes(encoded(image.resize((50, 50)), 60))
    shutil.copy(root / "train/temple/3.jpg", root / "train/flower/temple.jpg")
    return root


def test_staging_records_planted_copies(planted: Path) -> None:
    assert stage(planted).dataset.copies == (
        group("train/flower/again.jpg", "val/flower/0.jpg"),
        group("train/flower/temple.jpg", "train/temple/3.jpg", labels=(0, 1), exact=True),
    )


def test_staging_refuses_leaks_if_told_to(planted: Path) -> None:
    message = refusal(lambda: stage(planted, on_leak="refuse"))
    assert "such as train/flower/again.jpg = val/flower/0.jpg: " in message


def test_staging_drops_leaks_if_told_to(planted: Path) -> None:
    staged = stage(planted, on_leak="drop")
    assert [each.key for each in staged.dataset.dropped] == ["train/flower/again.jpg"]
    assert "train/flower/again.jpg" not in set(staged.index["key"])
    assert staged.dataset.splits == {"train": 9, "val": 4}
    assert not any(each.leaks for each in staged.dataset.copies)


def test_class_that_dropping_would_empty_is_refused(planted: Path, tmp_path: Path) -> None:
    root = shutil.copytree(planted, tmp_path / "root")
    shutil.rmtree(root / "train/temple")
    shutil.copytree(root / "val/temple", root / "train/temple")
    message = refusal(lambda: stage(root, on_leak="drop"))
    assert message.startswith("class 'temple' has no usable image for 'train' in ")
    assert message.endswith("after --on-leak drop")


@pytest.mark.usefixtures("settled")
def test_fingerprints_are_cached(planted: Path, tmp_path: Path) -> None:
    def staged() -> Staged:
        source = open_source(str(planted))
        return stage_source(source, ScanCache(source, tmp_path))

    first, again = staged(), staged()
    assert (first.num_files_read, again.num_files_read) == (14, 0)
    assert again.dataset == first.dataset
    assert len(first.dataset.copies) == 2


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may be cached although they have just been written."""
    monkeypatch.setattr("infra.base.verified.SETTLED_NS", 0)


def test_copies_in_archives_are_the_same_as_in_folders(tmp_path: Path) -> None:
    folders = tmp_path / "folders"
    for split, files in photos().items():
        for name, content in files.items():
            path = folders / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    of_folders = stage(folders).dataset
    of_archives = stage(write_archives(tmp_path / "archives")).dataset
    assert of_archives.copies == of_folders.copies
    assert of_archives.samples_digest == of_folders.samples_digest


@pytest.mark.usefixtures("program_state")
def test_every_program_that_stages_a_source_has_the_option(
    call: Callable[..., tuple[int, str, str]],
    planted: Path,
    recipe_file: Path,
    checkpoints: dict[int, Path],
) -> None:
    data = ("--config", recipe_file, "--data_dir", planted, "--distribute", "False")
    for program, *options in (
        (convert, "--source", planted, "--out", "shards", "--shards", 1, "--workers", 1),
        (train, *data),
        (validate, *data, "--ckpt_path", checkpoints[3]),
    ):
        code, output, error = call(program, *options, "--on-leak", "refuse")
        assert code == 2
        assert "stage: images in several splits: 1 of 10 in train, 1 of 4 in val" in output
        assert "such as train/flower/again.jpg = val/flower/0.jpg: " in error
