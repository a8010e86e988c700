"""Weights are taken whole or not at all, from three kinds of files and never from a pickle."""

import functools
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import nn
from mindspore.train.checkpoint_pb2 import Checkpoint
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from sknet.errors import UserError
from sknet.models import create_model, fold, list_models
from sknet.models.sknet import SKNet
from sknet.models.weights import load_weights, name_in, save_safetensors

Arrays = dict[str, Any]


def make(seed: int = 1, num_classes: int = 3, name: str = "skresnet18") -> SKNet:
    ms.set_seed(seed)
    return create_model(name, num_classes=num_classes)


def values(network: nn.Cell) -> dict[str, bytes]:
    return {p.name: p.asnumpy().tobytes() for p in network.get_parameters()}


@functools.cache
def untouched() -> SKNet:
    """What every refusal must leave as it is."""
    return make(2)


def refusal(network: nn.Cell, path: Path, **options: Any) -> str:
    """The one line, after which the network is as it was."""
    before = values(network)
    with pytest.raises(UserError) as caught:
        load_weights(network, path, **options)
    line = str(caught.value)
    assert line.isprintable()
    assert values(network) == before
    return line


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timm") / "timm.safetensors"
    save_safetensors(make(), path)
    return path


@pytest.fixture
def changed(timm_file: Path, tmp_path: Path) -> Callable[[Callable[[Arrays], object]], Path]:
    """The file with its arrays changed."""

    def change(edit: Callable[[Arrays], object]) -> Path:
        arrays = load_file(timm_file)
        edit(arrays)
        path = tmp_path / "changed.safetensors"
        save_file(arrays, path)
        return path

    return change


@functools.cache
def parameter_names(name: str) -> list[str]:
    return [p.name for p in create_model(name, num_classes=2).get_parameters()]


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("source", ["timm", "mindcv"])
def test_every_parameter_has_a_name_of_its_own_elsewhere(name: str, source: Any) -> None:
    names = parameter_names(name)
    theirs = {name_in(source, name) for name in names}
    assert len(theirs) == len(names)
    assert not any(".bn.gamma" in name for name in theirs if source == "timm")


@pytest.mark.parametrize("layout", ["timm", "sknet"])
def test_what_was_saved_comes_back_exactly(layout: Any, tmp_path: Path) -> None:
    network, other = make(1), make(2)
    save_safetensors(network, tmp_path / "w.safetensors", layout)
    assert values(other) != values(network)
    assert load_weights(other, tmp_path / "w.safetensors") == []
    assert values(other) == values(network)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_half_precision_is_widened_exactly(
    changed: Callable[[Callable[[Arrays], object]], Path],
) -> None:
    def halve(arrays: Arrays) -> None:
        arrays["fc.weight"] = arrays["fc.weight"].astype(np.float16)

    path = changed(halve)
    network = make(2)
    load_weights(network, path)
    expected = load_file(path)["fc.weight"].astype(np.float32)
    assert network.fc.weight.asnumpy().tobytes() == expected.tobytes()


def test_bfloat16_is_widened_exactly(timm_file: Path, tmp_path: Path) -> None:
    arrays = {name: torch.from_numpy(array) for name, array in load_file(timm_file).items()}
    arrays["fc.weight"] = arrays["fc.weight"].bfloat16()
    path = tmp_path / "bfloat16.safetensors"
    save_torch(arrays, path)
    network = make(2)
    load_weights(network, path)
    expected = arrays["fc.weight"].float().numpy()
    assert network.fc.weight.asnumpy().tobytes() == expected.tobytes()


def drop_two(arrays: Arrays) -> None:
    del arrays["conv1.weight"], arrays["layer4.1.conv2.conv.weight"]


def spoil(arrays: Arrays) -> None:
    arrays["layer1.0.conv2.bn.bias"][3] = np.nan


def overflow(arrays: Arrays) -> None:
    arrays["bn1.bias"] = np.full(64, 1e300)


def count(arrays: Arrays) -> None:
    arrays["bn1.bias"] = np.zeros(64, np.int64)


def imagine(arrays: Arrays) -> None:
    arrays["bn1.bias"] = np.full(64, 1j, np.complex64)


def name_twice(arrays: Arrays) -> None:
    arrays["stem.bn.beta"] = arrays["bn1.bias"]


def rename(arrays: Arrays) -> None:
    arrays["stem.bn.beta"] = arrays.pop("bn1.bias")


def count_nothing(arrays: Arrays) -> None:
    arrays["bn9.num_batches_tracked"] = np.zeros((), np.int64)


def reshape(arrays: Arrays) -> None:
    arrays["conv1.weight"] = np.zeros((64, 3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (drop_two, "(2 missing): stem.conv.weight is missing; layer4.1.conv2.conv.weight is mis"),
        (spoil, "(1 not finite): layer1.0.conv2.bn.beta has non-finite values"),
        (overflow, "(1 not finite): stem.bn.beta has non-finite values"),
        (count, "(1 of another type): stem.bn.beta is of type int64, expected float32"),
        (imagine, "(1 of another type): stem.bn.beta is of type complex64, expected float32"),
        (name_twice, "(1 unknown): stem.bn.beta (not a name in timm) is unknown"),
        (rename, "(1 missing, 1 unknown): stem.bn.beta is missing; stem.bn.beta (not a name in "),
        (count_nothing, "(1 unknown): bn9.num_batches_tracked is unknown"),
        (reshape, "(1 of another shape): stem.conv.weight has shape (64, 3, 3, 3), expected (64, "),
        (lambda a: a.update(a=a["fc.bias"]), "(1 unknown): a is unknown"),
        (lambda a: a.update({"a\nb": a["fc.bias"]}), r"(1 unknown): 'a\nb' is unknown"),
        (
            lambda a: (a.pop("fc.bias"), a.update(b=a["bn1.bias"], c=a["bn1.bias"])),
            "(1 missing, 2 unknown): fc.bias is missing; ",
        ),
    ],
    ids=[
        "missing",
        "not finite",
        "beyond float32",
        "integers",
        "complex",
        "under both names",
        "under our name",
        "counter of nothing",
        "shape",
        "unknown",
        "unprintable name",
        "several",
    ],
)
def test_what_does_not_fit_is_counted_and_named(
    edit: Callable[[Arrays], object],
    expected: str,
    changed: Callable[[Callable[[Arrays], object]], Path],
) -> None:
    path = changed(edit)
    assert refusal(untouched(), path).startswith(f"{path} doesn't fit the model {expected}")


def test_a_missing_weight_is_not_taken_from_a_moment(tmp_path: Path) -> None:
    network = make(1)
    step = nn.Momentum(network.trainable_params(), 0.1, 0.9)
    whole = [{"name": p.name, "data": p} for p in (*network.get_parameters(), *step.moments)]
    path = tmp_path / "model.ckpt"
    ms.save_checkpoint([item for item in whole if item["name"] != "fc.weight"], str(path))
    assert "(1 missing): fc.weight is missing" in refusal(untouched(), path)


def test_another_number_of_classes_needs_a_word(timm_file: Path) -> None:
    network = make(2, num_classes=5)
    assert refusal(network, timm_file) == (
        f"{timm_file} is for 3 classes, the network has 5: "
        "load_weights(replace_head=True) keeps the network's own classifier"
    )
    before = values(network)
    assert load_weights(network, timm_file, replace_head=True) == ["fc.weight", "fc.bias"]
    after, theirs = values(network), values(make(1))
    for name in after:
        assert after[name] == (before if name.startswith("fc.") else theirs)[name]


def test_weights_of_another_form_are_refused(timm_file: Path, tmp_path: Path) -> None:
    line = refusal(make(name="skresnet18_mindcv"), timm_file)
    assert line.endswith("use the model without _mindcv")
    network = make()
    mindcv = tmp_path / "mindcv.ckpt"
    ms.save_checkpoint(
        [{"name": name_in("mindcv", p.name), "data": p} for p in network.get_parameters()],
        str(mindcv),
    )
    assert refusal(network, mindcv).endswith("use the model whose name ends in _mindcv")
    other = make(2, name="skresnet18_mindcv")
    load_weights(other, mindcv)
    assert values(other) == values(network)


def test_a_wrongly_named_source_is_refused(timm_file: Path) -> None:
    assert "missing, " in refusal(untouched(), timm_file, source="sknet")


def test_unknown_names_ask_for_the_source(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    assert refusal(untouched(), path) == (
        f"{path} has none of the names of sknet, timm or MindCV networks (it holds weight): "
        "say which source it is from"
    )


class Explosive:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("name", ["w.pth", "w.ckpt", "w.safetensors", "w.pkl"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_unopened_whatever_its_name(
    name: str, zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / name
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.pkl", pickle.dumps(Explosive()))
    else:
        path.write_bytes(pickle.dumps(Explosive()))
    assert refusal(untouched(), path).startswith(f"{path} is a pickle, which can run any code: ")


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 100, b"\xff" * 64, b"\xff" * 7 + b"\x7f{}", b'\x02\0\0\0\0\0\0\0{"'],
    ids=["empty", "zeros", "ones", "absurd header", "broken header"],
)
def test_what_is_no_file_of_weights_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal(untouched(), path)


def test_a_truncated_file_is_refused(timm_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(timm_file.read_bytes()[:-1])
    assert "is no safetensors file" in refusal(untouched(), path)


def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "is no safetensors file of numpy types" in refusal(untouched(), path)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([([64, 3, 7, 7], "Float32", 8)], "has 8 bytes for 4 dimensions of 37632 bytes"),
        ([([2**60], "Float32", 8)], "has 8 bytes for 1 dimensions of 4611686018427387904 bytes"),
        ([([-1, -2], "Float32", 8)], "has 8 bytes for 2 dimensions of 8 bytes"),
        ([([1] * 40, "Float32", 4)], "has 4 bytes for 40 dimensions of 4 bytes"),
        ([([2], "Float32", 8), ([2], "Float32", 8)], "holds stem.conv.weight twice"),
        ([([1], "str", 4)], "is of type str"),
        ([([1], "BFloat16", 2)], "is of type BFloat16"),
        ([([1], "", 4)], "is of type none"),
    ],
    ids=["short", "absurd", "negative", "40 dimensions", "twice", "text", "bfloat16", "no type"],
)
def test_a_checkpoint_that_says_other_than_it_holds_is_refused(
    entries: list[tuple[list[int], str, int]], expected: str, tmp_path: Path
) -> None:
    """MindSpore's own reader would fill up with zeros and take the last of two."""
    checkpoint = Checkpoint()
    for dims, tensor_type, size in entries:
        value = checkpoint.value.add(tag="stem.conv.weight")
        value.tensor.dims.extend(dims)
        value.tensor.tensor_type = tensor_type
        value.tensor.tensor_content = bytes(size)
    path = tmp_path / "w.ckpt"
    path.write_bytes(checkpoint.SerializeToString())
    assert refusal(untouched(), path).endswith(expected)


def test_a_text_beside_the_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    ms.save_checkpoint(make(), str(path), append_dict={"note": "x"})
    assert refusal(untouched(), path) == f"{path} can't be used: note is of type str"


def test_a_checkpoint_of_another_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    ms.save_checkpoint(make(1), str(path), crc_check=True)
    network = make(2)
    load_weights(network, path)
    assert values(network) == values(make(1))
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert refusal(untouched(), path) == f"{path} is damaged (its checksum differs)"


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a" * 10_000])
def test_a_checkpoint_of_odd_names_is_refused(name: bytes, tmp_path: Path) -> None:
    checkpoint = Checkpoint()
    value = checkpoint.value.add(tag="N" * len(name))
    value.tensor.dims.append(1)
    value.tensor.tensor_type = "Float32"
    value.tensor.tensor_content = bytes(4)
    path = tmp_path / "w.ckpt"
    path.write_bytes(checkpoint.SerializeToString().replace(b"N" * len(name), name))
    assert len(refusal(untouched(), path)) < 500


def test_what_can_not_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(untouched(), tmp_path).endswith("can't be read: Is a directory")
    missing = refusal(untouched(), tmp_path / "none.ckpt")
    assert missing.endswith("none.ckpt can't be read: No such file or directory")


def test_a_folded_network_and_an_unwritable_path_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match=r"^a folded network has no BatchNorm to save: "):
        save_safetensors(fold(make()), path)
    with pytest.raises(UserError, match="can't be written"):
        save_safetensors(make(), tmp_path / "no" / "directory.safetensors")
    assert not list(tmp_path.iterdir())
