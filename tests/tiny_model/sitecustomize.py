"""Adds the model `tiny` to every Python process that has this directory on PYTHONPATH.

Whole pipelines train it in the processes that they start, in a third of skresnet18's time. Python
imports this file whenever it starts, so this file costs little: it waits until the process imports
the models' names.
"""

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

FORMS = "sknet.architectures"
NAME = "tiny"


class TinyModel(MetaPathFinder):
    """Finds the forms as other finders do, and adds a model once it is imported."""

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        if fullname != FORMS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_add(module: ModuleType) -> None:
                execute(module)
                module.ARCHITECTURES[NAME] = module.Architecture(
                    "basic", (1, 1, 0, 0), attention_divisor=16, attention_reduction=8
                )

            spec.loader.exec_module = execute_and_add
        return spec


if FORMS not in sys.modules:
    sys.meta_path.insert(0, TinyModel())
