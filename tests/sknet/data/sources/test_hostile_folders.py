"""Hostile directories: every file is accepted as documented, or quarantined with a reason."""

import contextlib
import errno
import os
import shutil
import socket
import tempfile
import tracemalloc
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from sknet.data.sources import open_source
from sknet.data.sources.trees import LocalTree
from sknet.data.staging import Staged, stage_source
from sknet.errors import SourceReadError
from tests.refusals import refusal
from tests.sknet.conversions import stage

NOBODY = 65534


def stage_half(root: Path) -> Staged:
    """Stage although up to half of the samples are unusable."""
    return stage(root, max_quarantine=0.5)


def make_socket(path: Path) -> None:
    # A socket's path is limited to 107 bytes.
    before = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(before)


CAT = "train/cat"
REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    ("pipe.png", os.mkfifo, "no regular file"),
    ("socket.png", make_socket, "no regular file"),
    ("dev.png", lambda p: p.symlink_to("/dev/zero"), "no regular file"),
    ("dangling.png", lambda p: p.symlink_to("nothing.png"), "can't be read: No such file"),
    ("self.png", lambda p: p.symlink_to("self.png"), "can't be read: "),
    ("loop", lambda p: p.symlink_to("."), "a link to a folder that is read already"),
    ("up", lambda p: p.symlink_to(".."), "a link to a folder that is read already"),
    ("root", lambda p: p.symlink_to("/"), "a link to a folder that is read already"),
    (
        "photo.webp",
        lambda p: p.write_bytes(b"RIFF\0\0\0\0WEBPVP8 "),
        "an image of the format WebP: ",
    ),
    ("photo", lambda p: p.write_bytes(b"\0\0\0\x1cftypheic"), "an image of the format HEIF: "),
    ("photo.tif", lambda p: p.write_bytes(b"x"), "no JPEG, PNG or BMP image"),
    ("zero.png", lambda p: p.write_bytes(b""), "empty"),
    ("new\nline.png", lambda p: p.write_bytes(b"x"), "a name that is not printable UTF-8"),
    ("esc\x1b[31m.png", lambda p: p.write_bytes(b"x"), "a name that is not printable UTF-8"),
    ("rtl\u202egnp.png", lambda p: p.write_bytes(b"x"), "a name that is not printable UTF-8"),
    ("\udcff\udcfe.png", lambda p: p.write_bytes(b"x"), "a name that is not printable UTF-8"),
]


@pytest.mark.parametrize(("name", "make", "reason"), REFUSED)
def test_hostile_file_is_quarantined_and_the_others_are_staged(
    images_copy: Path, name: str, make: Callable[[Path], object], reason: str
) -> None:
    before = stage_half(images_copy)
    make(images_copy / CAT / name)
    after = stage_half(images_copy)
    assert after.dataset.samples_digest == before.dataset.samples_digest
    (quarantined,) = after.dataset.quarantined
    assert quarantined.split == "train"
    assert quarantined.key.startswith(f"{CAT}/")
    assert quarantined.key.isprintable()
    assert quarantined.reason.startswith(reason)


ACCEPTED = ["a b.png", "x" * 200 + ".png", "ünï.png", "日本.JPG", "x..png", "-rf.png", "$(x).png"]


@pytest.mark.parametrize("name", ACCEPTED)
def test_unusual_but_harmless_names_are_staged(images_copy: Path, name: str) -> None:
    shutil.copy(images_copy / CAT / "000.png", images_copy / CAT / name)
    assert f"{CAT}/{name}" in set(stage_half(images_copy).index["key"])


def test_links_to_images_and_to_folders_are_followed_wherever_they_lead(
    images_copy: Path, tmp_path: Path
) -> None:
    before = stage_half(images_copy)
    (images_copy / "all").mkdir()
    (images_copy / CAT / "000.png").rename(images_copy / "all/x.png")
    (images_copy / CAT / "000.png").symlink_to("../../all/x.png")
    (images_copy / CAT / "001.jpg").rename(tmp_path / "y.jpg")
    (images_copy / CAT / "001.jpg").symlink_to(tmp_path / "y.jpg")
    for folder in ("train/dog", "val"):
        moved = (images_copy / folder).rename(tmp_path / folder.replace("/", "-"))
        (images_copy / folder).symlink_to(moved)
    after = stage_half(images_copy)
    assert after.dataset == before.dataset
    pd.testing.assert_frame_equal(after.index, before.index)


def test_folders_to_which_several_links_lead_are_read_once(images_copy: Path) -> None:
    """A folder of two links to the next one would be read 2^20 times at the end of the chain."""
    pool = images_copy / "pool"
    for number in range(20):
        (pool / str(number)).mkdir(parents=True)
        for name in ("one", "two"):
            (pool / str(number) / name).symlink_to(pool / str(number + 1))
    (pool / "20").mkdir()
    shutil.copy(images_copy / CAT / "000.png", pool / "20/last.png")
    (images_copy / CAT / "more").symlink_to(pool / "0")
    index = stage(images_copy, max_quarantine=0.9).index
    key = "/".join((CAT, "more", *["one"] * 20, "last.png"))
    assert [each for each in index["key"] if "more" in each] == [key]


def test_link_to_a_folder_above_is_no_class(images_copy: Path) -> None:
    before = stage_half(images_copy)
    (images_copy / "train/again").symlink_to("..")
    after = stage_half(images_copy)
    assert after.dataset.classes == before.dataset.classes
    (quarantined,) = after.dataset.quarantined
    assert (quarantined.key, quarantined.reason) == ("train/again", "a link to a folder")


def test_class_that_is_a_broken_link_is_named(images_copy: Path) -> None:
    (images_copy / "train/fish").symlink_to("nowhere")
    (quarantined,) = stage_half(images_copy).dataset.quarantined
    assert (quarantined.key, quarantined.reason) == (
        "train/fish",
        "can't be read: No such file or directory",
    )


def test_directory_itself_may_be_a_link(images_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(images_copy)
    assert stage_half(tmp_path / "link").dataset == stage_half(images_copy).dataset


def test_two_names_that_are_equal_as_text_give_one_sample(images_copy: Path) -> None:
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "ü.png")
        shutil.copy(images_copy / CAT / "000.png", images_copy / CAT / name)
    (quarantined,) = stage_half(images_copy).dataset.quarantined
    assert quarantined.reason.startswith(f"a second file of the name of {CAT}/")


def test_too_large_image_is_quarantined_without_being_read(images_copy: Path) -> None:
    with (images_copy / CAT / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    (quarantined,) = stage_half(images_copy).dataset.quarantined
    assert quarantined.reason == f"{1 << 40} bytes, more than {1 << 28}"


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Run as another user if this is root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_copy(folders: Path) -> Iterator[Path]:
    """The images of `folders`, where another user may read them."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        yield Path(shutil.copytree(folders, Path(root) / "images"))


def test_reading_a_small_file_takes_no_more_memory_than_its_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4
    (tmp_path / "small").write_bytes(content)
    tree = LocalTree(tmp_path)
    tracemalloc.start()
    try:
        assert tree.read("small", size=1 << 28) == content
        assert tree.read("small", 1000, 1 << 28) == content[1000:]
        assert tree.read("small", 2000) == b""
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_file_that_may_not_be_read_is_quarantined(public_copy: Path) -> None:
    (public_copy / CAT / "001.jpg").chmod(0)
    with without_rights():
        (quarantined,) = stage_half(public_copy).dataset.quarantined
    assert (quarantined.key, quarantined.reason) == (
        f"{CAT}/001.jpg",
        "can't be read: Permission denied",
    )


def test_folder_that_may_not_be_listed_is_quarantined(public_copy: Path) -> None:
    (public_copy / CAT / "more").mkdir(mode=0)
    with without_rights():
        (quarantined,) = stage_half(public_copy).dataset.quarantined
    assert quarantined.reason == "the folder can't be listed: Permission denied"
    (public_copy / CAT / "more").chmod(0o755)


def test_file_that_vanishes_while_staging_is_quarantined(images_copy: Path) -> None:
    source = open_source(str(images_copy))
    listed = list(source.files())
    (images_copy / CAT / "002.png").unlink()
    source.files = lambda: iter(listed)
    (quarantined,) = stage_source(source, max_quarantine=0.5).dataset.quarantined
    assert quarantined.reason == "can't be read: No such file or directory"


def test_file_that_becomes_a_pipe_while_staging_is_quarantined(images_copy: Path) -> None:
    source = open_source(str(images_copy))
    listed = list(source.files())
    (images_copy / CAT / "002.png").unlink()
    os.mkfifo(images_copy / CAT / "002.png")
    source.files = lambda: iter(listed)
    (quarantined,) = stage_source(source, max_quarantine=0.5).dataset.quarantined
    assert quarantined.reason == "can't be read: no regular file"


def test_failing_disk_quarantines_nothing(
    images_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image may be undamaged; without it, the data set would be another one."""
    whole = LocalTree.read

    def fail_once(tree: LocalTree, path: str, offset: int = 0, size: int | None = None) -> bytes:
        if path == f"{CAT}/002.png":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(tree, path, offset, size)

    monkeypatch.setattr(LocalTree, "read", fail_once)
    with pytest.raises(SourceReadError) as caught:
        stage_half(images_copy)
    message = str(caught.value)
    assert message == f"{images_copy}: {CAT}/002.png can't be read: Input/output error; try again"


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + "?val=0.2", "nul\0"])
def test_name_that_no_directory_can_have_is_refused(name: str) -> None:
    assert "does not exist or is not a directory" in refusal(lambda: open_source(name))


def test_class_without_a_usable_image_is_refused(images_copy: Path) -> None:
    for image in (images_copy / "val/emu").iterdir():
        image.write_bytes(b"")
    message = refusal(lambda: stage_half(images_copy))
    assert message.startswith("class 'emu' has no usable image for 'val'")
