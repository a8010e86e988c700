"""No unchanged file is read twice; an own split; Fashion-MNIST's files."""

import gzip
import io
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sknet.data.sources import Sample, absolute, open_source
from sknet.data.staging import ScanCache, Staged, stage_source
from tests.imagenet import write_archives
from tests.refusals import refusal


@pytest.fixture
def copy(folders: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders, tmp_path / "images"))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this moment count as settled."""
    monkeypatch.setattr("infra.base.verified.SETTLED_NS", 0)


def staged_with(ledgers: Path, root: Path | str, *, full: bool = False) -> Staged:
    source = open_source(str(root))
    return stage_source(source, ScanCache(source, ledgers), full=full, max_quarantine=0.5)


def test_a_second_run_reads_nothing_and_finds_the_same(
    copy: Path, tmp_path: Path, settled: None
) -> None:
    (copy / "train/cat/zero.png").write_bytes(b"")
    first = staged_with(tmp_path / "ledgers", copy)
    again = staged_with(tmp_path / "ledgers", copy)
    assert (first.num_files_read, again.num_files_read) == (22, 0)
    assert again.dataset == first.dataset
    pd.testing.assert_frame_equal(again.index, first.index)


def test_only_what_changed_is_read(copy: Path, tmp_path: Path, settled: None) -> None:
    staged_with(tmp_path, copy)
    shutil.copy(copy / "train/cat/000.png", copy / "train/cat/new.png")
    shutil.copy(copy / "train/cat/002.png", copy / "train/cat/001.jpg")
    assert staged_with(tmp_path, copy).num_files_read == 2


def test_a_change_that_keeps_size_and_time_is_noticed(
    copy: Path, tmp_path: Path, settled: None
) -> None:
    before = staged_with(tmp_path, copy)
    image = copy / "train/cat/000.png"
    found = image.stat()
    image.write_bytes(image.read_bytes()[::-1])
    os.utime(image, ns=(found.st_atime_ns, found.st_mtime_ns))
    after = staged_with(tmp_path, copy)
    assert after.num_files_read == 1
    assert after.dataset.samples_digest != before.dataset.samples_digest


def test_a_file_that_changed_just_now_is_read_again(copy: Path, tmp_path: Path) -> None:
    staged_with(tmp_path, copy)
    assert staged_with(tmp_path, copy).num_files_read == 21


def test_full_reads_everything(copy: Path, tmp_path: Path, settled: None) -> None:
    staged_with(tmp_path, copy)
    assert staged_with(tmp_path, copy, full=True).num_files_read == 21


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_damaged_ledger_is_written_anew(
    copy: Path, tmp_path: Path, settled: None, content: bytes
) -> None:
    staged_with(tmp_path / "ledgers", copy)
    (ledger,) = (tmp_path / "ledgers").iterdir()
    ledger.write_bytes(content)
    assert staged_with(tmp_path / "ledgers", copy).num_files_read == 21
    assert staged_with(tmp_path / "ledgers", copy).num_files_read == 0


def test_without_a_place_for_the_ledger_everything_is_read(
    copy: Path, tmp_path: Path, settled: None
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        assert staged_with(tmp_path / "file" / "below", copy).num_files_read == 21


def test_archives_are_read_once(tmp_path: Path, settled: None) -> None:
    root = write_archives(tmp_path / "archives")
    first = staged_with(tmp_path / "ledgers", root)
    again = staged_with(tmp_path / "ledgers", root)
    assert (first.num_files_read, again.num_files_read) == (2, 0)
    assert again.dataset == first.dataset


def test_an_archive_of_a_wrong_md5_is_not_remembered(tmp_path: Path, settled: None) -> None:
    root = write_archives(tmp_path / "archives")
    sums = (root / "MD5SUMS").read_text()
    (root / "MD5SUMS").unlink()
    refusal(lambda: staged_with(tmp_path / "ledgers", root))
    (root / "MD5SUMS").write_text(sums)
    assert not list((tmp_path / "ledgers").glob("*"))


@pytest.fixture
def unsplit(folders: Path, tmp_path: Path) -> Path:
    """10 images of each class, in folders of classes alone."""
    root = tmp_path / "unsplit"
    for name in ("cat", "dog", "emu"):
        (root / name).mkdir(parents=True)
        for index in range(10):
            shutil.copy(folders / "train" / name / "000.png", root / name / f"{index}.png")
    return root


def val_keys(staged: Staged) -> set[str]:
    index = staged.index
    return set(index["key"][index["split"] == "val"])


def test_folders_without_a_split_hold_out_a_tenth_of_each_class(unsplit: Path) -> None:
    staged = stage_source(open_source(str(unsplit)))
    assert staged.dataset.splits == {"train": 27, "val": 3}
    assert {key.split("/")[0] for key in val_keys(staged)} == {"cat", "dog", "emu"}
    assert stage_source(open_source(str(unsplit))).dataset == staged.dataset


def test_share_and_seed_are_the_users(unsplit: Path) -> None:
    chosen = {
        query: val_keys(stage_source(open_source(f"{unsplit}?{query}")))
        for query in ("val=0.3", "val=0.3&seed=0", "val=0.3&seed=1")
    }
    assert [len(keys) for keys in chosen.values()] == [9, 9, 9]
    assert chosen["val=0.3"] == chosen["val=0.3&seed=0"]
    assert chosen["val=0.3"] != chosen["val=0.3&seed=1"]


def test_images_keep_their_split_when_others_come(unsplit: Path) -> None:
    before = stage_source(open_source(f"{unsplit}?val=0.5"))
    for index in range(10, 12):
        shutil.copy(unsplit / "cat/0.png", unsplit / f"cat/{index}.png")
    after = stage_source(open_source(f"{unsplit}?val=0.5"))
    assert len(val_keys(before) - val_keys(after)) <= 1


@pytest.mark.parametrize("query", ["val=0", "val=1", "val=x", "val=nan", "seed=a", "size=3"])
def test_a_split_rule_that_makes_no_sense_is_refused(unsplit: Path, query: str) -> None:
    assert f"data source '{unsplit}?{query}'" in refusal(lambda: open_source(f"{unsplit}?{query}"))


def test_a_class_of_one_image_can_not_be_split(unsplit: Path) -> None:
    for index in range(1, 10):
        (unsplit / f"dog/{index}.png").unlink()
    assert "class 'dog' has 1 image in" in refusal(lambda: stage_source(open_source(str(unsplit))))


def test_a_directory_with_a_question_mark_is_itself(unsplit: Path, tmp_path: Path) -> None:
    odd = unsplit.rename(tmp_path / "what?val=0.5")
    assert stage_source(open_source(str(odd))).dataset.splits == {"train": 27, "val": 3}


@pytest.mark.parametrize("scheme", ["gs://bucket/x", "http://host/x"])
def test_an_unknown_scheme_is_refused(scheme: str) -> None:
    assert "expected a directory, or a URI that begins with s3://" in refusal(
        lambda: open_source(scheme)
    )


def test_sources_stay_the_same_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [absolute(s) for s in ("digits", "s3://b/p", "x?val=0.1", "fashion-mnist:y")] == [
        *("digits", "s3://b/p", f"{tmp_path}/x?val=0.1", f"fashion-mnist:{tmp_path}/y")
    ]


def idx(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def write_fashion(root: Path, *, gzipped: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    root.mkdir()
    arrays = {}
    for prefix, count in (("train", 30), ("t10k", 10)):
        arrays[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte"] = rng.permutation(
            np.arange(count, dtype=np.uint8) % 10
        )
    for name, array in arrays.items():
        content = idx(array)
        path = root / (f"{name}.gz" if gzipped else name)
        path.write_bytes(gzip.compress(content) if gzipped else content)
    return arrays


@pytest.mark.parametrize("gzipped", [False, True])
def test_fashion_mnist_is_read_from_its_files(tmp_path: Path, gzipped: bool) -> None:
    arrays = write_fashion(tmp_path / "data", gzipped=gzipped)
    source = open_source(f"fashion-mnist:{tmp_path / 'data'}")
    staged = stage_source(source)
    assert staged.dataset.splits == {"train": 30, "val": 10}
    assert staged.dataset.titles[0] == "T-shirt/top"
    for split, prefix in (("train", "train"), ("val", "t10k")):
        part = staged.index[staged.index["split"] == split]
        labels = arrays[f"{prefix}-labels-idx1-ubyte"]
        assert part["label"].tolist() == labels.tolist()
        for row in part.itertuples(index=False):
            sample = Sample(*row)
            with Image.open(io.BytesIO(source.read(sample))) as image:
                pixels = np.asarray(image)
            assert (pixels == arrays[f"{prefix}-images-idx3-ubyte"][sample.offset]).all()


FASHION_FAULTS = [
    ("train-images-idx3-ubyte", b"", "is no IDX file of bytes with 3 axes"),
    ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + bytes(12), "is no IDX file of bytes with 3"),
    ("train-images-idx3-ubyte", b"\0\0\x08\x01" + bytes(12), "is no IDX file of bytes with 3"),
    ("train-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "claims 79228162458924"),
    ("train-images-idx3-ubyte", idx(np.zeros((30, 28, 28), np.uint8))[:-1], "doesn't have the"),
    ("train-images-idx3-ubyte", idx(np.zeros((30, 28, 28), np.uint8)) + b"x", "doesn't have the"),
    ("train-labels-idx1-ubyte", idx(np.zeros(29, np.uint8)), "has 29 labels for 30 images"),
    ("train-labels-idx1-ubyte", idx(np.full(30, 10, np.uint8)), "has the label 10, expected 0"),
]


@pytest.mark.parametrize(("name", "content", "reason"), FASHION_FAULTS)
def test_files_of_another_form_are_refused(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    write_fashion(tmp_path / "data", gzipped=False)
    (tmp_path / "data" / name).write_bytes(content)
    message = refusal(lambda: stage_source(open_source(f"fashion-mnist:{tmp_path / 'data'}")))
    assert f"{name} {reason}" in message


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"x" * 99, mtime=0)[:-9]])
def test_gzipped_files_of_another_form_are_refused(tmp_path: Path, content: bytes) -> None:
    write_fashion(tmp_path / "data", gzipped=True)
    (tmp_path / "data/train-images-idx3-ubyte.gz").write_bytes(content)
    message = refusal(lambda: stage_source(open_source(f"fashion-mnist:{tmp_path / 'data'}")))
    assert "train-images-idx3-ubyte.gz" in message


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    write_fashion(tmp_path / "data", gzipped=True)
    (tmp_path / "data/t10k-labels-idx1-ubyte.gz").unlink()
    assert "has no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz" in refusal(
        lambda: open_source(f"fashion-mnist:{tmp_path / 'data'}")
    )


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300))
def test_arbitrary_idx_files_are_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.mktemp("idx") / "data"
    write_fashion(root, gzipped=False)
    (root / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + content)
    refusal(lambda: stage_source(open_source(f"fashion-mnist:{root}")))
