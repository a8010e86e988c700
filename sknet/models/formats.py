"""Write networks as files for other programs, and run such files."""

from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from sknet.evaluation.predictions import Floats, Forward
from sknet.models.backend import PLAIN
from sknet.models.folding import fold
from sknet.models.sknet import SelectiveKernelAttention, SKNet
from sknet.records.exported import INPUT_NAME, OUTPUT_NAME


def exportable(network: SKNet) -> SKNet:
    """Return a folded copy of the network whose operators export faithfully.

    MindSpore 2.10 silently writes a wrong padding of MaxPool3D to ONNX, and the tuned mean over
    pixels fixes the number of images.
    """
    result = fold(network)
    result.pool = PLAIN.stem_pool(network.architecture.pool_padding)
    for _, cell in result.cells_and_names():
        if isinstance(cell, SKNet | SelectiveKernelAttention):
            cell.spatial_mean = PLAIN.spatial_mean()
    return result


def write(
    network: SKNet,
    shape: tuple[int | None, int, int, int],
    file: Path,
    notes: Callable[[int | None], dict[str, str]],
    *,
    is_float16: bool = False,
) -> int | None:
    """Write an exportable network to a file. ONNX needs the package `onnx`.

    MindSpore refuses paths that contain a space, and may leave the file read-only.

    Args:
        network: The result of `exportable`.
        shape: Shape (N, 3, H, W) of the input; if N is None, the file takes any number of images.
        file: The file; its suffix, `.mindir`, `.onnx` or `.air`, selects the format.
        notes: Returns texts to store in the file by name; its argument is the version of ONNX's
            operators, None for other formats. `.air` files can't store any.
        is_float16: Whether an ONNX file computes in float16. Its input and output stay float32.

    Returns:
        The version of ONNX's operators; None for other formats.
    """
    if file.suffix == ".onnx":
        example = ms.Tensor(np.zeros((shape[0] or 1, *shape[1:]), np.float32))
        ms.onnx.export(
            network,
            example,
            file_name=str(file),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes=None if shape[0] else {INPUT_NAME: {0: "N"}},
        )
        return _complete_onnx(file, notes, is_dynamic=shape[0] is None, is_float16=is_float16)
    example = ms.Tensor(shape=list(shape), dtype=ms.float32)
    if file.suffix == ".mindir":
        ms.export(
            network,
            example,
            file_name=str(file),
            file_format="MINDIR",
            custom_func=lambda model: model.user_info.update(notes(None)),
        )
    else:
        ms.export(network, example, file_name=str(file), file_format="AIR")
    return None


def loaded(file: Path) -> Forward | None:
    """Return what an exported file computes.

    Returns:
        None if nothing installed here can run the file.
    """
    if file.suffix == ".mindir":
        cell = nn.GraphCell(ms.load(str(file)))

        def run_mindir(images: Floats) -> Floats:
            logits: Floats = cell(ms.Tensor(images)).asnumpy()
            return logits

        return run_mindir
    return load_onnx(file) if file.suffix == ".onnx" else None


def load_onnx(file: Path) -> Forward:
    """Return what an ONNX file computes on the CPU, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(images: Floats) -> Floats:
        logits: Floats
        (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
        return logits

    return run


def _complete_onnx(
    file: Path,
    notes: Callable[[int | None], dict[str, str]],
    *,
    is_dynamic: bool,
    is_float16: bool,
) -> int:
    """Complete what MindSpore wrote, and return the version of ONNX's operators."""
    import onnx

    model = onnx.load(file)
    if is_dynamic:
        # MindSpore names the input's dimension only.
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
        del model.graph.value_info[:]
    if is_float16:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
        # It appends the cast of the input, which has to come first.
        nodes = sorted(model.graph.node, key=lambda node: INPUT_NAME not in node.input)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    opset: int
    (opset,) = (each.version for each in model.opset_import if not each.domain)
    onnx.helper.set_model_props(model, notes(opset))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
    return opset
