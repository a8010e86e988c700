"""On which platforms MindSpore declares its primitives to work, and which were reviewed by hand.

A public class declares its platforms in its docstring, or in that of the function to which its
docstring refers. Gradients, and what MindSpore's compiler inserts, have no public class. Those that
published recipes contain are in `REVIEWED`, each with the reason why Ascend has it and the source.
"""

import inspect
import re
from dataclasses import dataclass

_DECLARED = re.compile(r"Supported Platforms:\s*(.+)")
_PLATFORM = re.compile(r"``(\w+)``")
_REFERRED = re.compile(r"Refer to :func:`mindspore\.([\w.]+)` for more details")


@dataclass(frozen=True)
class Reviewed:
    """Why a primitive is fit for Ascend although no public class declares it."""

    reason: str
    source: str
    library: str = ""
    """Library of MindSpore's wheel that holds the symbol, relative to the package; none if the
    primitive needs no kernel."""
    symbol: str = ""
    """Name of a C++ class in that library, as the compiler encodes it."""


def declared_platforms(name: str) -> tuple[str, ...] | None:
    """Return the platforms that the public class of a primitive declares.

    Returns:
        Such as ("Ascend", "GPU", "CPU"); empty if the class is deprecated, and None if there is no
        public class or it declares nothing.
    """
    import mindspore

    docstring = _docstring(mindspore, f"ops.{name}")
    if not (declared := _DECLARED.search(docstring)) and (function := _REFERRED.search(docstring)):
        declared = _DECLARED.search(_docstring(mindspore, function[1]))
    return tuple(_PLATFORM.findall(declared[1])) if declared else None


def _docstring(root: object, path: str) -> str:
    """Return the docstring of what a dotted path names; empty if there is none."""
    found: object = root
    for part in path.split("."):
        found = getattr(found, part, None)
    return (inspect.getdoc(found) or "") if found is not None else ""


_WIRING = Reviewed(
    reason="Wires nodes together or orders their effects; it needs no kernel.",
    source="AnfUtils::IsRealKernel in MindSpore's core/utils/anf_utils.cc counts it as virtual.",
)


def _converted(name: str, reason: str, source: str = "") -> Reviewed:
    """Return the entry of a primitive for which MindSpore has an adapter to CANN's operator.

    The plugin's class `OpAdapter<czNAME>` converts it, for whole graphs and for single kernels.
    """
    adapter = f"MindSpore's plugin for Ascend converts it to CANN's operator {name}"
    return Reviewed(
        reason=reason,
        source=f"{adapter}; {source}." if source else f"{adapter}.",
        library="lib/plugin/ascend/libmindspore_ascend_res_manager.so",
        symbol=f"OpAdapterINS1_{len(name) + 2}cz{name}EEE",
    )


_MINDCV = "MindCV's published ResNets and SKNets train with it on Ascend 910"
_TUNED = "CANN 9.0's list of operators that AOE tunes has it (devaids/aoe/aoepar_16_072)"

REVIEWED: dict[str, Reviewed] = {
    "BatchNormGrad": _converted("BatchNormGrad", "Derivative of BatchNorm.", _MINDCV),
    "BiasAddGrad": _converted("BiasAddGrad", "Derivative of BiasAdd.", _TUNED),
    "Conv2DBackpropFilter": _converted(
        "Conv2DBackpropFilter", "Derivative of Conv2D by its weight.", _TUNED
    ),
    "Conv2DBackpropInput": _converted(
        "Conv2DBackpropInput",
        "Derivative of Conv2D by its input. Only the class for users is deprecated.",
        _TUNED,
    ),
    "Load": _WIRING,
    "LogSoftmaxGrad": _converted("LogSoftmaxGrad", "Derivative of LogSoftmax."),
    "MakeTuple": _WIRING,
    "MaxPoolGrad": _converted(
        "MaxPoolGrad",
        "Derivative of MaxPool. CANN's ops-nn (pooling/max_pool_grad) has a kernel of this name "
        "for Ascend 950 only, so watch it in the first run on cards.",
        _MINDCV,
    ),
    "ReluGrad": _converted("ReluGrad", "Derivative of ReLU.", _MINDCV),
    "SigmoidGrad": _converted("SigmoidGrad", "Derivative of Sigmoid."),
    "StridedSliceGrad": _converted("StridedSliceGrad", "Derivative of StridedSlice."),
    "Switch": Reviewed(
        reason="Makes an update only if all gradients are finite; the host decides.",
        source="MindSpore's nn.TrainOneStepWithLossScaleCell, which declares Ascend, branches at "
        "the same place.",
    ),
    "TensorMove": _converted(
        "TensorMove", "Copy of a parameter before an update in place, inserted by MindSpore."
    ),
    "TupleGetItem": _WIRING,
    "UpdateState": _WIRING,
}
"""By name, sorted. MindSpore's plugin has these symbols in 2.7.1, 2.7.2 and 2.10.0."""
