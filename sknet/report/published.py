"""What others have published of these networks, and where."""

from collections.abc import Mapping

IMAGENET_VALIDATION = 50_000
"""Images that every accuracy below was counted on."""

_ON_ASCEND = {"cards": 8, "batch size": 64, "resolution": "224x224", "jit level": "O2"}
_MINDCV = {"cards": 8, "batch size": 64, "resolution": "224x224", "recipe": "published: MindCV"}
_TIMM = {"resolution": "224x224", "recipe": "published: timm"}
_PAPER = "published: paper"

# ImageNet-1K. MindCV's configs/sknet/README.md and model list; timm's results; the paper's table
# (100 minus its errors). MindCV counts the statistics of BatchNorm as parameters.
PUBLISHED: tuple[Mapping[str, object], ...] = (
    {
        **_ON_ASCEND,
        "model name": "skresnet18",
        "params(M)": 11.97,
        "graph compile": 134.0,
        "ms/step": 46.83,
        "img/s": 10933.16,
        "acc@top1": 72.85,
        "acc@top5": 90.83,
        "recipe": "published: MindCV, 8x Ascend 910*",
    },
    {
        **_ON_ASCEND,
        "model name": "skresnet18",
        "params(M)": 11.97,
        "graph compile": 60.0,
        "ms/step": 45.84,
        "img/s": 11169.28,
        "acc@top1": 73.09,
        "acc@top5": 91.20,
        "recipe": "published: MindCV, 8x Ascend 910",
    },
    {**_MINDCV, "model name": "skresnet34", "params(M)": 22.31, "acc@top1": 76.71}
    | {"acc@top5": 93.10},
    {**_MINDCV, "model name": "skresnext50_32x4d", "params(M)": 37.31, "acc@top1": 79.08}
    | {"acc@top5": 94.60, "recipe": "published: MindCV (built without groups, not SKNet-50)"},
    {**_TIMM, "model name": "skresnet18", "params(M)": 11.96, "acc@top1": 73.02}
    | {"acc@top5": 91.17},
    {**_TIMM, "model name": "skresnet34", "params(M)": 22.28, "acc@top1": 76.96}
    | {"acc@top5": 93.32},
    {**_TIMM, "model name": "skresnext50_32x4d", "params(M)": 27.48, "acc@top1": 80.17}
    | {"acc@top5": 94.64},
    {"model name": "SKNet-50", "resolution": "224x224", "acc@top1": 79.21, "recipe": _PAPER},
    {"model name": "SKNet-50", "resolution": "320x320", "acc@top1": 80.68, "recipe": _PAPER},
    {"model name": "SKNet-101", "resolution": "224x224", "acc@top1": 79.81, "recipe": _PAPER},
    {"model name": "SKNet-101", "resolution": "320x320", "acc@top1": 81.60, "recipe": _PAPER},
)

# Trainable parameters with 1000 classes, and the features that the classifier reads. The paper's
# networks (sknet26/50/101) by its table 1 and its rule d = max(C/16, 32), which gives the paper's
# 27.5 M for SKNet-50; skresnet18/34/50 and skresnext50_32x4d as counted in timm 1.0.31.
_PARAMS_OF_1000_CLASSES = {
    "skresnet18": (11_958_056, 512),
    "skresnet34": (22_282_376, 512),
    "skresnet50": (25_803_160, 2048),
    "skresnext50_32x4d": (27_479_784, 2048),
    "sknet26": (16_746_408, 2048),
    "sknet50": (27_479_784, 2048),
    "sknet101": (48_736_040, 2048),
}


def published_params(model: str, num_classes: int) -> int | None:
    """Trainable parameters that the published network has with so many classes, if it is known."""
    if model not in _PARAMS_OF_1000_CLASSES:
        return None
    params, features = _PARAMS_OF_1000_CLASSES[model]
    return params - (features + 1) * (1000 - num_classes)
