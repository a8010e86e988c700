"""Fashion-MNIST's IDX files: what is read from them, and what is refused."""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sknet.data.sources import Sample, open_source
from sknet.data.staging import stage_source
from tests.refusals import refusal
from tests.sknet.conversions import stage


def idx(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def write_fashion(root: Path, *, gzipped: bool) -> dict[str, np.ndarray]:
    """Write 30 training and 10 validation images; return each file's array by its plain name."""
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


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    write_fashion(tmp_path / "data", gzipped=False)
    return tmp_path / "data"


@pytest.fixture
def gzipped(tmp_path: Path) -> Path:
    write_fashion(tmp_path / "data", gzipped=True)
    return tmp_path / "data"


@pytest.mark.parametrize("compressed", [False, True])
def test_images_and_labels_are_those_of_the_files(tmp_path: Path, compressed: bool) -> None:
    arrays = write_fashion(tmp_path / "data", gzipped=compressed)
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


BAD_FILES = [
    ("train-images-idx3-ubyte", b"", "is not an IDX file of bytes with 3 axes"),
    ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + bytes(12), "is not an IDX file of bytes with 3"),
    ("train-images-idx3-ubyte", b"\0\0\x08\x01" + bytes(12), "is not an IDX file of bytes with 3"),
    ("train-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "claims 79228162458924"),
    ("train-images-idx3-ubyte", idx(np.zeros((30, 28, 28), np.uint8))[:-1], "doesn't have the"),
    ("train-images-idx3-ubyte", idx(np.zeros((30, 28, 28), np.uint8)) + b"x", "doesn't have the"),
    ("train-labels-idx1-ubyte", idx(np.zeros(29, np.uint8)), "has 29 labels for 30 images"),
    ("train-labels-idx1-ubyte", idx(np.full(30, 10, np.uint8)), "has the label 10, expected 0"),
]


@pytest.mark.parametrize(("name", "content", "reason"), BAD_FILES)
def test_bad_file_is_refused(plain: Path, name: str, content: bytes, reason: str) -> None:
    (plain / name).write_bytes(content)
    assert f"{name} {reason}" in refusal(lambda: stage(f"fashion-mnist:{plain}"))


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"x" * 99, mtime=0)[:-9]])
def test_bad_gzipped_file_is_refused(gzipped: Path, content: bytes) -> None:
    (gzipped / "train-images-idx3-ubyte.gz").write_bytes(content)
    message = refusal(lambda: stage(f"fashion-mnist:{gzipped}"))
    assert "train-images-idx3-ubyte.gz" in message


def test_missing_file_is_named(gzipped: Path) -> None:
    (gzipped / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "has no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz" in refusal(
        lambda: open_source(f"fashion-mnist:{gzipped}")
    )


@settings(max_examples=60)
@given(content=st.binary(max_size=300))
def test_arbitrary_files_are_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.mktemp("idx") / "data"
    write_fashion(root, gzipped=False)
    (root / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + content)
    refusal(lambda: stage(f"fashion-mnist:{root}"))
