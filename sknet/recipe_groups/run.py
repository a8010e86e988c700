"""The model and what it starts from; the run itself."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from sknet.recipe_groups.base import Choices
from sknet.recipe.types import Count, Share, Whole, refuse_bool

Layer = Literal["stem", "layer1", "layer2", "layer3", "layer4", "fc"]


class ModelChoices(Choices):
    """The network, and the weights that it starts from."""

    model: str
    """Name in `sknet.models.list_models()`."""
    num_classes: Count | None = None
    """Checked against the data set if given; otherwise as many as the data set has."""
    drop_path_rate: Annotated[Share, Field(lt=1)] = 0.0
    """Probability that a sample skips the last block in training; it grows linearly with depth."""
    ckpt_path: str = ""
    """Weights to start from, of this project, MindCV or timm: a file, or a checkpoint's directory.
    Where they lie is no choice, so it doesn't count in the digest."""
    ckpt_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of that file; filled in when the recipe is loaded."""
    replace_head: bool = False
    """Whether the weights' classifier is left out, as for another number of classes."""
    freeze: tuple[Layer, ...] = ()
    """Layers that keep the weights they start from, and their BatchNorm its statistics."""

    @model_validator(mode="after")
    def _consistent_model(self) -> Self:
        if not (self.ckpt_path or self.ckpt_sha256):
            for key in ("replace_head", "freeze"):
                if getattr(self, key):
                    raise ValueError(f"{key} needs ckpt_path, the weights to start from")
        if len(set(self.freeze)) != len(self.freeze) or len(self.freeze) == len(get_args(Layer)):
            raise ValueError(
                f"freeze is {list(self.freeze)}, expected different layers, and not all of them"
            )
        if self.replace_head and "fc" in self.freeze:
            raise ValueError("freeze has fc, but replace_head starts it from random weights")
        return self


class RunChoices(Choices):
    """How the run goes, is saved and is judged."""

    mode: Annotated[Literal[0, 1], BeforeValidator(refuse_bool)] = 0
    """0: graphs, compiled once. 1: pynative, for looking inside."""
    seed: Annotated[Whole, Field(lt=1 << 32)] = 42
    """Of the weights, the order, the augmentation and drop_path."""
    checkpoint_every_steps: Count | None = None
    """Steps between checkpoints within an epoch; every epoch ends with one in any case."""
    keep_checkpoint_max: Annotated[Count, Field(ge=2)] = 3
    """Newest checkpoints that are kept."""
    val_interval: Count = 1
    """Epochs between evaluations while training; the last epoch is always evaluated."""
    log_interval: Count = 50
    """Steps between lines of progress."""
    min_accuracy: Share = 0.0
    """Floor of accuracy@1, as a share, below which a checkpoint is not promoted."""
