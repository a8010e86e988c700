"""Files of weights are read exactly or refused in one line; what they claim is checked."""

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore import nn
from mindspore.train.checkpoint_pb2 import Checkpoint
from safetensors.numpy import save, save_file

from sknet.errors import UserError
from sknet.models.weight_files import read_weights


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_weights(path)
    line = str(caught.value)
    assert line.isprintable()
    return line


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
    assert refusal(path).startswith(f"{path} is a pickle, which can run any code: ")


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 100, b"\xff" * 64, b"\xff" * 7 + b"\x7f{}", b'\x02\0\0\0\0\0\0\0{"'],
    ids=["empty", "zeros", "ones", "absurd header", "broken header"],
)
def test_a_file_of_something_else_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"w": np.zeros(3, np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    assert "is no safetensors file" in refusal(path)


def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "is no safetensors file of numpy types" in refusal(path)


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
def test_a_checkpoint_whose_header_differs_from_its_content_is_refused(
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
    assert refusal(path).endswith(expected)


def test_a_text_beside_the_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    ms.save_checkpoint(nn.Dense(2, 3), str(path), append_dict={"note": "x"})
    assert refusal(path) == f"{path} can't be used: note is of type str"


@pytest.mark.parametrize("crc_check", [True, False])
def test_a_checkpoint_is_read_as_it_was_saved(crc_check: bool, tmp_path: Path) -> None:
    cell, path = nn.Dense(2, 3), tmp_path / "w.ckpt"
    ms.save_checkpoint(cell, str(path), crc_check=crc_check, append_dict={"step": 7})
    values = read_weights(path)
    assert values.pop("step") == 7
    assert {name: value.tobytes() for name, value in values.items()} == {
        parameter.name: parameter.asnumpy().tobytes() for parameter in cell.get_parameters()
    }


def test_a_checkpoint_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    ms.save_checkpoint(nn.Dense(20, 30), str(path), crc_check=True)
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert refusal(path) == f"{path} is damaged (its checksum differs)"


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a" * 10_000])
def test_a_checkpoint_of_odd_names_is_refused(name: bytes, tmp_path: Path) -> None:
    checkpoint = Checkpoint()
    value = checkpoint.value.add(tag="N" * len(name))
    value.tensor.dims.append(1)
    value.tensor.tensor_type = "Float32"
    value.tensor.tensor_content = bytes(4)
    path = tmp_path / "w.ckpt"
    path.write_bytes(checkpoint.SerializeToString().replace(b"N" * len(name), name))
    assert len(refusal(path)) < 500


def test_a_file_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("can't be read: Is a directory")
    missing = refusal(tmp_path / "none.ckpt")
    assert missing.endswith("none.ckpt can't be read: No such file or directory")


def a_checkpoint() -> bytes:
    checkpoint = Checkpoint()
    for name, count in (("a.weight", 6), ("b.bias", 2)):
        value = checkpoint.value.add(tag=name)
        value.tensor.dims.append(count)
        value.tensor.tensor_type = "Float32"
        value.tensor.tensor_content = bytes(4 * count)
    content: bytes = checkpoint.SerializeToString()
    return content


VALID = {
    "ckpt": a_checkpoint(),
    "safetensors": save({"a.weight": np.zeros(6, np.float32), "b.bias": np.ones(2, np.float32)}),
}


@pytest.mark.parametrize("suffix", VALID)
@given(data=st.data())
def test_a_changed_file_is_read_or_refused_in_one_line(
    suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(VALID[suffix])
    positions = st.integers(0, len(content) - 1)
    for position, value in data.draw(
        st.lists(st.tuples(positions, st.integers(0, 255)), max_size=4)
    ):
        content[position] = value
    path = tmp_path_factory.getbasetemp() / f"changed.{suffix}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        values = read_weights(path)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert all(isinstance(value, np.ndarray) for value in values.values())
