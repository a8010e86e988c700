"""Write networks as files for other programs, and run such files."""

from importlib.util import find_spec
from pathlib import Path

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import nn

from sknet.models.backend import PLAIN
from sknet.models.folding import fold
from sknet.models.sknet import SKNet

FloatArray = npt.NDArray[np.float32]


def exportable(network: SKNet) -> SKNet:
    """Return a folded copy of the network whose operators export faithfully.

    MindSpore 2.10 silently writes a wrong padding of MaxPool3D to ONNX.
    """
    result = fold(network)
    result.pool = PLAIN.stem_pool(network.architecture.pool_padding)
    return result


def write(network: SKNet, images: FloatArray, file: Path, notes: dict[str, str]) -> None:
    """Write an exportable network to a file. ONNX needs the package `onnx`.

    MindSpore refuses paths that contain a space, and may leave the file read-only.

    Args:
        network: The result of `exportable`.
        images: Example input (N, 3, H, W). The file accepts inputs of exactly this shape.
        file: The file; its suffix, `.mindir`, `.onnx` or `.air`, selects the format.
        notes: Texts to store in the file by name. `.air` files can't store any.
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
    """Return the logits that a file computes for images (N, 3, H, W).

    Returns:
        None if nothing installed here can run the file.
    """
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
    """Return the largest difference as a fraction of the largest magnitude of `reference`."""
    return float(np.abs(values - reference).max() / np.abs(reference).max())


def _annotate_onnx(file: Path, notes: dict[str, str]) -> None:
    import onnx

    model = onnx.load(file)
    onnx.helper.set_model_props(model, notes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
