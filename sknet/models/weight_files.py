"""Read files of weights as arrays by name: MindSpore's `.ckpt` and `.safetensors`, no pickles.

What a file claims about its content is checked against the content before anything is used.
"""

import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint
from safetensors import SafetensorError, safe_open

from sknet.errors import UserError

Values = dict[str, npt.NDArray[np.generic]]

_CKPT_TYPES = {
    "Float16": np.float16,
    "Float32": np.float32,
    "Float64": np.float64,
    "Int32": np.int32,
    "Int64": np.int64,
    "Bool": np.bool_,
}
# The limit of numpy.
_MAX_DIMENSIONS = 32
_PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".pkl", ".pickle")
# A zip archive (torch.save), and pickle protocols 2 to 5.
_PICKLE_STARTS = (b"PK\x03\x04", *(bytes((0x80, protocol)) for protocol in range(2, 6)))


def read_weights(path: Path) -> Values:
    """Return all arrays of a MindSpore checkpoint or a safetensors file, by their names there.

    Raises:
        UserError: The file can't be read, is a pickle (which is never opened), or is neither
            format.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UserError(f"weights {path} can't be read: {error.strerror}") from None
    suffix = path.suffix.lower()
    if suffix in _PICKLE_SUFFIXES or start.startswith(_PICKLE_STARTS):
        raise UserError(
            f"{path} is a pickle, which can run any code: where you trust it, load it with torch "
            "and write it with safetensors.torch.save_file"
        )
    return _read_safetensors(path) if suffix == ".safetensors" else _read_ckpt(path)


def printable(name: str) -> str:
    """Return a name from a file in a form that fits into one line of an error."""
    return name if name.isprintable() and len(name) <= 100 else ascii(name[:100])


def _read_safetensors(path: Path) -> Values:
    values: Values = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (the file is not a mapping)
                values[name] = file.get_tensor(name)
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        # AttributeError is raised for a type that numpy lacks.
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no safetensors file of numpy types: {reason}") from None
    return values


def _read_ckpt(path: Path) -> Values:
    """Read without ms.load_checkpoint, which fills tensors that are too short with zeros."""
    content = path.read_bytes()
    # The trailer that save_checkpoint(crc_check=True) writes.
    if content[-17:-10] == b"crc_num":
        content, checksum = content[:-17], int.from_bytes(content[-10:], "big")
        if zlib.crc32(content) != checksum:
            raise UserError(f"{path} is damaged (its checksum differs)")
    checkpoint, values = Checkpoint(), Values()
    try:
        checkpoint.ParseFromString(content)
        for entry in checkpoint.value:
            if entry.tag in values:
                raise UserError(f"{path} holds {printable(entry.tag)} twice")
            values[entry.tag] = _ckpt_array(entry, path)
    except (DecodeError, UnicodeDecodeError):
        values = {}
    if not values:
        raise UserError(f"{path} is no MindSpore checkpoint")
    return values


def _ckpt_array(entry: Checkpoint.Value, path: Path) -> npt.NDArray[np.generic]:
    tensor, fault = entry.tensor, f"{path} can't be used: {printable(entry.tag)}"
    if tensor.tensor_type not in _CKPT_TYPES:
        raise UserError(f"{fault} is of type {printable(tensor.tensor_type) or 'none'}")
    dtype = np.dtype(_CKPT_TYPES[tensor.tensor_type])
    # MindSpore writes a scalar with the single dimension 0.
    shape = () if list(tensor.dims) == [0] else tuple(tensor.dims)
    given, size = len(tensor.tensor_content), math.prod(shape) * dtype.itemsize
    if given != size or min(shape, default=1) < 1 or len(shape) > _MAX_DIMENSIONS:
        raise UserError(f"{fault} has {given} bytes for {len(shape)} dimensions of {size} bytes")
    return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
