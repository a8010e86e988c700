"""Tiny generated images, noise in one colour for each class; programs that run in this process."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from infra.base.commands import app_of, start
from sknet.data.shards import ShardSet
from tests.sknet.conversions import convert

# MindSpore reads these when it is imported, here and in every process that a test starts. oneDNN
# reads the last one at the first convolution; without it, which programs set too, convolutions take
# a hundred times as long on some machines.
os.environ |= {"GLOG_v": "3", "OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"}

CLASSES = {"cat": (220, 40, 40), "dog": (40, 200, 60), "emu": (40, 60, 220)}
TINY_RECIPE = """\
model: skresnet18
image_resize: 32
num_parallel_workers: 1
global_batch_size: 4
epoch_size: 2
warmup_epochs: 1
lr: 0.01
weight_decay: 1e-4
checkpoint_every_steps: 2
keep_checkpoint_max: 9
log_interval: 1
"""


def write_images(root: Path, *, train: int = 5, val: int = 2) -> Path:
    """Write `train` and `val` images of each class, PNG and JPEG in turn, of 32 to 48 pixels."""
    pixels = random.Random(7)
    for split, count in (("train", train), ("val", val)):
        for name, colour in CLASSES.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                size = (pixels.randint(32, 48), pixels.randint(32, 48))
                noise = Image.frombytes("RGB", size, pixels.randbytes(3 * size[0] * size[1]))
                image = Image.blend(noise, Image.new("RGB", size, colour), 0.7)
                image.save(folder / f"{index:03}.{('png', 'jpg')[index % 2]}")
    return root


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 training and 6 validation images of 3 classes; don't change them."""
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="session")
def converted(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """The images as two shards of each split; don't change them."""
    out = tmp_path_factory.mktemp("shards")
    return ShardSet(convert(folders, out), out)


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of two epochs of three steps, with checkpoints at steps 2, 3, 5 and 6."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session", autouse=True)
def cpu() -> None:
    """Choose the device before the first operation, after which MindSpore refuses to."""
    import mindspore as ms

    ms.set_device("CPU")


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, for programs that write to default paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def program_state(away: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore what programs set for the whole process: graph mode and an instruction set."""
    import mindspore as ms

    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a program in this process; returns its exit code, output and errors."""

    def run(module: ModuleType, *options: object) -> tuple[int, str, str]:
        # Otherwise a machine that is busy would say what it does meanwhile.
        words = ["--quiet", *map(str, options)]
        return start(app_of(module.command, module.__name__), words), *capfd.readouterr()

    return run


@pytest.fixture
def refused(call: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Run a program that refuses its input; returns its one line."""

    def run(module: ModuleType, *options: object) -> str:
        code, _, errors = call(module, *options)
        assert code == 2, errors
        (line,) = errors.splitlines()
        assert line.startswith("error: ")
        return line

    return run


@pytest.fixture
def config(recipe_file: Path) -> tuple[str, ...]:
    """The options for the tiny recipe with the tiny network."""
    return "--config", str(recipe_file), "--set", "model=tiny"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Weights of newly initialised tiny networks, by their number of classes."""
    import mindspore as ms

    from tests.sknet.tiny_networks import tiny_network

    folder = tmp_path_factory.mktemp("checkpoints")
    ms.set_seed(1)
    for num_classes in (3, 4):
        ms.save_checkpoint(tiny_network(num_classes), str(folder / f"{num_classes}.ckpt"))
    return {num_classes: folder / f"{num_classes}.ckpt" for num_classes in (3, 4)}
