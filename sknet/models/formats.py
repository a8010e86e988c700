"""A network as a file for other programs, and what such a file computes."""

from importlib.util import find_spec
from pathlib import Path

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from sknet.models.folding import fold
from sknet.models.sknet import SKNet

FloatArray = npt.NDArray[np.float32]


class PaddedPool(nn.Cell):
    """`StemPool` in operators that every format has: (N, C, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉).

    MindSpore 2.10 writes MaxPool3D's padding to ONNX as another one, without a word. Before the
    ReLU zeros pad as well as the lowest number does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pad = ops.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))
        self.pool = ops.MaxPool(3, 2, "valid")

    def construct(self, x: Tensor) -> Tensor:
        """See the class."""
        return ops.relu(self.pool(self.pad(x)))


def exportable(network: SKNet) -> SKNet:
    """A folded network of the same function whose operators export faithfully."""
    result = fold(network)
    if network.architecture.pool_padding == "both":
        result.pool = PaddedPool()
    return result


def write(network: SKNet, images: FloatArray, file: Path, notes: dict[str, str]) -> None:
    """Write an exportable network for inputs of exactly the shape of `images`, (N, 3, H, W).

    The suffix says the format: `.mindir`, `.onnx` or `.air`. The first two hold `notes` too; ONNX
    needs the package `onnx`. MindSpore refuses paths with a space and may leave the file read-only.
    """
    example = ms.Tensor(images)
    if file.suffix == ".onnx":
        ms.onnx.export(
            network,
            example,
            file_name=str(file),
            input_names=["images"],
            output_names=["logits"],
        )
        _annotate_onnx(file, notes)
    elif file.suffix == ".mindir":
        ms.export(
            network,
            example,
            file_name=str(file),
            file_format="MINDIR",
            custom_func=lambda model: model.user_info.update(notes),
        )
    else:
        ms.export(network, example, file_name=str(file), file_format="AIR")


def run(file: Path, images: FloatArray) -> FloatArray | None:
    """Logits that the file gives for images (N, 3, H, W); None if nothing here can run it."""
    logits: FloatArray
    if file.suffix == ".mindir":
        logits = nn.GraphCell(ms.load(str(file)))(ms.Tensor(images)).asnumpy()
        return logits
    if file.suffix == ".onnx" and find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"images": images})
        return logits
    return None


def relative_difference(values: FloatArray, reference: FloatArray) -> float:
    """The largest difference as a share of the largest magnitude of `reference`."""
    return float(np.abs(values - reference).max() / np.abs(reference).max())


def _annotate_onnx(file: Path, notes: dict[str, str]) -> None:
    import onnx

    model = onnx.load(file)
    onnx.helper.set_model_props(model, notes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
