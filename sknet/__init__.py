"""SKNet on MindSpore: recipes, exact data order, resumable training, evaluation, reports.

    import sknet
    predictor = sknet.Predictor.from_store("artifacts", "production")
    network = sknet.create_model("skresnet18", weights="checkpoint/model.ckpt")
    runs = sknet.open_report("artifacts").runs

This package knows no orchestrator and no cloud. Importing it imports neither MindSpore nor anything
else that takes long: its names are imported when they are used. `recipe`, `records`, `judgement`
and `report` never import MindSpore, for machines that only register or read runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from infra.base.interrupts import handle_while_importing

if TYPE_CHECKING:
    from sknet.models.registry import create_model, list_models
    from sknet.models.weights import load_weights
    from sknet.prediction.predictor import Predictor
    from sknet.prediction.stores import open_report

    __version__: str

__all__ = [
    "Predictor",
    "__version__",
    "create_model",
    "list_models",
    "load_weights",
    "open_report",
]

_MODULES = {
    "Predictor": "sknet.prediction.predictor",
    "create_model": "sknet.models.registry",
    "list_models": "sknet.models.registry",
    "load_weights": "sknet.models.weights",
    "open_report": "sknet.prediction.stores",
}
"""Where the names of this package are."""

handle_while_importing(__name__)


def __getattr__(name: str) -> Any:
    """Import a name of this package at its first use."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("sknet")
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
