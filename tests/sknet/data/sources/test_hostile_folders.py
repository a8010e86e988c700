"""Hostile directories: every file is accepted as documented, or quarantined with a reason."""

import contextlib
import errno
import os
import shutil
import socket
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

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
LEAVES = "a symbolic link that leaves the data directory"
REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    ("pipe.png", os.mkfifo, "no regular file"),
    ("socket.png", make_socket, "no regular file"),
    ("link.png", lambda p: p.symlink_to("/etc/passwd"), LEAVES),
    ("up.png", lambda p: p.symlink_to("../../../outside.png"), LEAVES),
    ("dev.png", lambda p: p.symlink_to("/dev/zero"), LEAVES),
    ("dangling.png", lambda p: p.symlink_to("nothing.png"), "can't be read: No such file"),
    ("self.png", lambda p: p.symlink_to("self.png"), "can't be read: "),
    ("folder.png", lambda p: p.symlink_to("../dog"), "a link to a folder"),
    ("loop", lambda p: p.symlink_to("..", target_is_directory=True), "a link to a folder"),
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
    (images_copy.parent / "outside.png").write_bytes(b"secret")
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


def test_link_to_an_image_within_the_directory_is_a_sample(images_copy: Path) -> None:
    (images_copy / "all").mkdir()
    (images_copy / CAT / "000.png").rename(images_copy / "all/x.png")
    (images_copy / CAT / "000.png").symlink_to("../../all/x.png")
    assert f"{CAT}/000.png" in set(stage_half(images_copy).index["key"])


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


def test_more_than_the_tolerated_fraction_is_refused_with_the_first(images_copy: Path) -> None:
    for name in ("b.png", "a.png"):
        (images_copy / CAT / name).write_bytes(b"")
    assert refusal(lambda: stage(images_copy)) == (
        "2 of 23 samples (8.70%) can't be used, more than 0.10%; "
        "the first is train/cat/a.png: empty"
    )


def test_class_without_a_usable_image_is_refused(images_copy: Path) -> None:
    for image in (images_copy / "val/emu").iterdir():
        image.write_bytes(b"")
    message = refusal(lambda: stage_half(images_copy))
    assert message.startswith("class 'emu' has no usable image for 'val'")
