"""Weights are loaded completely or not at all, under the names of three projects."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import nn
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from sknet.architectures import ARCHITECTURES, Architecture
from sknet.errors import UserError
from sknet.models import fold, list_models
from sknet.models.sknet import SKNet
from sknet.models.weights import load_weights, name_in, save_safetensors
from tests.sknet.tiny_networks import TINY
from tests.sknet.training.steps import new_step, take

Arrays = dict[str, Any]


# The form that MindCV publishes weights for.
MINDCV = replace(TINY, first_relu=False, pool_padding="end")


def make(seed: int = 1, num_classes: int = 3, architecture: Architecture = TINY) -> SKNet:
    ms.set_seed(seed)
    return SKNet(architecture, num_classes=num_classes, in_channels=3)


def values(network: nn.Cell) -> dict[str, bytes]:
    return {p.name: p.asnumpy().tobytes() for p in network.get_parameters()}


@functools.cache
def untouched() -> SKNet:
    """A network that every refusal must leave as it is."""
    return make(2)


def refusal(network: nn.Cell, path: Path, **options: Any) -> str:
    """Return the line with which a file is refused; the network doesn't change."""
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
    """Writes the file with its arrays changed."""

    def change(edit: Callable[[Arrays], object]) -> Path:
        arrays = load_file(timm_file)
        edit(arrays)
        path = tmp_path / "changed.safetensors"
        save_file(arrays, path)
        return path

    return change


def few_blocks(name: str) -> Architecture:
    """Return a model's form with as few blocks as show all kinds of parameter names."""
    return replace(ARCHITECTURES[name], depths=(2, 1, 0, 0))


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("source", ["timm", "mindcv"])
def test_every_parameter_has_a_name_of_its_own_elsewhere(name: str, source: Any) -> None:
    names = [p.name for p in make(architecture=few_blocks(name)).get_parameters()]
    theirs = {name_in(source, name) for name in names}
    assert len(theirs) == len(names)
    assert not any(".bn.gamma" in name for name in theirs if source == "timm")


@pytest.mark.parametrize("layout", ["timm", "sknet"])
def test_saved_weights_are_loaded_exactly(layout: Any, tmp_path: Path) -> None:
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
    del arrays["conv1.weight"], arrays["layer2.0.conv2.conv.weight"]


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
        (drop_two, "(2 missing): stem.conv.weight is missing; layer2.0.conv2.conv.weight is mis"),
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


def test_another_number_of_classes_needs_replace_head(timm_file: Path) -> None:
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
    line = refusal(make(architecture=MINDCV), timm_file)
    assert line.endswith("use the model without _mindcv")
    network = make()
    mindcv = tmp_path / "mindcv.ckpt"
    ms.save_checkpoint(
        [{"name": name_in("mindcv", p.name), "data": p} for p in network.get_parameters()],
        str(mindcv),
    )
    assert refusal(network, mindcv).endswith("use the model whose name ends in _mindcv")
    other = make(2, architecture=MINDCV)
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


def test_a_folded_network_and_an_unwritable_path_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match=r"^a folded network has no BatchNorm to save: "):
        save_safetensors(fold(make()), path)
    with pytest.raises(UserError, match="can't be written"):
        save_safetensors(make(), tmp_path / "no" / "directory.safetensors")
    assert not list(tmp_path.iterdir())


def test_of_a_training_with_an_average_the_average_is_loaded(tmp_path: Path) -> None:
    step = new_step(ema=True, ema_decay=0.5)
    take(step, 0)
    ms.save_checkpoint(step, str(tmp_path / "model.ckpt"))
    loaded = step.network.twin()
    load_weights(loaded, tmp_path / "model.ckpt")
    assert values(loaded) == values(step.evaluated()) != values(step.network)
