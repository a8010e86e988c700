"""Hostile archives: every member is accepted as documented, or quarantined with a reason."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sknet.data.sources.source import ScannedImage
from sknet.data.sources.tars import ForwardReader, scan_tar
from sknet.data.sources.trees import Skipped
from sknet.errors import UserError
from tests.imagenet import append_member, photos, tar_of, write_archives
from tests.sknet.conversions import stage

IMAGE = next(iter(photos()["val"].values()))
GOOD = "ILSVRC2012_val_00000001.JPEG"


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for made, content in members:
            if content:
                made.size = len(content)
            tar.addfile(made, io.BytesIO(content))
    return buffer.getvalue()


def scan(content: bytes, depth: int = 1) -> list[ScannedImage | Skipped]:
    return list(scan_tar(ForwardReader(io.BytesIO(content)), "a.tar", depth=depth))


LINK = {"linkname": "/etc/passwd"}
ESCAPES = "a name that leaves the archive"
REFUSED = [
    (member("../x.JPEG"), IMAGE, ESCAPES),
    (member("a/../../x.JPEG"), IMAGE, ESCAPES),
    (member("a/.."), IMAGE, ESCAPES),
    (member("/etc/x.JPEG"), IMAGE, ESCAPES),
    (member("//x.JPEG"), IMAGE, ESCAPES),
    (member("../.hidden.JPEG"), IMAGE, ESCAPES),
    (member("x.JPEG", tarfile.SYMTYPE, **LINK), b"", "a symbolic link"),
    (member("x.JPEG", tarfile.SYMTYPE, linkname=GOOD), b"", "a symbolic link"),
    (member("x.JPEG", tarfile.LNKTYPE, **LINK), b"", "a hard link"),
    (member("x.JPEG", tarfile.LNKTYPE, linkname=GOOD), b"", "a hard link"),
    (member("x.JPEG", tarfile.FIFOTYPE), b"", "a pipe"),
    (member("x.JPEG", tarfile.CHRTYPE, devmajor=1, devminor=5), b"", "a device"),
    (member("x.JPEG", tarfile.BLKTYPE, devmajor=8, devminor=0), b"", "a device"),
    (member("x.JPEG", tarfile.GNUTYPE_SPARSE), b"", "a sparse file"),
    (member("x.JPEG"), b"", "empty"),
    (member(GOOD), IMAGE, "a second file of this name"),
]


@pytest.mark.parametrize(("bad", "content", "reason"), REFUSED)
def test_hostile_member_is_quarantined_and_the_others_are_read(
    bad: tarfile.TarInfo, content: bytes, reason: str
) -> None:
    found = scan(archive((member(GOOD), IMAGE), (bad, content), (member("y.JPEG"), IMAGE)))
    assert [entry.name for entry in found if isinstance(entry, ScannedImage)] == [GOOD, "y.JPEG"]
    assert [entry for entry in found if isinstance(entry, Skipped)] == [
        Skipped(bad.name, reason, quarantined=True)
    ]


IGNORED = [
    ("README", b"text", "no image"),
    ("labels.txt", b"", "no image"),
    ("inner.tar", bytes(512), "no image"),
    ("._x.JPEG", IMAGE, "hidden"),
    ("./.cache/x.JPEG", IMAGE, "hidden"),
    (".DS_Store", b"text", "hidden"),
    ("@eaDir/x.JPEG", IMAGE, "made by a file server or a system"),
]


@pytest.mark.parametrize(("name", "content", "reason"), IGNORED)
def test_member_that_is_no_image_is_ignored(name: str, content: bytes, reason: str) -> None:
    found = scan(archive((member(GOOD), IMAGE), (member(name), content)))
    assert found[1:] == [Skipped(name, reason, quarantined=False)]


@pytest.mark.parametrize("name", ["x", "x.jfif", "x.JPEG.exe"])
def test_image_is_one_whatever_its_name(name: str) -> None:
    (found,) = scan(archive((member(name), IMAGE)))
    assert isinstance(found, ScannedImage)
    assert (found.name, found.size) == (name, len(IMAGE))


ACCEPTED = ["./x.JPEG", "a/b/c/x.jpg", "x" * 200 + ".png", "ünï/ö.bmp", "a b.JPEG", "x..y.JPEG"]


@pytest.mark.parametrize("name", ACCEPTED)
def test_unusual_but_harmless_names_are_read(name: str) -> None:
    (found,) = scan(archive((member(name), IMAGE)))
    assert isinstance(found, ScannedImage)
    assert found.name == name


def test_too_large_image_is_quarantined_without_being_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sknet.data.sources.source.MAX_IMAGE_BYTES", len(IMAGE) - 1)
    (found,) = scan(archive((member(GOOD), IMAGE)))
    assert found == Skipped(GOOD, f"{len(IMAGE)} bytes, more than {len(IMAGE) - 1}")


def test_archives_are_entered_down_to_the_depth_and_no_deeper() -> None:
    inner = tar_of({"x.JPEG": IMAGE, "deeper.tar": tar_of({"y.JPEG": IMAGE})})
    outer = tar_of({"n1.tar": inner, "stray.JPEG": IMAGE})
    assert [(type(entry), entry.name) for entry in scan(outer, depth=2)] == [
        (ScannedImage, "n1.tar/x.JPEG"),
        (Skipped, "n1.tar/deeper.tar"),
        (Skipped, "stray.JPEG"),
    ]


@pytest.mark.parametrize("name", ["../n1.tar", "/n1.tar"])
def test_inner_archive_whose_name_leaves_the_archive_is_not_entered(name: str) -> None:
    outer = archive((member(name), tar_of({"x.JPEG": IMAGE})))
    assert scan(outer, depth=2) == [Skipped(name, ESCAPES)]


def test_offsets_of_inner_images_are_those_in_the_whole_archive() -> None:
    outer = tar_of({"n1.tar": tar_of({"a.JPEG": b"first"}), "n2.tar": tar_of({"b.JPEG": b"other"})})
    read = [
        outer[e.offset : e.offset + e.size] for e in scan(outer, 2) if isinstance(e, ScannedImage)
    ]
    assert read == [b"first", b"other"]


def huge_header(kind: bytes) -> bytes:
    """Return an extended header that claims 4 GiB."""
    made = member("././@LongLink", kind)
    made.size = 1 << 32
    return made.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 12)


@pytest.mark.parametrize(
    "kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE]
)
def test_header_that_claims_gigabytes_is_refused_at_once(kind: bytes) -> None:
    with pytest.raises(UserError, match=r"is damaged near byte 512 \(a header claims \d+ bytes\)"):
        scan(huge_header(kind))


TRUNCATED = archive(*((member(f"{i}.JPEG"), bytes([i]) * (300 + 400 * i)) for i in range(4)))
LAST_DATA = 512 * 4 + 512 * (1 + 2 + 3 + 3)


@pytest.mark.parametrize("end", range(1, LAST_DATA - 100, 211))
def test_truncated_archive_is_refused_or_ends_after_a_member(end: int) -> None:
    try:
        found = scan(TRUNCATED[:end])
    except UserError as error:
        assert str(error).startswith("archive a.tar is damaged near byte ")
        assert "\n" not in str(error)
    else:
        # It ends after a whole member: only the MD5 can tell that more members are missing.
        whole = scan(TRUNCATED)[: len(found)]
        assert found == whole
        assert end % 512 == 0


def test_empty_file_is_no_archive() -> None:
    with pytest.raises(UserError, match="is damaged near byte 0"):
        scan(b"")


@settings(max_examples=300)
@given(position=st.integers(0, len(TRUNCATED) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_loses_a_member_silently(position: int, bit: int) -> None:
    content = bytearray(TRUNCATED)
    content[position] ^= 1 << bit
    try:
        found = scan(bytes(content))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(found) == 4


@settings(max_examples=300)
@given(st.binary(max_size=2048), st.integers(1, 2))
def test_arbitrary_bytes_are_refused_in_one_line(content: bytes, depth: int) -> None:
    try:
        scan(content, depth)
    except UserError as error:
        assert "\n" not in str(error)


@settings(max_examples=100)
@given(st.data())
def test_mutated_archives_are_read_or_refused_in_one_line(data: st.DataObject) -> None:
    outer = bytearray(tar_of({"n1.tar": TRUNCATED, "n2.tar": tar_of({"x.JPEG": b"x"})}))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(outer) - 1))
        outer[at : at + 1] = data.draw(st.binary(max_size=3))
    try:
        scan(bytes(outer), depth=2)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../ILSVRC2012_val_00000001.JPEG", ESCAPES),
        ("b/ILSVRC2012_val_00000001.JPEG", "a second file of the name of val/"),
        ("ILSVRC2012_val_\udcff.JPEG", "the devkit has no label for this name"),
        ("ILSVRC2012_val_0000\n001.JPEG", "the devkit has no label for this name"),
    ],
)
def test_data_set_with_a_hostile_member_is_staged_without_it(
    tmp_path: Path, name: str, reason: str
) -> None:
    root = write_archives(tmp_path / "archives")
    append_member(root / "ILSVRC2012_img_val.tar", name, IMAGE)
    before = sorted(tmp_path.rglob("*"))
    staged = stage(root, max_quarantine=0.1)
    assert staged.dataset.splits == {"train": 48, "val": 16}
    (quarantined,) = staged.dataset.quarantined
    assert quarantined.reason.startswith(reason)
    assert quarantined.key.isprintable()
    assert sorted(tmp_path.rglob("*")) == before
