"""The reference implementations, imported without the libraries that they don't need here.

This module imports none of them. Each function imports its framework at the first call, without the
warnings of that import.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mindspore
    import torch


def timm_model(name: str, **kwargs: Any) -> "torch.nn.Module":
    """Return a network of `timm.models.sknet`, with timm's own initialisation.

    Only that module and what it needs is imported, because timm as a whole needs torchvision and
    huggingface_hub. Afterwards `timm` is an empty package in this process.
    """
    module = sys.modules.get("timm.models.sknet") or _import_timm_sknet()
    network: torch.nn.Module = getattr(module, name)(**kwargs)
    return network


def fold_timm(network: Any) -> Any:
    """Return timm's network in evaluation mode, with BatchNorm folded by torch's own pass."""
    from torch import nn
    from torch.fx.experimental.optimization import fuse

    norm_act = importlib.import_module("timm.layers.norm_act").BatchNormAct2d
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, norm_act):
                # The pass knows only torch's own BatchNorm.
                norm = nn.BatchNorm2d(child.num_features, child.eps)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, nn.Sequential(norm, child.drop, child.act))
    return fuse(network.eval())


def mindcv_model(name: str, **kwargs: Any) -> "mindspore.nn.Cell":
    """Return a network of `mindcv.models.sknet`, with MindCV's own initialisation."""
    with warnings.catch_warnings(action="ignore"):
        module = importlib.import_module("mindcv.models.sknet")
    return getattr(module, name)(**kwargs)


def mindcv_data() -> ModuleType:
    """Return `mindcv.data`, with create_dataset, create_transforms and create_loader."""
    return mindcv_module("mindcv.data")


def mindcv_module(name: str) -> ModuleType:
    """Return one of MindCV's packages."""
    with warnings.catch_warnings(action="ignore"):
        return importlib.import_module(name)


def mindcv_rates(steps_per_epoch: int, **choices: Any) -> list[float]:
    """Return the learning rates of `mindcv.scheduler.create_scheduler`."""
    with warnings.catch_warnings(action="ignore"):
        module = importlib.import_module("mindcv.scheduler")
    rates: list[float] = module.create_scheduler(steps_per_epoch, **choices)
    return rates


def _import_timm_sknet() -> ModuleType:
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("timm is not installed", name="timm")
    (root,) = spec.submodule_search_locations
    with warnings.catch_warnings(action="ignore"), _torchvision():
        timm = _bare_package("timm", root)
        timm.__version__ = importlib.import_module("timm.version").__version__
        data = _bare_package("timm.data", f"{root}/data")
        constants = importlib.import_module("timm.data.constants")
        data.__dict__.update({key: vars(constants)[key] for key in dir(constants) if key.isupper()})
        _bare_package("timm.models", f"{root}/models")
        return importlib.import_module("timm.models.sknet")


@contextmanager
def _torchvision() -> Iterator[None]:
    """A substitute for the one class that timm.layers takes from torchvision."""
    if importlib.util.find_spec("torchvision"):
        yield
        return
    names = ("torchvision", "torchvision.ops", "torchvision.ops.misc")
    for name in names:
        _bare_package(name)
    # timm asks whether a layer is an instance of it, and no layer of an SKNet is.
    sys.modules[names[-1]].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def _bare_package(name: str, *path: str) -> ModuleType:
    """Put a package into sys.modules without running its __init__."""
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = list(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module
