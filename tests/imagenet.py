"""A miniature of ImageNet in every form in which people have it: 8 classes of real photographs."""

import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_sample_image

WORDS = {
    "n01440764": "tench, Tinca tinca",
    "n01443537": "goldfish, Carassius auratus",
    "n01484850": "great white shark, white shark",
    "n01491361": "tiger shark, Galeocerdo cuvieri",
    "n01494475": "hammerhead, hammerhead shark",
    "n01496331": "electric ray, crampfish, numbfish, torpedo",
    "n01498041": "stingray",
    "n01514668": "cock",
}
"""Words of each synset by WordNet ID, sorted."""
DEVKIT_ORDER = [5, 2, 7, 0, 3, 6, 1, 4]
"""The devkit numbers the synsets in an order of its own."""
TRAIN_IMAGES, VAL_IMAGES = 6, 2


@cache
def photos() -> Mapping[str, Mapping[str, bytes]]:
    """Return the JPEGs of each split by name.

    They are seeded crops of two photographs; each class has its own region of one of them.
    """
    rng = np.random.default_rng(0)
    sheets = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    splits: dict[str, dict[str, bytes]] = {"train": {}, "val": {}}
    count = 0
    for label, synset in enumerate(WORDS):
        sheet = sheets[label % 2]
        for index in range(TRAIN_IMAGES + VAL_IMAGES):
            left = 60 * (label // 2) + int(rng.integers(0, 40))
            top = int(rng.integers(0, 200))
            buffer = io.BytesIO()
            crop = sheet[top : top + 150, left : left + 200]
            Image.fromarray(crop).save(buffer, "JPEG", quality=95)
            if index < TRAIN_IMAGES:
                name = f"{synset}/{synset}_{100 * label + index}.JPEG"
                splits["train"][name] = buffer.getvalue()
            else:
                # The validation images of a class do not have successive numbers.
                count += 1
                number = (count * 5) % (len(WORDS) * VAL_IMAGES) + 1
                name = f"{synset}/ILSVRC2012_val_{number:08}.JPEG"
                splits["val"][name] = buffer.getvalue()
    return splits


def val_labels() -> list[str]:
    """Return the synsets of ILSVRC2012_val_00000001.JPEG, …2.JPEG and so on."""
    by_file = sorted((Path(name).name, Path(name).parent.name) for name in photos()["val"])
    return [synset for _, synset in by_file]


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of files by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def devkit() -> bytes:
    """Return a devkit: meta.mat, with a synset that is no class, and the ground truth."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children"]
    order = [list(WORDS)[index] for index in DEVKIT_ORDER]
    rows = [(number, synset, WORDS[synset], "a fish", 0) for number, synset in enumerate(order, 1)]
    rows.append((len(rows) + 1, "n00015388", "animal, animate being", "a living organism", 8))
    table = np.array(rows, dtype=[(field, object) for field in fields]).reshape(-1, 1)
    meta = io.BytesIO()
    savemat(meta, {"synsets": table}, do_compression=True)
    truth = "".join(f"{order.index(synset) + 1}\n" for synset in val_labels())
    folder = "ILSVRC2012_devkit_t12/data"
    files = {
        f"{folder}/meta.mat": meta.getvalue(),
        f"{folder}/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
        "ILSVRC2012_devkit_t12/readme.txt": b"Development kit\n",
    }
    return gzip.compress(tar_of(files), mtime=0)


def write_md5sums(root: Path) -> None:
    """Write MD5SUMS for the archives in a directory."""
    lines = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.name}\n"
        for path in sorted(root.glob("ILSVRC2012_*"))
    ]
    (root / "MD5SUMS").write_text("".join(lines))


def append_member(archive: Path, name: str, content: bytes) -> None:
    """Append a file to an archive, and write MD5SUMS anew."""
    with tarfile.open(archive, "a", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    write_md5sums(archive.parent)


def write_archives(root: Path) -> Path:
    """Write the archives as they are distributed, with MD5SUMS."""
    root.mkdir(parents=True)
    by_class: dict[str, dict[str, bytes]] = {}
    for name, content in photos()["train"].items():
        by_class.setdefault(Path(name).parent.name, {})[Path(name).name] = content
    train = {f"{synset}.tar": tar_of(files) for synset, files in by_class.items()}
    val = {Path(name).name: content for name, content in photos()["val"].items()}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(train))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(dict(sorted(val.items()))))
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit())
    write_md5sums(root)
    return root


def write_folders(root: Path) -> Path:
    """Write the images as people unpack the archives."""
    for split, files in photos().items():
        for name, content in files.items():
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def write_kaggle(root: Path) -> Path:
    """Write the images and tables as Kaggle has them."""
    images = write_folders(root / "ILSVRC/Data/CLS-LOC")
    for path in list((images / "val").glob("*/*")):
        path.rename(images / "val" / path.name)
    for synset in WORDS:
        (images / "val" / synset).rmdir()
    shutil.copytree(images / "val", images / "test")
    mapping = "".join(f"{synset} {words}\n" for synset, words in WORDS.items())
    (root / "LOC_synset_mapping.txt").write_text(mapping)
    lines = ["ImageId,PredictionString"]
    lines += [
        f"ILSVRC2012_val_{number:08},{synset} 1 2 30 40 {synset} 5 6 70 80 "
        for number, synset in enumerate(val_labels(), 1)
    ]
    # Kaggle's table is not sorted.
    (root / "LOC_val_solution.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    return root
