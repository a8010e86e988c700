"""ImageNet as it is distributed, as Kaggle has it, and unpacked: the same data set."""

import gzip
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from sknet.data.sources import Sample, open_source
from sknet.data.sources.ilsvrc import parse_devkit
from sknet.data.sources.kaggle import KaggleImagenet
from sknet.data.sources.trees import LocalTree
from sknet.data.staging import stage_source
from sknet.errors import UserError
from tests.imagenet import (
    WORDS,
    append_member,
    photos,
    tar_of,
    val_labels,
    write_archives,
    write_folders,
    write_kaggle,
    write_md5sums,
)
from tests.refusals import refusal
from tests.sknet.conversions import convert, stage

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("imagenet")
    return {
        "archives": write_archives(root / "archives"),
        "kaggle": write_kaggle(root / "kaggle"),
        "folders": write_folders(root / "folders"),
    }


@pytest.fixture
def archives(forms: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(forms["archives"], tmp_path / "archives"))


@pytest.fixture
def kaggle(forms: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(forms["kaggle"], tmp_path / "kaggle"))


@pytest.mark.parametrize("form", ["archives", "kaggle"])
def test_classes_are_the_sorted_synsets_with_their_words(forms: dict[str, Path], form: str) -> None:
    dataset = stage(forms[form]).dataset
    assert dataset.classes == tuple(sorted(WORDS))
    assert dataset.titles == tuple(WORDS[synset] for synset in sorted(WORDS))
    assert dataset.splits == {"train": 48, "val": 16}


def test_all_forms_are_the_same_data_set(forms: dict[str, Path]) -> None:
    staged = [stage(root) for root in forms.values()]
    assert len({one.dataset.samples_digest for one in staged}) == 1
    assert len({one.dataset.index_sha256 for one in staged}) == 3


@pytest.mark.parametrize("form", ["archives", "kaggle", "folders"])
def test_samples_have_the_images_bytes_and_their_class_as_label(
    forms: dict[str, Path], form: str
) -> None:
    source = open_source(str(forms[form]))
    read = {}
    for row in stage_source(source).index.itertuples(index=False):
        sample = Sample(*row)
        split, name = sample.key.split("/", 1)
        read[(split, name)] = source.read(sample)
        assert source.classes[sample.label] == Path(name).parent.name
    assert read == {
        (split, name): content for split in photos() for name, content in photos()[split].items()
    }


def test_validation_labels_are_the_ground_truth(forms: dict[str, Path]) -> None:
    staged = stage(forms["archives"])
    val = staged.index[staged.index["split"] == "val"]
    labels = {Path(key).name: label for key, label in zip(val["key"], val["label"], strict=True)}
    assert [staged.dataset.classes[labels[name]] for name in sorted(labels)] == val_labels()


def test_archives_and_folders_give_the_same_shards(forms: dict[str, Path], tmp_path: Path) -> None:
    written = []
    for form in ("archives", "folders"):
        out = tmp_path / form
        convert(forms[form], out)
        written.append({path.name: path.read_bytes() for path in out.glob("*.mindrecord*")})
    assert written[0] == written[1]
    assert len(written[0]) == 8


@pytest.mark.parametrize("name", [TRAIN, VAL, DEVKIT])
def test_archive_of_another_md5_is_refused(archives: Path, name: str) -> None:
    content = bytearray((archives / name).read_bytes())
    # In an image, or in the compressed devkit, where nothing but the MD5 shows the change.
    content[len(content) // 2 if name == DEVKIT else 3000] ^= 1
    (archives / name).write_bytes(content)
    message = refusal(lambda: stage(archives))
    assert f"archive {archives / name} has MD5 " in message
    assert "download it again" in message


def test_without_md5sums_the_published_archives_are_expected(archives: Path) -> None:
    (archives / "MD5SUMS").unlink()
    message = refusal(lambda: stage(archives))
    assert "expected fa75699e90414af021442c21a62c3abf" in message


@pytest.mark.parametrize("line", ["x", "d41d8cd98f00b204e9800998ecf8427e", "\udcff"])
def test_bad_md5sums_are_refused(archives: Path, line: str) -> None:
    (archives / "MD5SUMS").write_bytes(line.encode("utf-8", "surrogateescape"))
    assert "MD5SUMS line 1 is " in refusal(lambda: stage(archives))


@pytest.mark.parametrize("name", [VAL, DEVKIT])
def test_missing_archive_is_named(archives: Path, name: str) -> None:
    (archives / name).unlink()
    assert f"has no {name}: expected all of" in refusal(lambda: stage(archives))


def test_archive_that_is_no_regular_file_is_refused(archives: Path) -> None:
    (archives / VAL).unlink()
    (archives / VAL).mkdir()
    assert f"has no {VAL}" in refusal(lambda: stage(archives))


def test_class_that_the_devkit_lacks_is_quarantined(archives: Path) -> None:
    content = next(iter(photos()["train"].values()))
    extra = tar_of({"n09999999_1.JPEG": content})
    append_member(archives / TRAIN, "n09999999.tar", extra)
    (quarantined,) = stage(archives, max_quarantine=0.1).dataset.quarantined
    assert quarantined.key == "n09999999.tar/n09999999_1.JPEG"
    assert quarantined.reason == "class n09999999 is not in the devkit"


@pytest.mark.parametrize(
    "name", ["ILSVRC2012_val_00000017.JPEG", "ILSVRC2012_val_00000000.JPEG", "photo.JPEG"]
)
def test_validation_image_without_a_label_is_quarantined(archives: Path, name: str) -> None:
    content = next(iter(photos()["val"].values()))
    append_member(archives / VAL, name, content)
    (quarantined,) = stage(archives, max_quarantine=0.1).dataset.quarantined
    assert (quarantined.key, quarantined.reason) == (name, "the devkit has no label for this name")


def test_sparse_table_of_the_devkit_is_refused_before_its_gaps_are_filled(archives: Path) -> None:
    """It claims 8 GB of zeros, which an archive stores as a hole."""
    path = archives / DEVKIT
    content = bytearray(gzip.decompress(path.read_bytes()))
    start = content.index(b"ILSVRC2012_devkit_t12/data/meta.mat\0")
    header = tarfile.TarInfo.frombuf(bytes(content[start : start + 512]), "utf-8", "strict")
    header.type = tarfile.GNUTYPE_SPARSE
    packed = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    packed[483:495] = b"100000000000"  # the real size, in octal
    checksum = sum(packed) - sum(packed[148:156]) + 8 * ord(" ")
    packed[148:156] = b"%06o\0 " % checksum
    content[start : start + 512] = packed
    path.write_bytes(gzip.compress(content))
    write_md5sums(archives)
    assert "meta.mat is not a regular file" in refusal(lambda: stage(archives))


def replace_in_devkit(archives: Path, name: str, content: bytes) -> None:
    path = archives / DEVKIT
    files = {}
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes()))) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            files[member.name] = file.read()
    files[f"ILSVRC2012_devkit_t12/data/{name}"] = content
    path.write_bytes(gzip.compress(tar_of(files)))
    write_md5sums(archives)


def mat(**variables: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables)
    return buffer.getvalue()


def synsets(*rows: tuple[object, ...]) -> bytes:
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children"]
    table = np.array(list(rows), dtype=[(field, object) for field in fields]).reshape(-1, 1)
    return mat(synsets=table)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "meta.mat can't be read"),
        (b"MATLAB 5.0 MAT-file" + bytes(500), "meta.mat can't be read"),
        (mat(other=1), "meta.mat can't be read: it has no variable 'synsets'"),
        (mat(synsets=3), "meta.mat can't be read"),
        (synsets((1, "n01440764", "tench", "", 3)), "meta.mat has 0 classes"),
        (
            synsets((1, "n1", "a", "", 0), (2, "n1", "b", "", 0)),
            "expected at least one and no duplicates",
        ),
        (synsets((1, "../../n1", "a", "", 0)), "has the WordNet ID '../../n1'"),
    ],
    # Named, because MATLAB's header holds the time.
    ids=["empty", "header", "other", "number", "inner", "twice", "escape"],
)
def test_bad_meta_mat_is_refused(archives: Path, content: bytes, reason: str) -> None:
    replace_in_devkit(archives, "meta.mat", content)
    assert reason in refusal(lambda: stage(archives))


@pytest.mark.parametrize("line", ["0", "99", "-1", "x", "9"])
def test_ground_truth_of_an_unknown_class_is_refused(archives: Path, line: str) -> None:
    replace_in_devkit(archives, "ILSVRC2012_validation_ground_truth.txt", f"1\n{line}\n".encode())
    message = refusal(lambda: stage(archives))
    assert f"line 2 is '{line}', which is not a class of meta.mat" in message


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b", b"no gzip", gzip.compress(b"no tar", mtime=0)]
)
def test_file_that_is_no_devkit_is_refused(archives: Path, content: bytes) -> None:
    (archives / DEVKIT).write_bytes(content)
    write_md5sums(archives)
    assert "is not an ILSVRC2012 devkit" in refusal(lambda: stage(archives))


def test_devkit_that_unpacks_to_more_than_the_limit_is_refused(
    archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sknet.data.sources.ilsvrc.MAX_UNPACKED_DEVKIT_BYTES", 1 << 20)
    (archives / DEVKIT).write_bytes(gzip.compress(bytes((1 << 20) + 1)))
    write_md5sums(archives)
    assert "unpacks to more than 1048576 bytes" in refusal(lambda: stage(archives))


@pytest.mark.parametrize("name", ["LOC_synset_mapping.txt", "LOC_val_solution.csv"])
def test_kaggle_without_a_table_is_refused(kaggle: Path, name: str) -> None:
    (kaggle / name).unlink()
    assert f"has no {name} beside ILSVRC/" in refusal(lambda: stage(kaggle))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("LOC_synset_mapping.txt", "tench\n", "line 1 is 'tench'"),
        ("LOC_synset_mapping.txt", "n01440764\n", "line 1 is 'n01440764'"),
        ("LOC_synset_mapping.txt", "\udcff\n", "is not UTF-8"),
        ("LOC_val_solution.csv", "", "expected the columns ImageId, PredictionString"),
        ("LOC_val_solution.csv", "a,b\n", "expected the columns ImageId, PredictionString"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\na,b,c\n", "line 2: too many"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\na\n", "line 2: not enough"),
    ],
)
def test_bad_table_is_refused(kaggle: Path, name: str, text: str, reason: str) -> None:
    (kaggle / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    message = refusal(lambda: stage(kaggle))
    assert f"{kaggle / name}" in message
    assert reason in message


def test_image_that_the_tables_lack_is_quarantined(kaggle: Path) -> None:
    images = kaggle / "ILSVRC/Data/CLS-LOC"
    shutil.copy(images / "val/ILSVRC2012_val_00000001.JPEG", images / "val/extra.JPEG")
    shutil.copy(images / "val/ILSVRC2012_val_00000001.JPEG", images / "train/stray.JPEG")
    reasons = {s.key: s.reason for s in stage(kaggle, max_quarantine=0.1).dataset.quarantined}
    assert reasons == {
        "ILSVRC/Data/CLS-LOC/train/stray.JPEG": "class '' is not in LOC_synset_mapping.txt",
        "ILSVRC/Data/CLS-LOC/val/extra.JPEG": "LOC_val_solution.csv has no line for it",
    }


@settings(max_examples=40)
@given(content=st.binary(max_size=400), table=st.sampled_from(["synsets", "solution"]))
def test_arbitrary_tables_are_refused_in_one_line(
    forms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, content: bytes, table: str
) -> None:
    root = tmp_path_factory.mktemp("kaggle")
    (root / "ILSVRC").symlink_to(forms["kaggle"] / "ILSVRC")
    names = {"synsets": "LOC_synset_mapping.txt", "solution": "LOC_val_solution.csv"}
    for part, name in names.items():
        whole = (forms["kaggle"] / name).read_bytes()
        # After the true beginning, so that the rest is parsed at all.
        (root / name).write_bytes(whole[:60] + content if part == table else whole)
    refusal(lambda: stage_source(KaggleImagenet(LocalTree(root))))


@settings(max_examples=150)
@given(data=st.data())
def test_mutated_devkits_are_read_or_refused_in_one_line(
    forms: dict[str, Path], data: st.DataObject
) -> None:
    unpacked = bytearray(gzip.decompress((forms["archives"] / DEVKIT).read_bytes()))
    for _ in range(data.draw(st.integers(1, 20))):
        # Only its beginning: most of the archive is padding.
        unpacked[data.draw(st.integers(0, min(len(unpacked), 4096) - 1))] = data.draw(
            st.integers(0, 255)
        )
    try:
        parse_devkit(gzip.compress(bytes(unpacked), 1), "kit")
    except UserError as error:
        assert "\n" not in str(error)
