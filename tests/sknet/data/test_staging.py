"""Staging: the record and the index of a data set, and the cache that spares reading it again."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from infra.base.progress import watching
from sknet.data.scan_cache import ScanCache
from sknet.data.sources import open_source
from sknet.data.staging import Staged, read_staged, stage_source
from tests.imagenet import write_archives
from tests.refusals import refusal
from tests.sknet.conversions import stage


def test_record_and_index_depend_on_the_content_alone(folders: Path, images_copy: Path) -> None:
    one, other = stage(folders), stage(images_copy)
    assert one.dataset == other.dataset
    pd.testing.assert_frame_equal(one.index, other.index)


def test_digest_changes_with_one_byte(folders: Path, images_copy: Path) -> None:
    image = images_copy / "val/emu/001.jpg"
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    before, after = stage(folders), stage(images_copy)
    assert before.dataset.samples_digest != after.dataset.samples_digest


def test_digest_changes_with_a_name(folders: Path, images_copy: Path) -> None:
    (images_copy / "val/emu/001.jpg").rename(images_copy / "val/emu/002.jpg")
    before, after = stage(folders), stage(images_copy)
    assert before.dataset.samples_digest != after.dataset.samples_digest


@pytest.fixture
def written(folders: Path, tmp_path: Path) -> Staged:
    """The data set of `folders`, written to `tmp_path`."""
    staged = stage(folders)
    staged.write(tmp_path)
    return staged


def test_what_is_written_is_read_back(written: Staged, tmp_path: Path) -> None:
    read = read_staged(tmp_path)
    assert read.dataset == written.dataset
    pd.testing.assert_frame_equal(read.index, written.index)


def test_index_that_was_written_in_pieces_is_read_in_one(written: Staged, tmp_path: Path) -> None:
    written.index.to_parquet(tmp_path / "samples.parquet", index=False, row_group_size=2)
    index = read_staged(tmp_path).index
    pd.testing.assert_frame_equal(index, written.index)
    for column in ("split", "key", "sha256"):
        assert index[column].array._pa_array.num_chunks == 1


@pytest.mark.parametrize("column", ["split", "key", "label", "size", "sha256"])
def test_changed_index_is_refused(written: Staged, tmp_path: Path, column: str) -> None:
    index = written.index.copy()
    index.loc[3, column] = index.loc[3, column] * 2 + type(index.loc[3, column])(1)
    index.to_parquet(tmp_path / "samples.parquet", index=False)
    message = refusal(lambda: read_staged(tmp_path))
    assert "does not belong to its dataset.json" in message


def test_damaged_or_missing_index_is_refused(written: Staged, tmp_path: Path) -> None:
    (tmp_path / "samples.parquet").write_bytes(b"PAR1 and no more")
    assert "can't be read" in refusal(lambda: read_staged(tmp_path))
    (tmp_path / "samples.parquet").unlink()
    assert "can't be read" in refusal(lambda: read_staged(tmp_path))


def test_record_with_an_unknown_field_is_refused(written: Staged, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text().replace("{", '{"extra": 1,', 1))
    assert "is no valid Dataset: extra" in refusal(lambda: read_staged(tmp_path))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may be cached although they have just been written."""
    monkeypatch.setattr("infra.base.verified.SETTLED_NS", 0)


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    return write_archives(tmp_path / "archives")


def stage_cached(caches: Path, root: Path, *, full: bool = False) -> Staged:
    source = open_source(str(root))
    return stage_source(source, ScanCache(source, caches), full=full, max_quarantine=0.5)


@pytest.mark.usefixtures("settled")
def test_second_staging_reads_nothing_and_finds_the_same(images_copy: Path, tmp_path: Path) -> None:
    (images_copy / "train/cat/zero.png").write_bytes(b"")
    first = stage_cached(tmp_path / "caches", images_copy)
    again = stage_cached(tmp_path / "caches", images_copy)
    assert (first.num_files_read, again.num_files_read) == (22, 0)
    assert again.dataset == first.dataset
    pd.testing.assert_frame_equal(again.index, first.index)


@pytest.mark.usefixtures("settled")
def test_only_changed_files_are_read(images_copy: Path, tmp_path: Path) -> None:
    stage_cached(tmp_path, images_copy)
    shutil.copy(images_copy / "train/cat/000.png", images_copy / "train/cat/new.png")
    shutil.copy(images_copy / "train/cat/002.png", images_copy / "train/cat/001.jpg")
    assert stage_cached(tmp_path, images_copy).num_files_read == 2


@pytest.mark.usefixtures("settled")
def test_change_that_keeps_size_and_time_is_noticed(images_copy: Path, tmp_path: Path) -> None:
    before = stage_cached(tmp_path, images_copy)
    image = images_copy / "train/cat/000.png"
    found = image.stat()
    image.write_bytes(image.read_bytes()[::-1])
    os.utime(image, ns=(found.st_atime_ns, found.st_mtime_ns))
    after = stage_cached(tmp_path, images_copy)
    assert after.num_files_read == 1
    assert after.dataset.samples_digest != before.dataset.samples_digest


def test_file_that_changed_just_now_is_read_again(images_copy: Path, tmp_path: Path) -> None:
    stage_cached(tmp_path, images_copy)
    assert stage_cached(tmp_path, images_copy).num_files_read == 21


@pytest.mark.usefixtures("settled")
def test_full_reads_everything(images_copy: Path, tmp_path: Path) -> None:
    stage_cached(tmp_path, images_copy)
    assert stage_cached(tmp_path, images_copy, full=True).num_files_read == 21


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("library", ["PIL", "imagehash"])
def test_fingerprints_of_other_versions_are_not_used(
    images_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    stage_cached(tmp_path / "caches", images_copy)
    with monkeypatch.context() as upgraded:
        upgraded.setattr(f"{library}.__version__", "99.0")
        assert stage_cached(tmp_path / "caches", images_copy).num_files_read == 21
    assert stage_cached(tmp_path / "caches", images_copy).num_files_read == 0


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_damaged_cache_is_written_again(images_copy: Path, tmp_path: Path, content: bytes) -> None:
    stage_cached(tmp_path / "caches", images_copy)
    (cache,) = (tmp_path / "caches").iterdir()
    cache.write_bytes(content)
    assert stage_cached(tmp_path / "caches", images_copy).num_files_read == 21
    assert stage_cached(tmp_path / "caches", images_copy).num_files_read == 0


@pytest.mark.usefixtures("settled")
def test_without_a_directory_for_the_cache_everything_is_read(
    images_copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        assert stage_cached(tmp_path / "file" / "below", images_copy).num_files_read == 21


@pytest.mark.usefixtures("settled")
def test_archives_are_read_once(archives: Path, tmp_path: Path) -> None:
    first = stage_cached(tmp_path / "caches", archives)
    again = stage_cached(tmp_path / "caches", archives)
    assert (first.num_files_read, again.num_files_read) == (2, 0)
    assert again.dataset == first.dataset


def test_progress_follows_the_images_within_an_archive(archives: Path, tmp_path: Path) -> None:
    told: list[float] = []
    with watching(lambda _: told.append):
        staged = stage_cached(tmp_path / "caches", archives)
    # Each image, and what is left of each file: more steps than files.
    assert len(told) >= len(staged.index) > len(list(archives.iterdir()))
    assert told == sorted(told)
    assert told[-1] == 1


@pytest.mark.usefixtures("settled")
def test_archive_of_a_wrong_md5_is_not_cached(archives: Path, tmp_path: Path) -> None:
    (archives / "MD5SUMS").unlink()
    refusal(lambda: stage_cached(tmp_path / "caches", archives))
    assert not list((tmp_path / "caches").glob("*"))
