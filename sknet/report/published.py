"""Results and sizes of these networks that others have published."""

from dataclasses import dataclass

IMAGENET_VALIDATION = 50_000
"""Number of images that every published accuracy was counted on."""


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """A result for ImageNet-1K. What wasn't published is None."""

    source: str
    """Who published it, and on which hardware if that is known."""
    model: str
    resolution: int = 224
    top1: float
    """Accuracy@1 in percent."""
    top5: float | None = None
    """Accuracy@5 in percent."""
    params: float | None = None
    """Number of parameters, in millions."""
    cards: int | None = None
    batch_size: int | None = None
    """Batch size per card."""
    jit_level: str | None = None
    compile_seconds: float | None = None
    ms_per_step: float | None = None
    images_per_second: float | None = None
    note: str = ""


# MindCV: configs/sknet/README.md and the list of models. It counts the statistics of BatchNorm as
# parameters. timm: its table of results. Paper: 100 minus the errors of its table of results.
PUBLISHED = (
    PublishedResult(
        source="MindCV, 8x Ascend 910*",
        model="skresnet18",
        top1=72.85,
        top5=90.83,
        params=11.97,
        cards=8,
        batch_size=64,
        jit_level="O2",
        compile_seconds=134.0,
        ms_per_step=46.83,
        images_per_second=10933.16,
    ),
    PublishedResult(
        source="MindCV, 8x Ascend 910",
        model="skresnet18",
        top1=73.09,
        top5=91.20,
        params=11.97,
        cards=8,
        batch_size=64,
        jit_level="O2",
        compile_seconds=60.0,
        ms_per_step=45.84,
        images_per_second=11169.28,
    ),
    PublishedResult(
        source="MindCV",
        model="skresnet34",
        top1=76.71,
        top5=93.10,
        params=22.31,
        cards=8,
        batch_size=64,
    ),
    PublishedResult(
        source="MindCV",
        note="built without groups, not SKNet-50",
        model="skresnext50_32x4d",
        top1=79.08,
        top5=94.60,
        params=37.31,
        cards=8,
        batch_size=64,
    ),
    PublishedResult(source="timm", model="skresnet18", top1=73.02, top5=91.17, params=11.96),
    PublishedResult(source="timm", model="skresnet34", top1=76.96, top5=93.32, params=22.28),
    PublishedResult(source="timm", model="skresnext50_32x4d", top1=80.17, top5=94.64, params=27.48),
    PublishedResult(source="paper", model="SKNet-50", top1=79.21),
    PublishedResult(source="paper", model="SKNet-50", top1=80.68, resolution=320),
    PublishedResult(source="paper", model="SKNet-101", top1=79.81),
    PublishedResult(source="paper", model="SKNet-101", top1=81.60, resolution=320),
)

# Trainable parameters with 1000 classes, and the number of features that the classifier reads.
# sknet26, sknet50 and sknet101: from the paper's table 1 and its rule d = max(C/16, 32), which give
# the paper's 27.5 M for SKNet-50. The others: counted in timm 1.0.31.
_PARAMS_AND_FEATURES = {
    "skresnet18": (11_958_056, 512),
    "skresnet34": (22_282_376, 512),
    "skresnet50": (25_803_160, 2048),
    "skresnext50_32x4d": (27_479_784, 2048),
    "sknet26": (16_746_408, 2048),
    "sknet50": (27_479_784, 2048),
    "sknet101": (48_736_040, 2048),
}


def published_params(model: str, num_classes: int) -> int | None:
    """Return how many trainable parameters the published network has with so many classes.

    Returns:
        The number of parameters; None if it is not known.
    """
    if model not in _PARAMS_AND_FEATURES:
        return None
    params, features = _PARAMS_AND_FEATURES[model]
    return params - (features + 1) * (1000 - num_classes)
